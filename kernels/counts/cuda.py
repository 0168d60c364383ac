"""Counting on CUDA: one thread per pixel, layer by layer."""

from __future__ import annotations

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
from odc_stats_gpu.kernels.counts._arguments import check

# mypy: allow-untyped-defs
# Kernels are typed by the compiler.


def count_true(stack: Any, where: Any | None = None, *, unless: Any | None = None) -> Any:
    """Count the layers in which each pixel is set; see `odc_stats_gpu.kernels.count_true`."""
    memory = memory_of(stack)
    stack = memory.array(stack)
    conditions = [a if a is None else memory.array(a) for a in (where, unless)]
    check(stack, *conditions)
    flags = _bytes(stack)
    only, never = (a if a is None else _bytes(a) for a in conditions)
    out = memory.empty(stack.shape[1:], np.uint16)
    if out.size:
        launch(
            _count,
            over(out.shape),
            BLOCK,
            flags,
            flags if only is None else only,
            flags if never is None else never,
            np.int32(never is not None),
            out,
        )
    return out


def _bytes(flags: Any) -> Any:
    """Flags as bytes, so that one kernel serves all types; bool and uint8 without a copy."""
    return (flags if flags.dtype.itemsize == 1 else flags != 0).view(np.uint8)


def count(flags, where, unless, excludes, out):
    """Write in how many layers a pixel is in `flags` and `where` and not in `unless`."""
    c, r = cuda.grid(2)
    if r >= out.shape[0] or c >= out.shape[1]:
        return
    row, col = np.uint64(r), np.uint64(c)
    total = 0
    for t in range(flags.shape[0]):
        layer = np.uint64(t)
        counted = flags[layer, row, col] != 0 and where[layer, row, col] != 0
        if counted and excludes != 0:
            counted = unless[layer, row, col] == 0
        total += 1 if counted else 0
    out[row, col] = total


_count = kernel(count)

_FLAGS = strided("uint8", 3)
KERNELS: tuple[Listed, ...] = (
    ("count_true", count, (_FLAGS, _FLAGS, _FLAGS, types.int32, packed("uint16", 2))),
)
