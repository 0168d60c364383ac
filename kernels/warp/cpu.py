"""The warp on the CPU: arguments in, compiled kernels from `_centres.py` and `_area.py`."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from odc_stats_gpu.kernels._jit import kernel
from odc_stats_gpu.kernels.warp._area import average
from odc_stats_gpu.kernels.warp._arguments import plan
from odc_stats_gpu.kernels.warp._centres import bilinear, cubic, nearest
from odc_stats_gpu.kernels.warp._lattice import Lattice

_KERNELS = {"nearest": nearest, "bilinear": bilinear, "cubic": cubic, "average": average}


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
    low, high = (np.iinfo(dtype).min, np.iinfo(dtype).max) if integer else (0, 0)
    _KERNELS[resampling](
        np.ascontiguousarray(request.src),
        request.out,
        request.nodata,
        request.has_nodata,
        request.fill,
        integer,
        (request.half, float(low), float(high)),
        lattice.x,
        lattice.y,
        lattice.step,
        lattice.phase,
        lattice.origin,
    )
    return request.result


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


@kernel
def _gather(src: Any, row_index: Any, col_index: Any, fill: Any, out: Any) -> None:
    bands, rows, cols = src.shape
    for b in range(bands):
        for r in range(row_index.size):
            i = row_index[r]
            if i < 0 or i >= rows:
                out[b, r] = fill
                continue
            if r and row_index[r - 1] == i:
                out[b, r] = out[b, r - 1]  # most rows of an upsampling repeat the one before
                continue
            row = src[b, i]
            for c in range(col_index.size):
                j = col_index[c]
                out[b, r, c] = row[np.uint64(j)] if (j >= 0) & (j < cols) else fill
