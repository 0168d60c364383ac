"""CUDA kernels started on host arrays: what stands in for the device where there is none.

`use(monkeypatch)` makes `odc_stats_gpu.kernels._cuda_launch` run every kernel's own GPU-typed IR on
this CPU, so that the public functions work on `SimulatedDeviceArray`s, host side included.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from cudahost import HostKernel
from numba import types
from numba.np import numpy_support

SEEN: dict[str, set[tuple]] = {}
"""Signatures that kernels were started with, by the kernel's name."""


def use(monkeypatch) -> None:
    """Run kernels on the host for the time of a test."""
    from odc_stats_gpu.kernels import _cuda_launch

    monkeypatch.setattr(_cuda_launch, "simulate", run)


def run(function, grid, block, arguments, shared) -> None:
    """Run a kernel; a warning of the runtime (threads that left before a barrier) is an error."""
    arguments = [np.asarray(a) if isinstance(a, np.ndarray) else a for a in arguments]
    signature = tuple(map(type_of, arguments))
    SEEN.setdefault(function.py_func.__name__, set()).add(signature)
    kernel = _compiled(function.py_func, signature, bool(function.targetoptions["fastmath"]))
    warning = kernel(grid, block, *arguments, shared=shared)
    if warning:
        raise RuntimeError(warning)


@cache
def _compiled(function, signature, fastmath) -> HostKernel:
    return HostKernel(function, signature, fastmath=fastmath)


def type_of(value):
    if isinstance(value, tuple):
        return types.UniTuple(type_of(value[0]), len(value))
    dtype = numpy_support.from_dtype(value.dtype)
    if not isinstance(value, np.ndarray):
        return dtype
    return types.Array(dtype, value.ndim, "C" if value.flags.c_contiguous else "A")
