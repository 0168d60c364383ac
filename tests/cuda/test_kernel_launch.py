"""How kernels are handed to the driver, up to the call that needs one.

Arrays that only look like CuPy's go through the real launcher: Numba types and compiles for a
device, links, and makes what `cuda.core.launch` would get. That call alone is replaced.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from cudahost import offline

from odc_stats_gpu import kernels
from odc_stats_gpu.kernels import _dispatch

CC = (9, 0)
STREAM = 0x5150


class DeviceArray(np.ndarray):
    """Host memory that says it is a device's, as CuPy arrays do."""

    device = contextlib.nullcontext()

    @property
    def __cuda_array_interface__(self):
        strides = None if self.flags.c_contiguous else self.strides
        return {
            "shape": self.shape, "typestr": self.dtype.str, "descr": self.dtype.descr,
            "strides": strides, "version": 3, "stream": 1,
            "data": (self.ctypes.data if self.size else 0, False),
        }  # fmt: skip


def put(array):
    return np.asarray(array).view(DeviceArray)


DeviceArray.device.id = 0


@pytest.fixture
def launched(monkeypatch):
    """Launches as (stream, configuration, arguments)."""
    from cuda.core import LaunchConfig
    from numba.cuda import api, codegen, dispatcher
    from numba.cuda.cudadrv import devices, driver

    from odc_stats_gpu.kernels.geomedian import _cuda_plan, cuda

    found = []

    def launch(stream, config, kernel, *arguments):
        assert isinstance(config, LaunchConfig)
        assert kernel == "loaded"
        found.append((stream, config, arguments))

    def load(library):
        assert library.get_cubin(cc=(*CC, "a")).code  # linked, as for a device of this kind
        return SimpleNamespace(kernel="loaded", module=SimpleNamespace(), name="")

    context = SimpleNamespace(
        device=SimpleNamespace(compute_capability=CC, id=0),
        create_external_stream=lambda ptr: driver.Context.create_external_stream(None, ptr),
    )
    cupy = SimpleNamespace(
        asarray=put,
        empty=lambda shape, dtype: put(np.empty(shape, dtype)),
        ascontiguousarray=lambda array: put(np.ascontiguousarray(array)),
        cuda=SimpleNamespace(get_current_stream=lambda: SimpleNamespace(ptr=STREAM)),
    )
    offline(CC)
    monkeypatch.setattr(_dispatch, "backend_of", lambda _: "cuda")
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr(api, "current_context", lambda: context)
    monkeypatch.setattr(devices._runtime, "ensure_context", contextlib.nullcontext)
    monkeypatch.setattr(devices._runtime, "get_or_create_context", lambda _: context)
    monkeypatch.setattr(dispatcher, "launch", launch)
    monkeypatch.setattr(codegen.CUDACodeLibrary, "get_cufunc", load)
    monkeypatch.setattr(dispatcher._Kernel, "initialize_once", lambda *_: None, raising=False)
    device = _cuda_plan.Multiprocessors(count=132, shared_bytes=228 << 10, blocks=32)
    monkeypatch.setattr(cuda, "_multiprocessors", lambda _: device)
    return found


def scalars(arguments):
    return [a for a in arguments if isinstance(a, ctypes._SimpleCData)]


def test_stream_grid_shared_memory_and_arguments(launched):
    stack = put(np.zeros((2, 12, 5, 40), np.int16))
    got = kernels.geomad(stack, (7, -1))
    ((stream, config, arguments),) = launched
    assert int(stream.handle) == STREAM
    assert (config.grid[1:], config.block[1:]) == ((1, 1), (1, 1))
    assert config.block[0] % 32 == 0
    assert 0 < config.shmem_size <= 48 << 10
    assert [type(a) for a in scalars(arguments)] == [
        ctypes.c_int32, ctypes.c_int32, ctypes.c_float, ctypes.c_float, ctypes.c_int32,
    ]  # fmt: skip
    assert [a.value for a in scalars(arguments)] == [7, -1, 1.0, -1.0, 0]
    pointers = {a.ctypes.data for a in (stack, got.smad, got.emad, got.bcmad, got.count)}
    assert pointers <= {a for a in arguments if isinstance(a, int)}


def test_every_kernel_is_launched_as_the_driver_wants_it(launched):
    """Strided and contiguous arrays, booleans, scalars of every type that kernels take."""
    rng = np.random.default_rng(0)
    mask = put(rng.integers(0, 5, (3, 40, 70)).astype(np.uint8))
    bands = put(rng.integers(0, 900, (2, 3, 40, 70)).astype(np.int16))
    lattice = kernels.refine(lambda x, y: (x + 0.5, y), (20, 30))
    bad = kernels.decode_enum(mask, [2, 3])
    kernels.decode_flags(mask, [(0, 2, 3)])
    kernels.clean_mask(bad, [("opening", 1)])
    kernels.mask_where(bands[:, :, ::2, 1:], bad[:, ::2, 1:], -999)
    kernels.first_valid(bands[..., 3:], [0, 1])
    kernels.any_true(bad[None])
    kernels.count_true(bad, unless=mask == 1)
    kernels.nearest_onto(mask, put(np.arange(9)), put(np.arange(7)))
    kernels.warp(bands[:, 0], 0, lattice, "nearest")
    kernels.warp(put(bands[:, 0].astype(np.float32)), 0, lattice, "bilinear")
    assert len(launched) == 12
    for stream, config, arguments in launched:
        assert int(stream.handle) == STREAM
        assert all(type(n) is int and 0 < n <= 65535 for n in (*config.grid, *config.block))
        assert np.prod(config.block) <= 256
        assert config.shmem_size == 0
        assert all(isinstance(a, int | ctypes._SimpleCData) for a in arguments)


def test_threads_may_start_a_kernel_first_together(launched):
    """As the reader's threads do: one compiles, the others wait, each launch is theirs."""
    from odc_stats_gpu.kernels.geomedian import cuda

    cuda.compiled.cache_clear()
    stacks = [put(np.full((1, 3, 4, k + 1), 5, np.uint16)) for k in range(6)]
    failed = []

    def one(stack):
        try:
            kernels.geomad(stack, 0)
        except Exception as exc:  # noqa: BLE001 - shown below
            failed.append(exc)

    threads = [threading.Thread(target=one, args=(stack,)) for stack in stacks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    sent = [{a for a in arguments if isinstance(a, int)} for _, _, arguments in launched]
    assert all(any(stack.ctypes.data in numbers for numbers in sent) for stack in stacks)
