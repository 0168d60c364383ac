"""What a pixel's value is and becomes, compiled: missing, blended from what there is, stored.

Part of the kernels in `_centres.py` and `_area.py`: it is compiled into them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from odc_stats_gpu.kernels._jit import inlined
from odc_stats_gpu.kernels.warp._coordinates import EDGE
from odc_stats_gpu.kernels.warp._points import OUTSIDE


@inlined
def missing(value: Any, nodata: Any) -> Any:
    """Whether a pixel has no value."""
    return (value == nodata) | (value != value)  # noqa: PLR0124 - true for NaN only


@inlined
def stored(value: Any, marker: Any, has_nodata: Any, rule: Any) -> Any:
    """Value as an integer type takes it: rounded half up, clamped, never nodata (`marker`)."""
    half, lowest, highest = rule
    value = min(max(np.floor(value + half), lowest), highest)
    if has_nodata and value == marker:
        value += 1.0 if value == lowest else -1.0
    return value


@inlined
def mend(
    todo: Any,
    flat: Any,
    shape: Any,
    at: Any,
    col: Any,
    row: Any,
    fx: Any,
    fy: Any,
    nodata: Any,
    has_nodata: Any,
    fill: Any,
    integer: Any,
    rule: Any,
    out: Any,
) -> None:
    """Blend the pixels `todo` of a row from those of their 2 x 2 taps that are inside and valid.

    Without a valid pixel at the point itself there is no value.
    """
    rows, cols = shape
    marker = np.float64(nodata)
    for k in range(todo.size):
        c = todo[k]
        out[c] = fill
        right = 1 if fx[c] >= 0.5 - EDGE else 0
        below = 1 if fy[c] >= 0.5 - EDGE else 0
        i, j = np.int64(row[c]) + below, np.int64(col[c]) + right
        if at[c] == OUTSIDE or i < 0 or i >= rows or j < 0 or j >= cols:
            continue
        if has_nodata and missing(flat[np.uint64(i * cols + j)], nodata):
            continue
        total, weight = 0.0, 0.0
        for m in range(2):
            for n in range(2):
                i, j = np.int64(row[c]) + m, np.int64(col[c]) + n
                if i < 0 or i >= rows or j < 0 or j >= cols:
                    continue
                value = flat[np.uint64(i * cols + j)]
                if has_nodata and missing(value, nodata):
                    continue
                w = (fy[c] if m else 1.0 - fy[c]) * (fx[c] if n else 1.0 - fx[c])
                total += w * value
                weight += w
        mean = total / weight
        out[c] = stored(mean, marker, has_nodata, rule) if integer else mean
