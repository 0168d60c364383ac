"""Geomedian and MADs on CUDA: one kernel, launched on the caller's current CuPy stream.

Nothing here waits for the device. Under NUMBA_ENABLE_CUDASIM=1 the same kernel runs as Python on
`SimulatedDeviceArray`s.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numba import cuda

from odc_stats_gpu.kernels import _cuda_launch
from odc_stats_gpu.kernels._dispatch import SimulatedDeviceArray
from odc_stats_gpu.kernels.geomedian._check import checked_nodata, unit_of
from odc_stats_gpu.kernels.geomedian._cuda_kernel import geomad_kernel
from odc_stats_gpu.kernels.geomedian._cuda_plan import Multiprocessors, Plan, plan
from odc_stats_gpu.kernels.geomedian._face import Geomad, Nodata

NEVER = 0x7FFFFFFF
"""as a missing value: what neither a 16-bit integer nor a float32 number can be"""


def geomad(stack: Any, nodata: Nodata, *, scale: float = 1e-4, offset: float = -1e-4) -> Geomad:
    """Return geometric median, MADs and count of a CuPy stack; see `kernels.geomad`."""
    values = checked_nodata(stack, nodata, scale, offset)
    bands, dates, height, width = stack.shape
    kind = stack.dtype.name
    device = _Simulated() if isinstance(stack, SimulatedDeviceArray) else _CuPy(stack)
    geomedian = device.empty((bands, height, width), np.float32)
    smad, emad, bcmad = (device.empty((height, width), np.float32) for _ in range(3))
    count = device.empty((height, width), np.uint16)
    pixels = height * width
    if pixels:
        how = plan(bands, kind, dates, pixels, device.multiprocessors(), device.lanes)
        device.launch(
            (bands, how.lanes, kind, how.on_chip),
            how,
            stack.view(np.int32) if kind == "float32" else stack,
            missing_words(values, kind),
            np.float32(unit_of(stack, scale)),
            np.float32(offset / scale),
            device.empty((how.scratch_words,), np.int32),
            geomedian.reshape(bands, pixels),
            smad.reshape(pixels),
            emad.reshape(pixels),
            bcmad.reshape(pixels),
            count.reshape(pixels),
        )
    return Geomad(geomedian, smad, emad, bcmad, count)


def missing_words(values: Sequence[float], kind: str) -> tuple[np.int32, ...]:
    """Each band's missing value as the kernel compares it; NEVER where it can't occur."""
    if kind == "float32":
        words = [
            struct.unpack("<i", np.float32(v).tobytes())[0] if v == v and v else 0 for v in values
        ]
        words = [NEVER if v != v else word for v, word in zip(values, words, strict=True)]
    else:
        limits = np.iinfo(kind)
        words = [int(v) if limits.min <= v <= limits.max and v == int(v) else NEVER for v in values]
    return tuple(np.int32(word) for word in words)


@cache
def _compiled(key: tuple[int, int, str, bool]) -> Any:
    bands, lanes, kind, on_chip = key
    return cuda.jit(fastmath=True)(geomad_kernel(bands, lanes, kind, on_chip=on_chip))


class _Simulated:
    """Host memory and Python threads."""

    lanes = 1  # the simulator knows no warps

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        return np.empty(shape, dtype).view(SimulatedDeviceArray)

    def multiprocessors(self) -> Multiprocessors:
        return Multiprocessors(count=1, shared_bytes=1 << 40, blocks=1 << 30)

    def launch(self, key: tuple[int, int, str, bool], how: Plan, *arguments: Any) -> None:
        # one kernel at a time, while blocks are read and reduced by several threads
        _cuda_launch.simulate(_compiled(key), how.grid, how.threads, arguments, how.shared_bytes)


class _CuPy:
    """The device that holds the stack, and the caller's stream on it."""

    lanes = None

    def __init__(self, stack: Any) -> None:
        import cupy

        self.cupy = cupy
        self.device = stack.device

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        with self.device:
            return self.cupy.empty(shape, dtype)

    def multiprocessors(self) -> Multiprocessors:
        return _multiprocessors(self.device)

    def launch(self, key: tuple[int, int, str, bool], how: Plan, *arguments: Any) -> None:
        with self.device:
            stream = cuda.external_stream(self.cupy.cuda.get_current_stream().ptr)
            views = [  # sync=False: the stream orders the work, the host need not wait
                cuda.as_cuda_array(a, sync=False) if isinstance(a, self.cupy.ndarray) else a
                for a in arguments
            ]
            _compiled(key)[how.grid, how.threads, stream, how.shared_bytes](*views)


@cache
def _multiprocessors(device: Any) -> Multiprocessors:
    facts = device.attributes
    return Multiprocessors(
        count=facts["MultiProcessorCount"],
        shared_bytes=facts["MaxSharedMemoryPerMultiprocessor"],
        blocks=facts["MaxBlocksPerMultiprocessor"],
    )
