"""On hardware: the engine's device itself, and what plugins are given there."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from geomedian_cases import NODATA, surface_reflectance

from odc_stats_gpu import kernels

pytestmark = pytest.mark.gpu


@pytest.fixture
def device(cupy):
    pytest.importorskip("xarray", reason="the engine needs xarray: carry its wheel")
    pytest.importorskip("pydantic", reason="the engine needs pydantic: carry its wheel")
    from odc_stats_gpu.engine._cuda_device import CudaDevice

    return CudaDevice("cuda:0", cupy)


def test_many_uploads_of_many_sizes_arrive(device):
    """More than there are pinned chunks, by many threads, on both lanes."""
    rng = np.random.default_rng(1)
    sizes = rng.integers(1, 6 << 20, 60)
    given = [rng.integers(-999, 9999, int(n)).astype("int16") for n in sizes]

    def one(n):
        lane = device.lane(n)
        with lane.active():
            return lane.upload(given[n]) + np.int16(1)

    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(one, range(len(given))))
    for n, array in enumerate(found):
        with device.lane(n).active():
            np.testing.assert_array_equal(array.get(), given[n] + 1)
    device.release()


def test_datasets_of_plugins_are_cupy_backed(cupy, device):
    """The accessor of cupy-xarray works on them, also on what comes out of a kernel."""
    pytest.importorskip("cupy_xarray", reason="cupy-xarray is not installed")
    import xarray as xr

    from odc_stats_gpu.model import as_stack

    stack = surface_reflectance(1, 20, 4, (40, 50))
    lane = device.lane(1)
    with lane.active():
        block = lane.empty(stack.shape, stack.dtype)
        block[...] = lane.upload(stack)
        ds = xr.Dataset({f"b{k}": (("time", "y", "x"), block[k]) for k in range(4)})
        assert ds.cupy.is_cupy
        assert ds["b0"].cupy.is_cupy
        assert as_stack(ds).data.ptr == block.data.ptr  # no copy
        found = kernels.geomad(as_stack(ds), NODATA)
        made = xr.Dataset({"smad": (("y", "x"), found.smad), "count": (("y", "x"), found.count)})
        assert made.cupy.is_cupy
        assert isinstance(ds.mean("time")["b0"].data, cupy.ndarray)
        plain = ds.cupy.as_numpy()
    host = lane.to_host(made)
    assert not plain.cupy.is_cupy
    assert not host.cupy.is_cupy
    np.testing.assert_array_equal(plain["b2"].data, stack[2])
    expected = kernels.geomad(stack, NODATA)
    np.testing.assert_array_equal(host["count"].data, expected.count)


def test_a_refusal_is_known_for_what_it_is(cupy, device):
    pool = cupy.get_default_memory_pool()
    before = pool.get_limit()
    pool.set_limit(size=pool.total_bytes() + (64 << 20))
    try:
        with pytest.raises(MemoryError) as caught:
            device.lane(0).empty((1 << 30,), np.uint8)
        assert device.exhausted(caught.value)
        assert device.memory().bytes <= pool.get_limit()
    finally:
        pool.set_limit(size=before)
    free = device.memory()
    assert free.bytes > 0
    held = device.lane(0).empty((32 << 20,), np.uint8)
    assert device.memory().bytes <= free.bytes - (16 << 20)
    del held
    device.release()
