"""The warp on CUDA: arguments in, kernels from `_cuda_kernels.py` on CuPy's current stream."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import cuda, types

from odc_stats_gpu.kernels._cuda_launch import (
    BLOCK,
    Listed,
    kernel,
    launch,
    memory_of,
    over,
    packed,
    strided,
)
from odc_stats_gpu.kernels.warp import _cuda_kernels, _cuda_values
from odc_stats_gpu.kernels.warp._arguments import plan
from odc_stats_gpu.kernels.warp._cuda_cells import cells
from odc_stats_gpu.kernels.warp._lattice import Lattice


def warp(
    src: Any,
    src_nodata: float | None,
    lattice: Lattice,
    resampling: str,
    *,
    out: Any | None = None,
    fill: float | None = None,
) -> Any:
    """Resample `src` at the lattice's points; see `odc_stats_gpu.kernels.warp`."""
    memory = memory_of(src)
    src = memory.array(src)
    request = plan(memory, src, src_nodata, lattice, resampling, out=out, fill=fill)
    if not request.src.size or not request.out.size:
        request.out[...] = request.fill
        return request.result
    dtype = request.src.dtype
    low, high = (np.iinfo(dtype).min, np.iinfo(dtype).max) if dtype.kind != "f" else (0, 0)
    found = cells(lattice)
    rows, cols = request.src.shape[1:]
    rule = (np.int64(request.half < 0.5), np.int64(low), np.int64(high))
    launch(
        _kernel(resampling, dtype),
        over(lattice.shape),
        BLOCK,
        memory.contiguous(request.src).reshape(-1),
        np.int64(rows),
        np.int64(cols),
        request.out,
        memory.array(found.terms.reshape(-1)),
        *map(np.int64, found.terms.shape[:2]),
        *map(np.int64, lattice.phase),
        np.int64(lattice.step),
        np.int64(found.guard),
        np.int64(found.bits),
        np.int64(found.edge),
        request.nodata,
        np.int64(request.has_nodata),
        request.fill,
        *(rule if resampling != "nearest" else ()),
    )
    return request.result


@cache
def _arithmetic(name: str) -> Any:
    if name == "integers":
        return _cuda_values.integers()
    kind = np.float32 if name == "single" else np.float64
    return _cuda_values.floats(kind, round_down=name == "wide")


@cache
def _function(resampling: str, arithmetic: str) -> Any:
    """The kernel as a plain function."""
    if resampling == "nearest":
        return _cuda_kernels.nearest
    if resampling == "average":
        return _cuda_kernels.areas(_arithmetic(arithmetic))
    return getattr(_cuda_kernels.centres(_arithmetic(arithmetic)), resampling)


@cache
def _compiled(resampling: str, arithmetic: str) -> Any:
    return kernel(_function(resampling, arithmetic))


def _name(resampling: str, dtype: np.dtype[Any]) -> str:
    """The arithmetic that a resampling of a pixel type needs."""
    if resampling == "nearest":
        return "none"
    if dtype.kind == "f":
        return "single" if dtype.itemsize == 4 else "double"
    return "integers" if dtype.itemsize < 4 else "wide"


def _kernel(resampling: str, dtype: np.dtype[Any]) -> Any:
    return _compiled(resampling, _name(resampling, dtype))


def nearest_onto(src: Any, row_index: Any, col_index: Any, *, fill: float = 0) -> Any:
    """Look `src` up on another grid; see `odc_stats_gpu.kernels.nearest_onto`."""
    memory = memory_of(src)
    src = memory.array(src)
    rows = memory.contiguous(memory.array(row_index).astype(np.int64))
    cols = memory.contiguous(memory.array(col_index).astype(np.int64))
    plane = np.dtype("uint8") if src.dtype == np.bool_ else src.dtype
    out = memory.empty((*src.shape[:-2], rows.size, cols.size), src.dtype)
    if out.size and src.size:
        planes = src.view(plane) if src.ndim > 2 else src.view(plane)[None]
        made = out.view(plane).reshape(-1, rows.size, cols.size)
        launch(
            _gathering(),
            over(made.shape),
            BLOCK,
            memory.contiguous(planes).reshape(-1, *src.shape[-2:]),
            rows,
            cols,
            plane.type(fill),
            made,
        )
    elif out.size:
        out[...] = fill
    return out


def gather(src: Any, row_index: Any, col_index: Any, fill: Any, out: Any) -> None:
    """Take src[plane, row_index[r], col_index[c]] where that is inside."""
    c, r, b = cuda.grid(3)
    if r >= out.shape[1] or c >= out.shape[2]:
        return
    i, j = row_index[np.uint64(r)], col_index[np.uint64(c)]
    value = fill
    if i >= 0 and i < src.shape[1] and j >= 0 and j < src.shape[2]:
        value = src[np.uint64(b), np.uint64(i), np.uint64(j)]
    out[np.uint64(b), np.uint64(r), np.uint64(c)] = value


@cache
def _gathering() -> Any:
    return kernel(gather)


def _listed(resampling: str, dtype: str) -> Listed:
    whole, pixel = types.int64, getattr(types, dtype)
    rest = (whole, whole, whole) if resampling != "nearest" else ()
    return (
        f"warp {resampling} {dtype}",
        _function(resampling, _name(resampling, np.dtype(dtype))),
        (
            packed(dtype), whole, whole, strided(dtype, 3), packed("int64"), *(whole,) * 8,
            pixel, whole, pixel, *rest,
        ),
    )  # fmt: skip


KERNELS: tuple[Listed, ...] = (
    _listed("nearest", "int16"),
    _listed("nearest", "uint8"),
    *(_listed(r, d) for r in ("bilinear", "cubic", "average") for d in ("int16", "float32")),
    (
        "nearest_onto int16",
        gather,
        (packed("int16", 3), packed("int64"), packed("int64"), types.int16, packed("int16", 3)),
    ),
)
