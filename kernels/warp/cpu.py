"""Warping compiled for the CPU: coordinates of a row once (SIMD), then every band's taps along it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from odc_stats_gpu.kernels.warp._arguments import plan
from odc_stats_gpu.kernels.warp._coordinates import EDGE
from odc_stats_gpu.kernels.warp._lattice import Lattice

_OUTSIDE = np.int64(-1)
_EDGE_OF_SOURCE = np.int64(-2)
_FAR = 1e9  # coordinates are held within what an int32 has, missing ones are put there
_jit = njit(nogil=True, cache=True, error_model="numpy")


def warp(
    src: npt.NDArray[Any],
    src_nodata: float | None,
    lattice: Lattice,
    resampling: str,
    *,
    out: npt.NDArray[Any] | None = None,
    fill: float | None = None,
) -> npt.NDArray[Any]:
    """Resample `src` at the lattice's points; see `odc_stats_gpu.kernels.warp`."""
    request = plan(np, src, src_nodata, lattice, resampling, out=out, fill=fill)
    if not request.src.size or not request.out.size:
        request.out[...] = request.fill
        return request.result
    dtype = request.src.dtype
    integer = dtype.kind != "f"
    limits = np.iinfo(dtype) if integer else None
    kernel = {"nearest": _nearest, "bilinear": _bilinear, "cubic": _cubic, "average": _average}
    kernel[resampling](
        np.ascontiguousarray(request.src),
        request.out,
        request.nodata,
        request.has_nodata,
        request.fill,
        (
            integer,
            request.half,
            float(limits.min) if limits else 0.0,
            float(limits.max) if limits else 0.0,
        ),
        lattice.x,
        lattice.y,
        lattice.step,
        lattice.phase,
        lattice.origin,
    )
    return request.result


@_jit
def _line(nodes, qy, qx, half_steps, out):
    """Coordinates along one row: `nodes` interpolated at (qy, qx), (qy, qx + 2), ... counted in half pixels from node (0, 0)."""
    rows, cols = nodes.shape
    inv = 1.0 / half_steps
    i = min(max(qy // half_steps, 0), rows - 2)
    v = (qy - i * half_steps) * inv
    n = out.size
    k = 0
    while k < n:
        j = min(max((qx + 2 * k) // half_steps, 0), cols - 2)
        end = n
        if j < cols - 2:
            end = min(n, ((j + 1) * half_steps - qx + 1) // 2)
        left = nodes[i, j] + v * (nodes[i + 1, j] - nodes[i, j])
        right = nodes[i, j + 1] + v * (nodes[i + 1, j + 1] - nodes[i, j + 1])
        slope = right - left
        q = qx - j * half_steps
        for m in range(k, end):
            out[m] = left + ((q + 2 * m) * inv) * slope
        k = end


@_jit
def _hold(x):
    """The coordinate, or one outside of every source where it is missing or absurd."""
    return x if abs(x) < _FAR else -_FAR


@_jit
def _store(value, nodata, has_nodata, rule):
    """Value as an integer type takes it: rounded half up, clamped, never by accident nodata."""
    integer, half, lowest, highest = rule
    if integer:
        value = min(max(np.floor(value + half), lowest), highest)
        if has_nodata and value == nodata:
            value += 1.0 if value == lowest else -1.0
    return value


@_jit
def _missing(value, nodata):
    return (value == nodata) | (value != value)  # noqa: PLR0124 - true for NaN only


@_jit
def _nearest(src, out, nodata, has_nodata, fill, rule, xs, ys, step, phase, origin):
    bands, rows, cols = src.shape
    width = out.shape[2]
    x, y = np.empty(width), np.empty(width)
    at = np.empty(width, np.int64)
    for r in range(out.shape[1]):
        _line(xs, 2 * (phase[0] + r), 2 * phase[1], 2 * step, x)
        _line(ys, 2 * (phase[0] + r), 2 * phase[1], 2 * step, y)
        for c in range(width):
            col = np.int64(np.floor(_hold(x[c]) - 0.5 + (0.5 + EDGE))) - origin[1]
            row = np.int64(np.floor(_hold(y[c]) - 0.5 + (0.5 + EDGE))) - origin[0]
            inside = (col >= 0) & (col < cols) & (row >= 0) & (row < rows)
            at[c] = row * cols + col if inside else _OUTSIDE
        for b in range(bands):
            flat = src[b].reshape(rows * cols)
            for c in range(width):
                value = fill
                if at[c] >= 0:
                    value = flat[np.uint64(at[c])]
                    if has_nodata and _missing(value, nodata):
                        value = fill
                out[b, r, c] = value


@_jit
def _taps(x, y, rows, cols, margin_low, margin_high, origin, at, fx, fy):
    """Offset of the tap at or before each point and the way from there; negative where not all taps are inside."""
    for c in range(x.size):
        px, py = _hold(x[c]) - 0.5, _hold(y[c]) - 0.5
        floor_x, floor_y = np.floor(px), np.floor(py)
        fx[c], fy[c] = px - floor_x, py - floor_y
        col, row = np.int64(floor_x) - origin[1], np.int64(floor_y) - origin[0]
        inside = (
            (col >= margin_low)
            & (col < cols - margin_high)
            & (row >= margin_low)
            & (row < rows - margin_high)
        )
        near = (col >= -1) & (col < cols) & (row >= -1) & (row < rows)
        at[c] = row * cols + col if inside else (_EDGE_OF_SOURCE if near else _OUTSIDE)


@_jit
def _some(flat, rows, cols, x, y, fx, fy, origin, nodata, has_nodata):
    """Bilinear mean over the taps that are inside and valid; and whether the pixel that contains the point is."""
    col, row = np.int64(np.floor(x - 0.5)) - origin[1], np.int64(np.floor(y - 0.5)) - origin[0]
    centre_x, centre_y = fx >= 0.5 - EDGE, fy >= 0.5 - EDGE
    total, weight = 0.0, 0.0
    found = False
    for m in range(2):
        for n in range(2):
            i, j = row + m, col + n
            if i < 0 or i >= rows or j < 0 or j >= cols:
                continue
            value = flat[np.uint64(i * cols + j)]
            if has_nodata and _missing(value, nodata):
                continue
            w = (fy if m else 1.0 - fy) * (fx if n else 1.0 - fx)
            total += w * value
            weight += w
            if centre_x == (n == 1) and centre_y == (m == 1):
                found = True
    return (total / weight if found else 0.0), found


@_jit
def _bilinear(src, out, nodata, has_nodata, fill, rule, xs, ys, step, phase, origin):
    bands, rows, cols = src.shape
    width = out.shape[2]
    x, y, fx, fy = np.empty(width), np.empty(width), np.empty(width), np.empty(width)
    at = np.empty(width, np.int64)
    for r in range(out.shape[1]):
        _line(xs, 2 * (phase[0] + r), 2 * phase[1], 2 * step, x)
        _line(ys, 2 * (phase[0] + r), 2 * phase[1], 2 * step, y)
        _taps(x, y, rows, cols, 0, 1, origin, at, fx, fy)
        for b in range(bands):
            flat = src[b].reshape(rows * cols)
            for c in range(width):
                whole = at[c] >= 0
                if whole:
                    o = np.uint64(at[c])
                    p = o + np.uint64(cols)
                    v00, v01 = flat[o], flat[o + np.uint64(1)]
                    v10, v11 = flat[p], flat[p + np.uint64(1)]
                    if has_nodata:
                        whole = not (
                            _missing(v00, nodata)
                            | _missing(v01, nodata)
                            | _missing(v10, nodata)
                            | _missing(v11, nodata)
                        )
                    if whole:
                        top = v00 + fx[c] * (np.float64(v01) - np.float64(v00))
                        low = v10 + fx[c] * (np.float64(v11) - np.float64(v10))
                        value = top + fy[c] * (low - top)
                        out[b, r, c] = _store(value, nodata, has_nodata, rule)
                if not whole:
                    out[b, r, c] = fill
                    if at[c] != _OUTSIDE:
                        value, found = _some(
                            flat, rows, cols, x[c], y[c], fx[c], fy[c], origin, nodata, has_nodata
                        )
                        if found:
                            out[b, r, c] = _store(value, nodata, has_nodata, rule)


@_jit
def _cubic(src, out, nodata, has_nodata, fill, rule, xs, ys, step, phase, origin):
    bands, rows, cols = src.shape
    width = out.shape[2]
    x, y, fx, fy = np.empty(width), np.empty(width), np.empty(width), np.empty(width)
    at = np.empty(width, np.int64)
    wx = np.empty((width, 4))
    wy = np.empty(4)
    for r in range(out.shape[1]):
        _line(xs, 2 * (phase[0] + r), 2 * phase[1], 2 * step, x)
        _line(ys, 2 * (phase[0] + r), 2 * phase[1], 2 * step, y)
        _taps(x, y, rows, cols, 1, 2, origin, at, fx, fy)
        for c in range(width):
            _catmull_rom(fx[c], wx[c])
        for b in range(bands):
            flat = src[b].reshape(rows * cols)
            for c in range(width):
                whole = at[c] >= 0
                if whole:
                    _catmull_rom(fy[c], wy)
                    total = 0.0
                    for m in range(4):
                        o = np.uint64(at[c] + (m - 1) * cols - 1)
                        a, b1 = flat[o], flat[o + np.uint64(1)]
                        c1, d = flat[o + np.uint64(2)], flat[o + np.uint64(3)]
                        if has_nodata:
                            whole &= not (
                                _missing(a, nodata)
                                | _missing(b1, nodata)
                                | _missing(c1, nodata)
                                | _missing(d, nodata)
                            )
                        line = a * wx[c, 0] + b1 * wx[c, 1] + c1 * wx[c, 2] + d * wx[c, 3]
                        total += wy[m] * line
                    if whole:
                        out[b, r, c] = _store(total, nodata, has_nodata, rule)
                if not whole:
                    out[b, r, c] = fill
                    if at[c] != _OUTSIDE:
                        value, found = _some(
                            flat, rows, cols, x[c], y[c], fx[c], fy[c], origin, nodata, has_nodata
                        )
                        if found:
                            out[b, r, c] = _store(value, nodata, has_nodata, rule)


@_jit
def _catmull_rom(t, w):
    w[0] = 0.5 * t * (-1.0 + t * (2.0 - t))
    w[1] = 1.0 + 0.5 * t * t * (-5.0 + 3.0 * t)
    w[2] = 0.5 * t * (1.0 + t * (4.0 - 3.0 * t))
    w[3] = 0.5 * t * t * (t - 1.0)


@_jit
def _average(src, out, nodata, has_nodata, fill, rule, xs, ys, step, phase, origin):
    bands, rows, cols = src.shape
    width = out.shape[2]
    x0, y0, x1, y1 = np.empty(width), np.empty(width), np.empty(width), np.empty(width)
    for r in range(out.shape[1]):
        qy, qx = 2 * (phase[0] + r), 2 * phase[1]
        _line(xs, qy - 1, qx - 1, 2 * step, x0)
        _line(ys, qy - 1, qx - 1, 2 * step, y0)
        _line(xs, qy + 1, qx + 1, 2 * step, x1)
        _line(ys, qy + 1, qx + 1, 2 * step, y1)
        for c in range(width):
            known = (
                (abs(x0[c]) < _FAR)
                & (abs(x1[c]) < _FAR)
                & (abs(y0[c]) < _FAR)
                & (abs(y1[c]) < _FAR)
            )
            if not known:
                for b in range(bands):
                    out[b, r, c] = fill
                continue
            left, right = min(x0[c], x1[c]), max(x0[c], x1[c])
            top, bottom = min(y0[c], y1[c]), max(y0[c], y1[c])
            first_col, last_col = _span(left, right)
            first_row, last_row = _span(top, bottom)
            for b in range(bands):
                total, weight = 0.0, 0.0
                for i in range(max(first_row - origin[0], 0), min(last_row - origin[0], rows)):
                    wy = _share(i + origin[0], top, bottom, last_row - first_row)
                    for j in range(max(first_col - origin[1], 0), min(last_col - origin[1], cols)):
                        value = src[b, i, j]
                        if has_nodata and _missing(value, nodata):
                            continue
                        w = wy * _share(j + origin[1], left, right, last_col - first_col)
                        if w > 0.0:
                            total += w * value
                            weight += w
                out[b, r, c] = (
                    _store(total / weight, nodata, has_nodata, rule) if weight > 0.0 else fill
                )


@_jit
def _span(low, high):
    """Pixels that the interval touches: first, last + 1."""
    first = np.int64(np.floor(low + EDGE))
    return first, max(np.int64(np.ceil(high - EDGE)), first + 1)


@_jit
def _share(pixel, low, high, count):
    """Part of a pixel that lies in the interval; all of it where the interval is in one pixel."""
    if count == 1:
        return 1.0
    return min(max(min(pixel + 1.0, high) - max(np.float64(pixel), low), 0.0), 1.0)


def nearest_onto(
    src: npt.NDArray[Any],
    row_index: npt.NDArray[np.integer[Any]],
    col_index: npt.NDArray[np.integer[Any]],
    *,
    fill: float = 0,
) -> npt.NDArray[Any]:
    """Look `src` up on another grid; see `odc_stats_gpu.kernels.nearest_onto`."""
    rows = np.ascontiguousarray(row_index, dtype=np.int64)
    cols = np.ascontiguousarray(col_index, dtype=np.int64)
    plane = np.dtype("uint8") if src.dtype == np.bool_ else src.dtype
    out = np.empty((*src.shape[:-2], rows.size, cols.size), src.dtype)
    _gather(
        src.view(plane).reshape(-1, *src.shape[-2:]),
        rows,
        cols,
        plane.type(fill),
        out.view(plane).reshape(-1, rows.size, cols.size),
    )
    return out


@_jit
def _gather(src, row_index, col_index, fill, out):
    bands, rows, cols = src.shape
    for b in range(bands):
        for r in range(row_index.size):
            i = row_index[r]
            if i < 0 or i >= rows:
                out[b, r] = fill
                continue
            if r and row_index[r - 1] == i:
                out[b, r] = out[b, r - 1]
                continue
            line = src[b, i]
            for c in range(col_index.size):
                j = col_index[c]
                inside = (j >= 0) & (j < cols)
                out[b, r, c] = line[np.uint64(j)] if inside else fill
