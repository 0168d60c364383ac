"""The public functions of fusing: documentation and choice of the implementation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from odc_stats_gpu.kernels._dispatch import implementation, register

_ROOM = "odc_stats_gpu.kernels.fuse"
register("first_valid", cpu=f"{_ROOM}.cpu:first_valid", cuda=f"{_ROOM}.cuda:first_valid")
register("any_true", cpu=f"{_ROOM}.cpu:any_true", cuda=f"{_ROOM}.cuda:any_true")


def first_valid(stack: Any, nodata: float | Sequence[float] | None) -> Any:
    """Take of every band and pixel the first value in order of time that is not nodata.

    Args:
        stack: (time, y, x) or (band, time, y, x), integer, float or bool.
        nodata: one value, or one per band. In float stacks NaN is nodata, too.
            None: every value is valid, the first layer wins (masks are fused by `any_true`).

    Returns:
        (y, x) or (band, y, x) of stack's type; nodata (0 if None) where no layer has a value.

    Raises:
        ValueError: wrong shape, wrong number of nodata values, one that the type can't hold.
        TypeError: not an array.
    """
    return implementation("first_valid", stack)(stack, nodata)


def any_true(stack: Any) -> Any:
    """Set every pixel that is set (not zero) in any layer.

    Args:
        stack: (time, y, x) or (band, time, y, x), bool or integer.

    Returns:
        bool (y, x) or (band, y, x).

    Raises:
        ValueError: wrong shape.
        TypeError: not an array.
    """
    return implementation("any_true", stack)(stack)
