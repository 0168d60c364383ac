"""Warping by the mean over each pixel's footprint, compiled for the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np

from odc_stats_gpu.kernels._jit import inlined, kernel
from odc_stats_gpu.kernels.warp._coordinates import EDGE
from odc_stats_gpu.kernels.warp._pixels import missing, stored
from odc_stats_gpu.kernels.warp._points import FAR, line, places


@kernel
def average(
    src: Any,
    out: Any,
    nodata: Any,
    has_nodata: Any,
    fill: Any,
    integer: Any,
    rule: Any,
    xs: Any,
    ys: Any,
    step: Any,
    phase: Any,
    origin: Any,
) -> None:
    """Take the mean over the box between the images of two opposite corners of the pixel."""
    bands, rows, cols = src.shape
    width = out.shape[2]
    marker = np.float64(nodata)
    x0, y0, x1, y1 = np.empty(width), np.empty(width), np.empty(width), np.empty(width)
    before, after = np.empty(width), np.empty(width)
    places(phase[1], 2 * step, xs.shape[1] - 1, -1, before)
    places(phase[1], 2 * step, xs.shape[1] - 1, 1, after)
    for r in range(out.shape[1]):
        qy, qx = 2 * (phase[0] + r), 2 * phase[1]
        line(xs, qy - 1, qx - 1, 2 * step, before, x0)
        line(ys, qy - 1, qx - 1, 2 * step, before, y0)
        line(xs, qy + 1, qx + 1, 2 * step, after, x1)
        line(ys, qy + 1, qx + 1, 2 * step, after, y1)
        for c in range(width):
            known = max(abs(x0[c]), abs(x1[c])) < FAR and max(abs(y0[c]), abs(y1[c])) < FAR
            if not known:
                for b in range(bands):
                    out[b, r, c] = fill
                continue
            left, right = min(x0[c], x1[c]), max(x0[c], x1[c])
            top, bottom = min(y0[c], y1[c]), max(y0[c], y1[c])
            first_col, end_col = _span(left, right)
            first_row, end_row = _span(top, bottom)
            for b in range(bands):
                total, weight = 0.0, 0.0
                for i in range(max(first_row - origin[0], 0), min(end_row - origin[0], rows)):
                    wy = _share(i + origin[0], top, bottom, end_row - first_row)
                    for j in range(max(first_col - origin[1], 0), min(end_col - origin[1], cols)):
                        value = src[b, np.uint64(i), np.uint64(j)]
                        if has_nodata and missing(value, nodata):
                            continue
                        w = wy * _share(j + origin[1], left, right, end_col - first_col)
                        if w > 0.0:
                            total += w * value
                            weight += w
                if weight > 0.0:
                    mean = total / weight
                    out[b, r, c] = stored(mean, marker, has_nodata, rule) if integer else mean
                else:
                    out[b, r, c] = fill


@inlined
def _span(low: Any, high: Any) -> tuple[Any, Any]:
    """Pixels that the interval touches: the first and the one after the last."""
    first = np.int64(np.floor(low + EDGE))
    return first, max(np.int64(np.ceil(high - EDGE)), first + 1)


@inlined
def _share(pixel: Any, low: Any, high: Any, count: Any) -> Any:
    """Part of a pixel inside the interval; all of it where the interval lies in one pixel."""
    inside = min(pixel + 1.0, high) - max(np.float64(pixel), low)
    return 1.0 if count == 1 else min(max(inside, 0.0), 1.0)
