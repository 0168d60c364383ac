"""What both the kernels and the oracle refuse, and how a missing value is spelled inside."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from numbers import Real
from typing import Any

MAX_BANDS = 16
MAX_DATES = 65535
"""counts are uint16"""
DTYPES = ("int16", "uint16", "float32")
"""the kernels know them by their index"""


def checked_nodata(
    stack: Any, nodata: float | Sequence[float | None] | None, scale: float, offset: float
) -> tuple[float, ...]:
    """Check a call's arguments and return one missing value per band; NaN where there is none.

    Raises:
        TypeError: a dtype that is not int16, uint16 or float32; what should be a number but isn't.
        ValueError: wrong number of dimensions, bands, dates or nodata values; unusable scale.
    """
    if stack.ndim != 4:
        raise ValueError(
            f"a stack has axes (band, time, y, x), got {stack.ndim} axes, shape {stack.shape}"
        )
    bands, dates = stack.shape[:2]
    if stack.dtype.name not in DTYPES or not stack.dtype.isnative:
        given = f"{stack.dtype.str} ({stack.dtype})"
        raise TypeError(f"stacks are {', '.join(DTYPES)}, got {given}: convert it with astype")
    if not 1 <= bands <= MAX_BANDS:
        raise ValueError(f"1 to {MAX_BANDS} bands are supported, got {bands}")
    if dates > MAX_DATES:
        raise ValueError(f"at most {MAX_DATES} dates are supported, got {dates}")
    for name, number in (("scale", scale), ("offset", offset)):
        if not isinstance(number, Real):
            raise TypeError(f"{name} must be a number, got {number!r}")
    if not (math.isfinite(scale) and scale > 0 and math.isfinite(offset)):
        raise ValueError(f"scale must be positive, offset finite; got {scale} and {offset}")
    values: list[float | None]
    several = isinstance(nodata, Iterable) and not isinstance(nodata, str)
    values = list(nodata) if several else [nodata] * bands  # type: ignore[arg-type,list-item]
    if len(values) != bands:
        raise ValueError(
            f"{len(values)} nodata values for {bands} bands: give one, or one per band"
        )
    for value in values:
        if not (value is None or isinstance(value, Real)):
            raise TypeError(f"no nodata {value!r}: give a number, one per band, or None")
    return tuple(math.nan if value is None else float(value) for value in values)


def unit_of(stack: Any, scale: float) -> float:
    """Return the length, in input units, that tolerances call 1 DN (reflectance 1e-4)."""
    return 1.0 if stack.dtype.kind in "iu" else 1e-4 / scale
