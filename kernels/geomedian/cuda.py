"""Geomedian and MADs on CUDA: one kernel, launched on the caller's current CuPy stream.

Nothing here waits for the device. Under NUMBA_ENABLE_CUDASIM=1 the same kernel runs as Python on
`SimulatedDeviceArray`s.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numba import cuda

from odc_stats_gpu.kernels._cuda import LINES
from odc_stats_gpu.kernels._cuda_ahead import ahead
from odc_stats_gpu.kernels._cuda_launch import Listed, launch, memory_of
from odc_stats_gpu.kernels._dispatch import SimulatedDeviceArray
from odc_stats_gpu.kernels.geomedian._check import checked_nodata, unit_of
from odc_stats_gpu.kernels.geomedian._cuda_kernel import geomad_kernel, geomad_types
from odc_stats_gpu.kernels.geomedian._cuda_plan import Multiprocessors, Plan, plan
from odc_stats_gpu.kernels.geomedian._face import Geomad, Nodata

NEVER = 0x7FFFFFFF
"""as a missing value: what neither a 16-bit integer nor a finite float32 can be"""


def geomad(stack: Any, nodata: Nodata, *, scale: float = 1e-4, offset: float = -1e-4) -> Geomad:
    """Return geometric median, MADs and count of a CuPy stack; see `kernels.geomad`."""
    values = checked_nodata(stack, nodata, scale, offset)
    bands, _, height, width = stack.shape
    pixels, kind = height * width, stack.dtype.name
    memory = memory_of(stack)
    with contextlib.nullcontext() if isinstance(stack, SimulatedDeviceArray) else stack.device:
        flat = Geomad(
            memory.empty((bands, pixels), np.float32),
            memory.empty((pixels,), np.float32),
            memory.empty((pixels,), np.float32),
            memory.empty((pixels,), np.float32),
            memory.empty((pixels,), np.uint16),
        )
        if pixels:
            how = plan_for(stack)
            scratch = memory.empty((how.scratch_words,), np.int32)
            for first in range(0, how.blocks, how.grid):
                launch(
                    compiled(bands, how.lanes, kind, how.on_chip),
                    (min(how.grid, how.blocks - first),),
                    (how.threads,),
                    stack.view(np.int32) if kind == "float32" else stack,
                    missing_words(values, kind),
                    np.float32(unit_of(stack, scale)),
                    np.float32(offset / scale),
                    np.int32(first),
                    scratch,
                    *flat,
                    shared=how.shared_bytes,
                )
    return Geomad(*(a.reshape(*a.shape[:-1], height, width) for a in flat))


def plan_for(stack: Any) -> Plan:
    """How the kernel is launched for a stack on the device that holds it."""
    bands, dates, height, width = stack.shape
    if isinstance(stack, SimulatedDeviceArray):
        device, lanes = Multiprocessors(count=1, shared_bytes=1 << 30, blocks=32), 1  # no warps
    else:
        device, lanes = _multiprocessors(stack.device.id), None
    return plan(bands, stack.dtype.name, dates, height * width, device, lanes)


def missing_words(values: Sequence[float], kind: str) -> tuple[np.int32, ...]:
    """Each band's missing value as the kernel compares it; NEVER where it can't occur."""
    if kind == "float32":
        # + 0 turns -0 into 0, as the kernel does; NaN is missing anyway
        numbers = np.asarray(values, np.float32) + np.float32(0)
        words = np.where(np.isfinite(numbers), numbers.view(np.int32), NEVER)
    else:
        low, high = np.iinfo(kind).min, np.iinfo(kind).max
        words = np.array([v if low <= v <= high and v == int(v) else NEVER for v in values])
    return tuple(words.astype(np.int32))


def usual_kernel(bands: int) -> Listed:
    """Return the kernel that most tiles of so many int16 bands are made with, to be compiled ahead.

    Unlike those of `KERNELS` elsewhere it is compiled with fastmath.
    """
    lanes = 4 if bands <= 6 else 8
    kernel = geomad_kernel(bands, lanes, "int16", on_chip=True)
    return f"geomad {bands} bands, {lanes} lanes", kernel, geomad_types(bands, "int16")


@cache
def compiled(bands: int, lanes: int, kind: str, on_chip: bool) -> Any:
    """The kernel, compiled for the types of its arguments when first launched."""
    function = geomad_kernel(bands, lanes, kind, on_chip=on_chip)
    return ahead(cuda.jit(fastmath=True, **LINES)(function), variant_name(lanes, on_chip))


def variant_name(lanes: int, on_chip: bool) -> str:
    """What types of arguments don't tell of a kernel."""
    return f"{lanes} lanes {'on' if on_chip else 'off'} chip"


@cache
def _multiprocessors(device: int) -> Multiprocessors:
    import cupy

    facts = cupy.cuda.Device(device).attributes
    return Multiprocessors(
        count=facts["MultiProcessorCount"],
        shared_bytes=facts["MaxSharedMemoryPerMultiprocessor"],
        blocks=facts["MaxBlocksPerMultiprocessor"],
    )
