"""Warping in plain NumPy float64, the oracle of the compiled kernels.

Follows GDAL's warper at XSCALE = YSCALE = 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from odc_stats_gpu.kernels.warp._arguments import Request, plan
from odc_stats_gpu.kernels.warp._coordinates import EDGE, coordinates
from odc_stats_gpu.kernels.warp._lattice import Lattice

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


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
    for band, plane in zip(request.src, request.out, strict=True):
        if resampling == "average":
            value, valid = _average(band, _valid(band, request), lattice)
        else:
            value, valid = _at_centres(band, _valid(band, request), lattice, resampling)
        plane[...] = request.fill
        if resampling == "nearest":
            plane[valid] = value[valid].astype(plane.dtype)
        else:
            plane[valid] = _store(value[valid], request)
    return request.result


def _valid(band: npt.NDArray[Any], request: Request) -> Bools:
    """Pixels that count: not nodata and, in a band that has a nodata value, not NaN."""
    if not request.has_nodata:
        return np.ones(band.shape, bool)
    return (band != request.nodata) & (band == band)  # noqa: PLR0124 - false for NaN only


def _tap(
    band: npt.NDArray[Any], valid: Bools, row: npt.NDArray[np.int64], col: npt.NDArray[np.int64]
) -> tuple[Floats, Bools]:
    """Values and validity at whole pixels; outside is not valid."""
    rows, cols = band.shape
    inside = (row >= 0) & (row < rows) & (col >= 0) & (col < cols)
    if not band.size:
        return np.zeros(inside.shape), inside
    row, col = np.clip(row, 0, rows - 1), np.clip(col, 0, cols - 1)
    ok = inside & valid[row, col]
    return np.where(ok, band[row, col], 0).astype(np.float64), ok


def _at_centres(
    band: npt.NDArray[Any], valid: Bools, lattice: Lattice, resampling: str
) -> tuple[Floats, Bools]:
    x, y = coordinates(lattice)
    known = np.isfinite(x) & np.isfinite(y)
    x, y = np.where(known, x, -10.0), np.where(known, y, -10.0)
    row, fy = _split(y, lattice.origin[0])
    col, fx = _split(x, lattice.origin[1])
    # the pixel that contains the centre decides whether there is a result
    nearest, ok = _tap(band, valid, row + (fy >= 0.5 - EDGE), col + (fx >= 0.5 - EDGE))
    ok &= known
    if resampling == "nearest":
        return nearest, ok
    value = _mean(band, valid, row, col, _linear(fy), _linear(fx), first=0)[0]
    if resampling == "cubic":
        smooth, whole = _mean(band, valid, row, col, _cubic(fy), _cubic(fx), first=-1)
        value = np.where(whole, smooth, value)
    return value, ok


def _split(position: Floats, origin: int) -> tuple[npt.NDArray[np.int64], Floats]:
    """Pixel of the window whose centre lies at or before the position, and the way from there."""
    floor = np.floor(position - 0.5)
    return np.clip(floor, -1e9, 1e9).astype(np.int64) - origin, position - 0.5 - floor


def _linear(t: Floats) -> list[Floats]:
    return [1 - t, t]


def _cubic(t: Floats) -> list[Floats]:
    """Catmull-Rom: Keys' cubic convolution with a = -1/2."""
    return [
        0.5 * t * (-1 + t * (2 - t)),
        1 + 0.5 * t * t * (-5 + 3 * t),
        0.5 * t * (1 + t * (4 - 3 * t)),
        0.5 * t * t * (t - 1),
    ]


def _mean(
    band: npt.NDArray[Any],
    valid: Bools,
    row: npt.NDArray[np.int64],
    col: npt.NDArray[np.int64],
    weights_y: list[Floats],
    weights_x: list[Floats],
    *,
    first: int,
) -> tuple[Floats, Bools]:
    """Weighted mean over the valid taps, and where all taps are valid."""
    total, weight = np.zeros(row.shape), np.zeros(row.shape)
    whole = np.ones(row.shape, bool)
    for m, wy in enumerate(weights_y, first):
        for n, wx in enumerate(weights_x, first):
            value, ok = _tap(band, valid, row + m, col + n)
            total += np.where(ok, wy * wx * value, 0)
            weight += np.where(ok, wy * wx, 0)
            whole &= ok
    return total / np.where(weight == 0, 1, weight), whole


def _average(band: npt.NDArray[Any], valid: Bools, lattice: Lattice) -> tuple[Floats, Bools]:
    """Mean of the valid pixels in the box between the images of two opposite corners.

    Pixels on the box's edge weigh by the share of their width and height inside.
    """
    x0, y0 = coordinates(lattice, half=-1)
    x1, y1 = coordinates(lattice, half=1)
    value, found = np.zeros(lattice.shape), np.zeros(lattice.shape, bool)
    for at in np.ndindex(*lattice.shape):
        if not np.isfinite((x0[at], x1[at], y0[at], y1[at])).all():
            continue
        rows, wy = _span(float(y0[at]), float(y1[at]), lattice.origin[0], band.shape[0])
        cols, wx = _span(float(x0[at]), float(x1[at]), lattice.origin[1], band.shape[1])
        weight = np.outer(wy, wx) * valid[rows, cols]
        if weight.sum() > 0:
            total = (np.where(weight > 0, band[rows, cols], 0) * weight).sum()
            value[at], found[at] = total / weight.sum(), True
    return value, found


def _span(a: float, b: float, origin: int, size: int) -> tuple[slice, Floats]:
    """Pixels of one axis that the interval a..b touches, and the share of each inside."""
    low, high = min(a, b), max(a, b)
    first = int(np.clip(np.floor(low + EDGE), -1e9, 1e9))
    last = max(int(np.clip(np.ceil(high - EDGE), -1e9, 1e9)), first + 1)
    start, stop = max(first - origin, 0), min(last - origin, size)
    pixel = np.arange(start, max(stop, start)) + origin
    if last - first == 1:
        return slice(start, max(stop, start)), np.ones(pixel.size)
    inside = np.minimum(pixel + 1, high) - np.maximum(pixel, low)
    return slice(start, max(stop, start)), np.clip(inside, 0, 1)


def _store(value: Floats, request: Request) -> npt.NDArray[Any]:
    """Values as the band's type: integers rounded half up, clamped, never by accident nodata."""
    dtype = request.src.dtype
    if dtype.kind != "f":
        limits = np.iinfo(dtype)
        value = np.clip(np.floor(value + request.half), limits.min, limits.max)
        if request.has_nodata:
            step = 1 if request.nodata == limits.min else -1
            value = np.where(value == float(request.nodata), value + step, value)
    return value.astype(dtype)


def nearest_onto(
    src: npt.NDArray[Any],
    row_index: npt.NDArray[np.integer[Any]],
    col_index: npt.NDArray[np.integer[Any]],
    *,
    fill: float = 0,
) -> npt.NDArray[Any]:
    """Look `src` up on another grid; see `odc_stats_gpu.kernels.nearest_onto`."""
    rows, cols = np.asarray(row_index), np.asarray(col_index)
    inside_y = (rows >= 0) & (rows < src.shape[-2])
    inside_x = (cols >= 0) & (cols < src.shape[-1])
    out = np.full((*src.shape[:-2], rows.size, cols.size), fill, src.dtype)
    out[..., inside_y[:, None] & inside_x] = src[
        ..., rows[inside_y][:, None], cols[inside_x]
    ].reshape(*src.shape[:-2], -1)
    return out
