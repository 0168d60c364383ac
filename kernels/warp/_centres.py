"""Warping at pixel centres, compiled for the CPU: nearest, bilinear, cubic.

Row by row: coordinates, offsets and weights once for all bands, in short passes that run in SIMD;
then per band one pass that loads and blends, which can't; the few pixels that lack taps come last,
so that it need not care.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from odc_stats_gpu.kernels._jit import inlined, kernel
from odc_stats_gpu.kernels.warp._pixels import mend, missing, stored
from odc_stats_gpu.kernels.warp._points import containing, line, offsets, places, split


@kernel
def nearest(
    src: Any,
    out: Any,
    nodata: Any,
    has_nodata: Any,
    fill: Any,
    _integer: Any,
    _rule: Any,
    xs: Any,
    ys: Any,
    step: Any,
    phase: Any,
    origin: Any,
) -> None:
    """Take the pixel that contains the point."""
    bands, rows, cols = src.shape
    width = out.shape[2]
    x, shares = np.empty(width), np.empty(width)
    fx, fy = np.empty(width), np.empty(width)
    col, row = np.empty(width, np.int32), np.empty(width, np.int32)
    at = np.empty(width, np.int64)
    places(phase[1], 2 * step, xs.shape[1] - 1, 0, shares)
    for r in range(out.shape[1]):
        line(xs, 2 * (phase[0] + r), 2 * phase[1], 2 * step, shares, x)
        split(x, np.int32(origin[1]), col, fx)
        line(ys, 2 * (phase[0] + r), 2 * phase[1], 2 * step, shares, x)
        split(x, np.int32(origin[0]), row, fy)
        containing(col, row, fx, fy, (rows, cols), at)
        for b in range(bands):
            flat = src[b].reshape(rows * cols)
            here = out[b, r]
            for c in range(width):
                value = fill
                if at[c] >= 0:
                    value = flat[np.uint64(at[c])]
                    value = fill if has_nodata & missing(value, nodata) else value
                here[c] = value


@kernel
def bilinear(
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
    """Blend the 2 x 2 pixels around the point."""
    bands, rows, cols = src.shape
    width = out.shape[2]
    x, shares = np.empty(width), np.empty(width)
    fx, fy = np.empty(width), np.empty(width)
    col, row = np.empty(width, np.int32), np.empty(width, np.int32)
    at, todo = np.empty(width, np.int64), np.empty(width, np.int64)
    places(phase[1], 2 * step, xs.shape[1] - 1, 0, shares)
    for r in range(out.shape[1]):
        line(xs, 2 * (phase[0] + r), 2 * phase[1], 2 * step, shares, x)
        split(x, np.int32(origin[1]), col, fx)
        line(ys, 2 * (phase[0] + r), 2 * phase[1], 2 * step, shares, x)
        split(x, np.int32(origin[0]), row, fy)
        offsets(col, row, (rows, cols), 0, at)
        for b in range(bands):
            flat = src[b].reshape(rows * cols)
            here = out[b, r]
            left = _blend(flat, cols, at, fx, fy, nodata, has_nodata, integer, rule, todo, here)
            mend(
                todo[:left], flat, (rows, cols), at, col, row, fx, fy,
                nodata, has_nodata, fill, integer, rule, here,
            )  # fmt: skip


@inlined
def _blend(
    flat: Any,
    cols: Any,
    at: Any,
    fx: Any,
    fy: Any,
    nodata: Any,
    has_nodata: Any,
    integer: Any,
    rule: Any,
    todo: Any,
    out: Any,
) -> Any:
    """Blend the pixels that have all their taps; the others are listed in `todo` and counted."""
    marker = np.float64(nodata)
    left = 0
    for c in range(out.size):
        if at[c] < 0:
            todo[left] = c
            left += 1
            continue
        o = np.uint64(at[c])
        p = o + np.uint64(cols)
        t00, t01 = flat[o], flat[o + np.uint64(1)]
        t10, t11 = flat[p], flat[p + np.uint64(1)]
        lacks = missing(t00, nodata) | missing(t01, nodata)
        lacks |= missing(t10, nodata) | missing(t11, nodata)
        if has_nodata & lacks:
            todo[left] = c
            left += 1
            continue
        above = np.float64(t00) + fx[c] * (np.float64(t01) - np.float64(t00))
        below = np.float64(t10) + fx[c] * (np.float64(t11) - np.float64(t10))
        value = above + fy[c] * (below - above)
        if integer:
            value = np.floor(value + rule[0])  # a mean can't leave the type's range
            if has_nodata & (value == marker):
                value = stored(value, marker, has_nodata, rule)
        out[c] = value
    return left


@kernel
def cubic(
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
    """Convolve the 4 x 4 pixels around the point (Catmull-Rom); bilinear where one is missing."""
    bands, rows, cols = src.shape
    width = out.shape[2]
    x, shares = np.empty(width), np.empty(width)
    fx, fy = np.empty(width), np.empty(width)
    wx, wy = np.empty((width, 4)), np.empty((width, 4))
    col, row = np.empty(width, np.int32), np.empty(width, np.int32)
    at, todo = np.empty(width, np.int64), np.empty(width, np.int64)
    places(phase[1], 2 * step, xs.shape[1] - 1, 0, shares)
    for r in range(out.shape[1]):
        line(xs, 2 * (phase[0] + r), 2 * phase[1], 2 * step, shares, x)
        split(x, np.int32(origin[1]), col, fx)
        line(ys, 2 * (phase[0] + r), 2 * phase[1], 2 * step, shares, x)
        split(x, np.int32(origin[0]), row, fy)
        offsets(col, row, (rows, cols), 1, at)
        _catmull_rom(fx, wx)
        _catmull_rom(fy, wy)
        for b in range(bands):
            flat = src[b].reshape(rows * cols)
            here = out[b, r]
            left = _convolve(flat, cols, at, wx, wy, nodata, has_nodata, integer, rule, todo, here)
            mend(
                todo[:left], flat, (rows, cols), at, col, row, fx, fy,
                nodata, has_nodata, fill, integer, rule, here,
            )  # fmt: skip


@inlined
def _convolve(
    flat: Any,
    cols: Any,
    at: Any,
    wx: Any,
    wy: Any,
    nodata: Any,
    has_nodata: Any,
    integer: Any,
    rule: Any,
    todo: Any,
    out: Any,
) -> Any:
    """Convolve the pixels that have all their taps; the others are listed in `todo` and counted."""
    marker = np.float64(nodata)
    left = 0
    for c in range(out.size):
        lacks = at[c] < 0
        value = 0.0
        if not lacks:
            for m in range(4):
                o = np.uint64(at[c] + (m - 1) * cols - 1)
                t0, t1 = flat[o], flat[o + np.uint64(1)]
                t2, t3 = flat[o + np.uint64(2)], flat[o + np.uint64(3)]
                lacks |= missing(t0, nodata) | missing(t1, nodata)
                lacks |= missing(t2, nodata) | missing(t3, nodata)
                value += wy[c, m] * (wx[c, 0] * t0 + wx[c, 1] * t1 + wx[c, 2] * t2 + wx[c, 3] * t3)
            lacks &= has_nodata
        if lacks:
            todo[left] = c
            left += 1
        else:
            out[c] = stored(value, marker, has_nodata, rule) if integer else value
    return left


@inlined
def _catmull_rom(fraction: Any, weights: Any) -> None:
    """Weights of the four taps along one axis."""
    for c in range(fraction.size):
        t = fraction[c]
        weights[c, 0] = 0.5 * t * (-1.0 + t * (2.0 - t))
        weights[c, 1] = 1.0 + 0.5 * t * t * (-5.0 + 3.0 * t)
        weights[c, 2] = 0.5 * t * (1.0 + t * (4.0 - 3.0 * t))
        weights[c, 3] = 0.5 * t * t * (t - 1.0)
