"""A CUDA device through CuPy: blocks on streams of their own, pixels through pinned memory.

A block in flight is a stream: whoever works for it - readers, the reducer, the one who fetches the
results - does so with `active()`, which makes that stream the current one of its thread. Within a
block, order is that in which threads start their work; between blocks there is none, so that the
next block goes up while this one computes. CuPy's pools give memory that a stream has freed to the
same stream again, never to another one that might overtake.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from odc_stats_gpu.engine._cuda_pool import unused_pool_bytes
from odc_stats_gpu.telemetry import fault_point, stage

if TYPE_CHECKING:
    import xarray as xr

LANES = 2
"""Streams: of three blocks in flight, the first is done computing when the third begins to."""
STAGING = 256 << 20
"""Bytes of pinned memory on their way up, at most (one array may be larger)."""
_NO_MEMORY = ("OutOfMemoryError", "cudaErrorMemoryAllocation", "CUDA_ERROR_OUT_OF_MEMORY")


class CudaDevice:
    """One CUDA device; `lane(n)` is the same device with a stream of its own.

    `cupy` is the module itself: nothing is imported here.
    """

    on_host = False

    def __init__(self, name: str, cupy: ModuleType, number: int = 0) -> None:
        self.name = name
        self._cupy, self._number = cupy, number
        self._stream: Any = None
        self._staging = Staging(cupy, STAGING)
        self._lanes: dict[int, CudaDevice] = {}

    def lane(self, number: int) -> CudaDevice:
        """The device as the block of that number sees it; streams take turns."""
        place = number % LANES
        if place not in self._lanes:
            lane = CudaDevice(self.name, self._cupy, self._number)
            with self._cupy.cuda.Device(self._number):
                lane._stream = self._cupy.cuda.Stream(non_blocking=True)
            lane._staging = self._staging
            self._lanes[place] = lane
        return self._lanes[place]

    @contextmanager
    def active(self) -> Iterator[None]:
        """Let this thread work for the lane: kernels, copies and allocations are on its stream."""
        with self._cupy.cuda.Device(self._number):
            if self._stream is None:
                yield
            else:
                with self._stream:
                    yield

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """An uninitialised CuPy array."""
        fault_point("device_memory")
        with self.active():
            return self._cupy.empty(shape, dtype)

    def upload(self, array: Any) -> Any:
        """Copy to the device; returns before the copy is done."""
        fault_point("device_memory")
        with stage("upload"), self.active():
            return self._staging.upload(array)

    def to_host(self, ds: xr.Dataset) -> xr.Dataset:
        """Copy from the device and wait for that, and for what had to be computed before it."""
        copies = []
        with stage("fetch"), self.active():

            def fetch(band: Any) -> Any:
                if not hasattr(band.data, "__cuda_array_interface__"):
                    return band
                packed = self._cupy.ascontiguousarray(band.data)
                copies.append(
                    packed
                )  # its memory must not be anyone else's before the copy is done
                host = pinned(self._cupy, packed.shape, packed.dtype)
                packed.get(out=host, blocking=False)
                return band.copy(data=host)

            fetched = ds.map(fetch, keep_attrs=True)
            done = self._cupy.cuda.Event(disable_timing=True)
            done.record()
            done.synchronize()
        return fetched

    def memory(self) -> int | None:
        """Free bytes, those kept by a pool included."""
        if (unused := unused_pool_bytes()) is not None:
            return unused
        with self._cupy.cuda.Device(self._number):
            free, _ = self._cupy.cuda.runtime.memGetInfo()
            return int(free) + int(self._cupy.get_default_memory_pool().free_bytes())

    def exhausted(self, error: BaseException) -> bool:
        """Whether it says that device memory has run out: CuPy's, Numba's or RMM's way."""
        text = f"{type(error).__name__} {error}"
        return isinstance(error, MemoryError) or any(name in text for name in _NO_MEMORY)

    def release(self) -> None:
        """Wait for everything and give memory back that only pools hold."""
        with self._cupy.cuda.Device(self._number):
            self._cupy.cuda.runtime.deviceSynchronize()
            self._staging.drain()
            self._cupy.get_default_memory_pool().free_all_blocks()
            self._cupy.get_default_pinned_memory_pool().free_all_blocks()


class Staging:
    """Pinned buffers on their way up; one is let go only when its copy is done."""

    def __init__(self, cupy: ModuleType, budget: int) -> None:
        self._cupy, self._budget = cupy, budget
        self._lock = threading.Lock()
        self._waiting: deque[tuple[Any, Any]] = deque()
        """(event after the copy, pinned array), oldest first"""

    def upload(self, array: Any) -> Any:
        """A copy of a NumPy array on the current stream, which is not waited for."""
        out = self._cupy.empty(array.shape, array.dtype)
        if not array.size:
            return out
        self._make_room(array.nbytes)
        host = pinned(self._cupy, array.shape, array.dtype)
        np.copyto(host, array)
        out.set(host)
        copied = self._cupy.cuda.Event(disable_timing=True)
        copied.record()
        with self._lock:
            self._waiting.append((copied, host))
        return out

    def drain(self) -> None:
        """Wait for all copies."""
        self._make_room(self._budget)

    def _make_room(self, size: int) -> None:
        while True:
            with self._lock:
                while self._waiting and self._waiting[0][0].done:
                    self._waiting.popleft()
                held = sum(host.nbytes for _, host in self._waiting)
                if not self._waiting or held + size <= self._budget:
                    return
                oldest, _ = self._waiting[0]
            oldest.synchronize()


def pinned(cupy: ModuleType, shape: tuple[int, ...], dtype: Any) -> Any:
    """A NumPy array in pinned memory, which returns to CuPy's pool with it."""
    count = int(np.prod(shape, dtype=np.int64))
    memory = cupy.cuda.alloc_pinned_memory(max(1, count * np.dtype(dtype).itemsize))
    return np.frombuffer(memory, dtype, count).reshape(shape)
