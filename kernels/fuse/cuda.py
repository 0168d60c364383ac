"""Fusing on CUDA: one thread per band and pixel, layers in order until one has a value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import cuda

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
from odc_stats_gpu.kernels._nodata import one_per_band
from odc_stats_gpu.kernels.fuse._arguments import as_stack

# mypy: allow-untyped-defs
# Kernels are typed by the compiler.


def first_valid(stack: Any, nodata: float | Sequence[float] | None) -> Any:
    """Take the first value in order of time; see `odc_stats_gpu.kernels.first_valid`."""
    memory = memory_of(stack)
    stack = memory.array(stack)
    bands = as_stack(stack)
    values = one_per_band(0 if nodata is None else nodata, len(bands), stack.dtype)
    shape = stack.shape[:-3] + stack.shape[-2:]
    if nodata is None and bands.shape[1]:
        return bands[:, 0].reshape(shape).copy()
    plane = np.dtype("uint8") if stack.dtype == np.bool_ else stack.dtype
    out = memory.empty((len(bands), *stack.shape[-2:]), stack.dtype)
    if out.size:
        markers = memory.array(np.array(values, stack.dtype).view(plane))
        launch(_first, over(out.shape), BLOCK, bands.view(plane), markers, out.view(plane))
    return out.reshape(shape)


def first(stack, nodata, out):
    """Write of every band and pixel the first layer's value that is neither nodata nor NaN."""
    c, r, b = cuda.grid(3)
    if r >= out.shape[1] or c >= out.shape[2]:
        return
    band, row, col = np.uint64(b), np.uint64(r), np.uint64(c)
    marker = nodata[band]
    found = marker
    for t in range(stack.shape[1]):
        value = stack[band, np.uint64(t), row, col]
        if value != marker and value == value:
            found = value
            break
    out[band, row, col] = found


def any_true(stack: Any) -> Any:
    """Set every pixel that is set in any layer; see `odc_stats_gpu.kernels.any_true`."""
    memory = memory_of(stack)
    stack = memory.array(stack)
    bands = as_stack(stack)
    plane = np.dtype("uint8") if stack.dtype == np.bool_ else stack.dtype
    out = memory.empty((len(bands), *stack.shape[-2:]), np.bool_)
    if out.size:
        launch(_union, over(out.shape), BLOCK, bands.view(plane), out.view(np.uint8))
    return out.reshape(stack.shape[:-3] + stack.shape[-2:])


def union(stack, out):
    """Write 1 for every band and pixel that isn't 0 in some layer, else 0."""
    c, r, b = cuda.grid(3)
    if r >= out.shape[1] or c >= out.shape[2]:
        return
    band, row, col = np.uint64(b), np.uint64(r), np.uint64(c)
    found = np.uint8(0)
    for t in range(stack.shape[1]):
        if stack[band, np.uint64(t), row, col] != 0:
            found = np.uint8(1)
            break
    out[band, row, col] = found


_first, _union = kernel(first), kernel(union)

KERNELS: tuple[Listed, ...] = (
    ("first_valid int16", first, (strided("int16", 4), packed("int16"), packed("int16", 3))),
    (
        "first_valid float32",
        first,
        (strided("float32", 4), packed("float32"), packed("float32", 3)),
    ),
    ("any_true", union, (strided("uint8", 4), packed("uint8", 3))),
)
