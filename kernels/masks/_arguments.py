"""Checks that all implementations of the mask operations share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from odc_stats_gpu.kernels._nodata import fits

FlagRule = tuple[int, int, int]
"""(offset of the lowest bit, number of bits, value of the field)."""


def class_values(values: Iterable[float], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Values that the type can have, in that type; the others match no pixel."""
    if dtype.kind == "f":
        return np.array(sorted(set(values)), dtype=dtype)
    if dtype.kind not in "iub":
        raise ValueError(f"no classes in a mask of {dtype}")
    held = {int(value) for value in values if fits(value, dtype)}
    return np.array(sorted(held), dtype=dtype)


def field_masks(rules: Iterable[FlagRule], dtype: np.dtype[Any]) -> npt.NDArray[np.int64]:
    """(n, 2): the bits of each rule's field in place, and what they must be.

    Raises:
        ValueError: not an integer mask, a field that the mask has no bits for, a value that the
            field can't hold.
    """
    if dtype.kind not in "iu" or dtype.itemsize > 4:
        raise ValueError(
            f"a mask of bit fields must be of an integer type of 8 to 32 bits, got {dtype}"
        )
    width = 8 * dtype.itemsize
    pairs = []
    for offset, bits, value in rules:
        if offset < 0 or bits < 1 or offset + bits > width:
            raise ValueError(
                f"bits {offset}..{offset + bits - 1} are not in a mask of {width} bits"
            )
        if not 0 <= value < 1 << bits:
            raise ValueError(f"a field of {bits} bits can't be {value}")
        pairs.append((((1 << bits) - 1) << offset, value << offset))
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def blanked(xp: Any, bands: Any, bad: Any, out: Any | None) -> Any:
    """The array that `mask_where` writes nodata into: `out`, or a copy of the bands.

    Raises:
        ValueError: shapes or types that don't fit together.
    """
    if bad.dtype != np.bool_ or bands.shape[bands.ndim - bad.ndim :] != bad.shape or bad.ndim < 2:
        raise ValueError(
            "bad must be bool and have the last axes of the bands "
            f"{bands.shape}, got {bad.dtype} {bad.shape}"
        )
    if out is None:
        return bands.copy()
    if out.shape != bands.shape or out.dtype != bands.dtype:
        raise ValueError(f"out must be {bands.dtype} {bands.shape}, got {out.dtype} {out.shape}")
    if out is not bands:
        xp.copyto(out, bands)
    return out
