"""A CUDA device through CuPy: blocks on streams of their own, pixels through pinned memory.

A block in flight is a stream: whoever works for it - readers, the reducer, the one who fetches the
results - does so with `active()`, which makes that stream the current one of its thread. Within a
block, order is that in which threads start their work; between blocks there is none, so that the
next block goes up while this one computes. CuPy's pool and RMM's give memory back to the stream on
which it was allocated, never to another one that might overtake. Read against CuPy 14; compiled and
simulated, not yet run on hardware.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from odc_stats_gpu.engine._cuda_pool import unused_pool_bytes
from odc_stats_gpu.engine._limits import DeviceMemory
from odc_stats_gpu.telemetry import fault_point, stage

if TYPE_CHECKING:
    import xarray as xr

LANES = 2
"""Streams: of three blocks in flight, the first is done computing when the third begins to."""
STAGING = 256 << 20
"""Bytes of pinned memory on their way up, at most."""
CUDA_CONTEXT = 512 << 20
"""Bytes of device memory besides arrays: the context, code of kernels, what launches need."""
_CHUNK = 8 << 20
_NO_MEMORY = ("OutOfMemoryError", "cudaErrorMemoryAllocation", "CUDA_ERROR_OUT_OF_MEMORY")
_REFUSED = ("bad_alloc", "out_of_memory", "device_memory")
"""In a MemoryError without a name of its own: RMM's, and that of the fault point."""


class CudaDevice:
    """One CUDA device; `lane(n)` is the same device with a stream of its own.

    `cupy` is the module itself: nothing is imported here.
    """

    on_host = False

    def __init__(self, name: str, cupy: ModuleType, number: int = 0) -> None:
        self.name = name
        self._cupy, self._number = cupy, number
        self._stream: Any = None
        self._staging = Staging(cupy)
        self._lanes: dict[int, CudaDevice] = {}
        self._making = threading.Lock()

    def lane(self, number: int) -> CudaDevice:
        """The device as the block of that number sees it; streams take turns."""
        place = number % LANES
        with self._making:
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
                host = pinned(self._cupy, packed.shape, packed.dtype)
                copies.append((packed, host))  # both must be nobody else's before the copy is done
                packed.get(out=host, blocking=False)
                return band.copy(data=host)

            try:
                return ds.map(fetch, keep_attrs=True)
            finally:
                done = self._cupy.cuda.Event(block=True, disable_timing=True)
                done.record()
                done.synchronize()

    def memory(self) -> DeviceMemory:
        """Free bytes, those included that a pool keeps for us."""
        if (unused := unused_pool_bytes()) is not None:
            return DeviceMemory(unused, f"RMM pool on {self.name}")
        with self._cupy.cuda.Device(self._number):
            free, _ = self._cupy.cuda.runtime.memGetInfo()
            pool = self._cupy.get_default_memory_pool()
            room = int(free) + int(pool.free_bytes())
            if limit := int(pool.get_limit()):
                room = min(room, max(0, limit - int(pool.used_bytes())))
            return DeviceMemory(room, f"free on {self.name}")

    def exhausted(self, error: BaseException) -> bool:
        """Whether it says that device memory has run out."""
        return is_out_of_memory(error)

    def release(self) -> None:
        """Wait for everything and give memory back that only pools hold."""
        with self._cupy.cuda.Device(self._number):
            self._cupy.cuda.runtime.deviceSynchronize()
            self._staging.drain()
            self._cupy.get_default_memory_pool().free_all_blocks()
            self._cupy.get_default_pinned_memory_pool().free_all_blocks()


class Staging:
    """Pinned chunks of one size on their way up; each is filled again when its copy is done.

    Windows have hundreds of sizes: CuPy's pool of pinned memory would keep buffers of each.
    """

    def __init__(self, cupy: ModuleType, budget: int = STAGING, chunk: int = _CHUNK) -> None:
        self._cupy, self._chunk, self._count = cupy, chunk, max(1, budget // chunk)
        self._chunks: SimpleQueue[tuple[Any, Any] | None] = SimpleQueue()
        """(pinned bytes, event after their last copy), longest unused first; None: not yet made"""
        self._forget()

    def _forget(self) -> None:
        for _ in range(self._count):
            self._chunks.put(None)

    def upload(self, array: Any) -> Any:
        """A copy of a NumPy array on the current stream, which is not waited for."""
        out = self._cupy.empty(array.shape, array.dtype)
        if not array.size:
            return out
        source = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        target = out.reshape(-1).view(np.uint8)
        for start in range(0, source.size, self._chunk):
            self._copy(source[start : start + self._chunk], target[start : start + self._chunk])
        return out

    def _copy(self, source: Any, target: Any) -> None:
        held = self._chunks.get()
        try:
            if held is None:
                host = pinned(self._cupy, (self._chunk,), np.uint8)
                held = host, self._cupy.cuda.Event(block=True, disable_timing=True)
            host, copied = held
            copied.synchronize()
            host[: source.size] = source
            target.set(host[: source.size])
            copied.record()
        finally:
            self._chunks.put(held)

    def drain(self) -> None:
        """Wait for all copies and give the pinned memory back; nobody may be uploading."""
        for _ in range(self._count):
            held = self._chunks.get()
            if held is not None:
                held[1].synchronize()
        self._forget()


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether device memory has run out, in the words of CuPy, Numba or RMM.

    Also where it is the cause of another error. A MemoryError of NumPy or Python is the host's.
    """
    while error is not None:
        text = f"{type(error).__name__} {error}"
        if any(name in text for name in _NO_MEMORY):
            return True
        if type(error) is MemoryError and any(word in text for word in _REFUSED):
            return True
        error = error.__cause__
    return False


def pinned(cupy: ModuleType, shape: tuple[int, ...], dtype: Any) -> Any:
    """A NumPy array in pinned memory, which returns to CuPy's pool with it."""
    count = int(np.prod(shape, dtype=np.int64))
    memory = cupy.cuda.alloc_pinned_memory(max(1, count * np.dtype(dtype).itemsize))
    return np.frombuffer(memory, dtype, count).reshape(shape)
