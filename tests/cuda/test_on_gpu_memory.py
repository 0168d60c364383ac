"""On hardware: memory that is refused, freed early or used again."""

from __future__ import annotations

import gc

import numpy as np
import pytest
from geomedian_cases import NODATA, surface_reflectance

from odc_stats_gpu import kernels
from odc_stats_gpu.kernels import refine

pytestmark = pytest.mark.gpu


def test_too_little_memory_is_said_and_forgotten(cupy):
    """CuPy's own error, which the engine answers with smaller blocks; nothing stays allocated."""
    stack = surface_reflectance(1, 20, 6, (256, 256))
    pool = cupy.cuda.MemoryPool()
    with cupy.cuda.using_allocator(pool.malloc):
        device = cupy.asarray(stack)
        want = [cupy.asnumpy(a) for a in kernels.geomad(device, NODATA)]
        gc.collect()
        pool.free_all_blocks()
        held = pool.total_bytes()
        pool.set_limit(size=held + 100_000)  # results need 2.6 MB
        for _ in range(3):
            with pytest.raises(cupy.cuda.memory.OutOfMemoryError):
                kernels.geomad(device, NODATA)
        gc.collect()
        pool.free_all_blocks()
        assert pool.total_bytes() == held
        half = kernels.geomad(device[:, :, :8], NODATA)  # a smaller block still works
        np.testing.assert_array_equal(cupy.asnumpy(half.count), want[-1][:8])
        pool.set_limit(size=0)
        for a, b in zip(kernels.geomad(device, NODATA), want, strict=True):
            np.testing.assert_array_equal(cupy.asnumpy(a), b)
        del device, half, a
    gc.collect()
    assert pool.used_bytes() == 0


def test_an_allocator_of_ones_own_is_asked(cupy):
    """As RMM is plugged in: no kernel takes memory from anywhere else."""
    asked = []

    def malloc(size):
        asked.append(size)
        return cupy.get_default_memory_pool().malloc(size)

    stack = cupy.asarray(surface_reflectance(2, 12, 6, (20, 33)))
    with cupy.cuda.using_allocator(malloc):
        got = kernels.geomad(stack, NODATA)
    assert sum(asked) >= sum(a.nbytes for a in got)


def test_inputs_may_go_as_soon_as_the_launch_is_queued(cupy):
    """What takes their place on the same stream comes after the kernel."""
    stack = surface_reflectance(3, 40, 6, (128, 128))
    want = kernels.geomad(cupy.asarray(stack), NODATA)
    with cupy.cuda.Stream(non_blocking=True) as stream:
        for _ in range(30):
            device = cupy.asarray(stack)
            got = kernels.geomad(device, NODATA)
            del device
            cupy.full(stack.shape, 12345, np.int16)  # the pool hands out the same memory
        stream.synchronize()
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(cupy.asnumpy(a), cupy.asnumpy(b))


def test_results_outlive_everything(cupy):
    src = np.arange(1, 2 * 90 * 91 + 1, dtype=np.int16).reshape(2, 90, 91)
    lattice = refine(lambda x, y: (x + 3.5, y + 2.25), (60, 70))
    found = kernels.warp(cupy.asarray(src), 0, lattice, "cubic")
    gc.collect()
    cupy.get_default_memory_pool().free_all_blocks()
    cupy.cuda.get_current_stream().synchronize()
    expected = kernels.warp(src, 0, lattice, "cubic")
    assert np.abs(cupy.asnumpy(found).astype(int) - expected).max() <= 1


def test_nothing_leaks(cupy):
    pool = cupy.cuda.MemoryPool()
    with cupy.cuda.using_allocator(pool.malloc):
        device = cupy.asarray(surface_reflectance(4, 30, 6, (64, 64)))
        kernels.geomad(device, NODATA)
        gc.collect()
        once = pool.total_bytes()
        for _ in range(50):
            kernels.geomad(device, NODATA)
        cupy.cuda.get_current_stream().synchronize()
        gc.collect()
        assert pool.total_bytes() == once
        del device


def test_more_pixels_than_32_bits_of_bytes(cupy):
    """Offsets into a stack of 4.5 GB: its last pixels are those of a small stack."""
    free, _ = cupy.cuda.runtime.memGetInfo()
    if free < 8 << 30:
        pytest.skip(f"needs 8 GiB of free device memory, {free / 2**30:.1f} are free")
    part = surface_reflectance(5, 20, 6, (16, 4096))
    rows = 16 * 280  # 6 x 20 x 4480 x 4096 x 2 bytes = 4.4e9
    stack = cupy.empty((6, 20, rows, 4096), np.int16)
    for y in range(0, rows, 16):
        stack[:, :, y : y + 16] = cupy.asarray(part)
    got, want = kernels.geomad(stack, NODATA), kernels.geomad(cupy.asarray(part), NODATA)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(cupy.asnumpy(a[..., -16:, :]), cupy.asnumpy(b))
        np.testing.assert_array_equal(cupy.asnumpy(a[..., :16, :]), cupy.asnumpy(b))


def test_a_pool_of_rmm_that_is_too_small(cupy):
    """As dask-cuda's workers have it: what is left is known, what is refused is recognised."""
    rmm = pytest.importorskip("rmm", reason="rmm is not installed: make gpu-wheels DASK=1")
    pytest.importorskip("xarray", reason="the engine's device needs xarray")
    from rmm.allocators.cupy import rmm_cupy_allocator

    from odc_stats_gpu.engine._cuda_device import CudaDevice
    from odc_stats_gpu.engine._cuda_pool import unused_pool_bytes

    before, allocator = rmm.mr.get_current_device_resource(), cupy.cuda.get_allocator()
    stack = surface_reflectance(8, 20, 6, (256, 256))
    size = (2 * stack.nbytes + (1 << 20)) // 256 * 256
    pool = rmm.mr.PoolMemoryResource(rmm.mr.CudaMemoryResource(), size, size)
    try:
        rmm.mr.set_current_device_resource(rmm.mr.TrackingResourceAdaptor(pool))
        cupy.cuda.set_allocator(rmm_cupy_allocator)
        device = CudaDevice("cuda:0", cupy)
        assert unused_pool_bytes() == size
        held = device.upload(stack)
        assert size - 2 * held.nbytes < unused_pool_bytes() <= size - held.nbytes
        with pytest.raises(MemoryError) as refused:
            [device.empty(stack.shape, stack.dtype) for _ in range(9)]
        assert device.exhausted(refused.value)
        del refused
        half = kernels.geomad(held[:, :, :32], NODATA)
        want = kernels.geomad(stack[:, :, :32], NODATA)
        np.testing.assert_array_equal(cupy.asnumpy(half.count), want.count)
        del held, half
        gc.collect()
        cupy.cuda.runtime.deviceSynchronize()
        assert unused_pool_bytes() == size
    finally:
        cupy.cuda.set_allocator(allocator)
        rmm.mr.set_current_device_resource(before)


def test_pixels_through_the_engines_device(cupy):
    """Pinned chunks up on lanes that take turns, results down; sizes around the chunk's."""
    xr = pytest.importorskip("xarray", reason="the engine's device needs xarray")
    from odc_stats_gpu.engine._cuda_device import CudaDevice

    device = CudaDevice("cuda:0", cupy)
    rng = np.random.default_rng(0)
    for number, shape in enumerate([(3, 5), (1, 8 << 20), (7, 2_000_003)] * 3):
        host = rng.integers(-999, 9999, shape).astype(np.int16)
        lane = device.lane(number)
        with lane.active():
            band = lane.upload(host)
            flags = lane.upload(host > 0)
            found = lane.to_host(
                xr.Dataset({"a": (("y", "x"), band + 1), "b": (("y", "x"), flags)})
            )
        np.testing.assert_array_equal(found["a"].data, host + 1)
        np.testing.assert_array_equal(found["b"].data, host > 0)
    assert device.memory().bytes > 0
    device.release()
