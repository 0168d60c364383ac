"""The CUDA device against a CuPy whose copies happen as late as they may."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr

from odc_stats_gpu.engine._cuda_device import CudaDevice, Staging
from odc_stats_gpu.engine._device import CpuDevice, SimulatedDevice
from odc_stats_gpu.errors import DataError


class Late:
    """What the device path uses of CuPy 14; work waits in a stream until an event asks for it."""

    def __init__(self):
        self.queued, self.pinned, self.lock = [], 0, threading.RLock()
        self.cuda = SimpleNamespace(
            Event=self.event, Device=lambda _: nullcontext(),
            alloc_pinned_memory=self.alloc_pinned_memory,
        )  # fmt: skip

    def event(self, *, block, disable_timing):
        assert block  # a thread that spins takes a CPU from those that read
        assert disable_timing
        place = [0]

        def record():
            with self.lock:
                place[0] = len(self.queued)

        return SimpleNamespace(record=record, synchronize=lambda: self.run(place[0]))

    def run(self, until):
        with self.lock:
            for k, work in enumerate(self.queued[:until]):
                if work:
                    work()
                self.queued[k] = None

    def alloc_pinned_memory(self, size):
        self.pinned += size
        return bytearray(size + 512 - size % 512)

    def empty(self, shape, dtype):
        return self.array(np.zeros(shape, dtype))

    def array(self, values):
        return np.asarray(values).view(_Array).of(self)

    def ascontiguousarray(self, array):
        return self.array(np.ascontiguousarray(array))


class _Array(np.ndarray):
    """An array of the device."""

    __cuda_array_interface__ = None
    late = None

    def __array_finalize__(self, parent):
        self.late = getattr(parent, "late", None)

    def of(self, late):
        self.late = late
        return self

    def set(self, host):
        assert (host.shape, host.dtype) == (self.shape, self.dtype)
        assert host.flags.c_contiguous
        with self.late.lock:
            self.late.queued.append(lambda: np.copyto(self.view(np.ndarray), host))

    def get(self, out, *, blocking):
        assert not blocking
        with self.late.lock:
            self.late.queued.append(lambda: np.copyto(out, self.view(np.ndarray)))


def test_no_chunk_is_filled_again_before_its_copy_is_done():
    late, rng = Late(), np.random.default_rng(1)
    staging = Staging(late, budget=4096, chunk=1024)
    given = [
        rng.integers(0, 255, (3, int(n))).astype(kind)
        for n, kind in zip(
            rng.integers(1, 900, 60), ["uint8", "int16", "float32"] * 20, strict=True
        )
    ]
    given += [np.zeros((0, 3), "int16"), rng.random((40, 50)) > 0.5, given[0][:, ::2], given[1].T]
    found = [staging.upload(array) for array in given]
    staging.drain()
    for a, b in zip(found, given, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(np.asarray(a), b)
    assert late.pinned == 4096  # whatever was uploaded


def test_many_threads_share_the_chunks():
    late, rng = Late(), np.random.default_rng(2)
    staging = Staging(late, budget=2048, chunk=1024)
    given = [rng.integers(0, 9999, int(n)).astype("int16") for n in rng.integers(1, 4000, 80)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(staging.upload, given))
    staging.drain()
    for a, b in zip(found, given, strict=True):
        np.testing.assert_array_equal(np.asarray(a), b)
    assert late.pinned == 2048


def test_a_chunk_that_was_refused_comes_back():
    late = Late()
    staging, real = Staging(late, budget=1024, chunk=1024), late.cuda.alloc_pinned_memory
    late.cuda.alloc_pinned_memory = lambda _: (_ for _ in ()).throw(MemoryError("cudaHostAlloc"))
    with pytest.raises(MemoryError):
        staging.upload(np.ones(5))
    late.cuda.alloc_pinned_memory = real
    assert staging.upload(np.ones(5)).shape == (5,)
    staging.drain()


def test_results_are_there_when_they_are_given():
    late = Late()
    device = CudaDevice("cuda:0", late)
    made = np.arange(12, dtype="float32").reshape(3, 4)
    ds = xr.Dataset(
        {"a": (("y", "x"), late.array(made), {"nodata": -1}), "b": (("y", "x"), made + 1),
         "c": (("y", "x"), late.array(made.astype("uint16")[:, ::-1]))}
    )  # fmt: skip
    found = device.to_host(ds)
    assert all(type(v.data) is np.ndarray for v in found.values())
    np.testing.assert_array_equal(found["a"], made)
    np.testing.assert_array_equal(found["b"], made + 1)
    np.testing.assert_array_equal(found["c"], made.astype("uint16")[:, ::-1])
    assert found["a"].attrs == {"nodata": -1}


def raised(error, cause=None):
    try:
        raise error from cause
    except type(error) as exc:
        return exc


def of_cupy():
    memory = pytest.importorskip("cupy.cuda.memory", reason="CuPy is not installed")
    return memory.OutOfMemoryError(1 << 30, 0, 0)


def of_the_runtime():
    """CuPy's runtime looks its message up in the driver: a class of that name does."""
    return type("CUDARuntimeError", (RuntimeError,), {})("cudaErrorMemoryAllocation: out of memory")


def of_numba():
    driver = pytest.importorskip("numba.cuda.cudadrv.driver", reason="numba-cuda isn't installed")
    text = "Call to cuMemAlloc results in CUDA_ERROR_OUT_OF_MEMORY"
    return driver.CudaAPIError(2, text)


def of_rmm():
    return MemoryError("std::bad_alloc: out_of_memory: RMM failure at: pool: maximum size exceeded")


def of_numpy():
    with pytest.raises(MemoryError) as caught:
        np.empty(1 << 60, np.uint8)
    return caught.value


@pytest.mark.parametrize("make", [of_cupy, of_the_runtime, of_numba, of_rmm])
def test_every_way_to_say_that_device_memory_has_run_out(make):
    error = make()
    for device in (CudaDevice("cuda:0", None), SimulatedDevice()):
        assert device.exhausted(error)
        assert device.exhausted(raised(DataError("a plugin's own words"), error))
    assert not CpuDevice().exhausted(error)


@pytest.mark.parametrize("error", [of_numpy(), MemoryError(), ValueError("x"), RuntimeError("no")])
def test_the_hosts_memory_and_bugs_are_another_matter(error):
    for device in (CudaDevice("cuda:0", None), CpuDevice(), SimulatedDevice()):
        assert not device.exhausted(error)


@pytest.mark.parametrize(
    ("limit", "expected"), [(0, 7 << 30), (4 << 30, 3 << 30), (1 << 30, 0)], ids=["no", "4", "1"]
)
def test_what_is_free_counts_the_pool_and_its_limit(monkeypatch, limit, expected):
    monkeypatch.setattr("odc_stats_gpu.engine._cuda_device.unused_pool_bytes", lambda: None)
    late = Late()
    late.cuda.runtime = SimpleNamespace(memGetInfo=lambda: (5 << 30, 16 << 30))
    pool = SimpleNamespace(
        free_bytes=lambda: 2 << 30, used_bytes=lambda: 1 << 30, get_limit=lambda: limit
    )
    late.get_default_memory_pool = lambda: pool
    found = CudaDevice("cuda:0 NVIDIA T4", late).memory()
    assert (found.bytes, found.source) == (expected, "free on cuda:0 NVIDIA T4")
    monkeypatch.setattr("odc_stats_gpu.engine._cuda_device.unused_pool_bytes", lambda: 9 << 30)
    found = CudaDevice("cuda:0 NVIDIA T4", late).memory()
    assert (found.bytes, found.source) == (9 << 30, "RMM pool on cuda:0 NVIDIA T4")
