"""The public functions on masks: documentation and choice of the implementation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from odc_stats_gpu.kernels._dispatch import implementation, register
from odc_stats_gpu.kernels.masks._arguments import FlagRule

_ROOM = "odc_stats_gpu.kernels.masks"
for _name in ("decode_enum", "decode_flags", "mask_where"):
    register(_name, cpu=f"{_ROOM}.cpu:{_name}", cuda=f"{_ROOM}.cuda:{_name}")


def decode_enum(mask: Any, values: Iterable[float]) -> Any:
    """Where a mask of classes has one of some values.

    Args:
        mask: any shape, bool, integer or float.
        values: the classes; those that the type can't hold match nothing. No values: nothing is
            set.

    Returns:
        bool of mask's shape.

    Raises:
        ValueError: a mask that is no number.
        TypeError: not an array.
    """
    return implementation("decode_enum", mask)(mask, values)


def decode_flags(mask: Any, rules: Iterable[FlagRule]) -> Any:
    """Where a mask of bit fields has one of some fields at some value.

    Args:
        mask: any shape, integer of 8 to 32 bits.
        rules: alternatives (offset of the field's lowest bit, number of bits, value): `[(3, 1, 1),
            (8, 2, 3)]` is bit 3 set or bits 8-9 equal to 3. No rules: nothing is set.

    Returns:
        bool of mask's shape.

    Raises:
        ValueError: no integer mask, a field beyond its bits, a value beyond its field.
        TypeError: not an array.
    """
    return implementation("decode_flags", mask)(mask, rules)


def mask_where(
    bands: Any, bad: Any, nodata: float | Sequence[float], *, out: Any | None = None
) -> Any:
    """Write nodata where a mask is set.

    Args:
        bands: (y, x), or (n, ..., y, x) with bands first.
        bad: bool, (y, x) or any number of the bands' last axes.
        nodata: one value, or one per band.
        out: array to write to; `out=bands` works in place. By default a copy.

    Returns:
        `out`, or a new array of the bands' shape and type.

    Raises:
        ValueError: shapes that don't fit, a nodata that the type can't hold.
        TypeError: not an array.
    """
    return implementation("mask_where", bands)(bands, bad, nodata, out=out)
