"""On hardware: the kernels on CuPy arrays and streams. The kernels' suite runs there as well."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from odc_stats_gpu import kernels
from odc_stats_gpu.kernels import refine

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def cupy():
    found = pytest.importorskip("cupy", reason="CuPy is not installed")
    try:
        devices = found.cuda.runtime.getDeviceCount()
    except Exception as exc:  # noqa: BLE001 - CuPy raises its own family
        pytest.skip(f"no CUDA device: {str(exc).splitlines()[0]}")
    if not devices:
        pytest.skip("no CUDA device")
    return found


def turned(x, y):
    c, s = 0.97 * math.cos(0.1), 0.97 * math.sin(0.1)
    return 40.3 + c * x - s * y, 17.9 + s * x + c * y + 1e-6 * x * y


def scene(dtype="int16", bands=6, size=1500):
    rng = np.random.default_rng(1)
    src = rng.integers(0, 10000, (bands, size, size + 7)).astype(dtype)
    src[:, rng.random(src.shape[1:]) < 0.2] = 0
    return src


@pytest.mark.parametrize("dtype", ["int16", "uint16", "uint8"])
@pytest.mark.parametrize("method", ["nearest", "bilinear", "cubic", "average"])
def test_warp_of_a_block(cupy, method, dtype):
    src = scene(dtype)
    lattice = refine(turned, (1400, 1411))
    expected = kernels.warp(src, 0, lattice, method).astype(int)
    found = cupy.asnumpy(kernels.warp(cupy.asarray(src), 0, lattice, method)).astype(int)
    np.testing.assert_array_equal(found == 0, expected == 0)
    assert np.abs(found - expected).max() <= 1
    assert (found != expected).mean() < 2e-4


def test_masks_morphology_fusing_and_counts(cupy):
    rng = np.random.default_rng(2)
    mask = rng.integers(0, 5, (7, 1200, 1111)).astype(np.uint8)
    device = cupy.asarray(mask)
    ops = [("opening", 2), ("dilation", 5), ("closing", 40)]
    for call in (
        lambda a: kernels.decode_enum(a, [2, 3]),
        lambda a: kernels.decode_flags(a, [(0, 2, 3)]),
        lambda a: kernels.clean_mask(a == 3, ops),
        lambda a: kernels.first_valid(a, 0),
        kernels.any_true,
        lambda a: kernels.count_true(a, unless=a == 3),
        lambda a: kernels.mask_where(a, a[0] == 1, 9),
    ):
        np.testing.assert_array_equal(cupy.asnumpy(call(device)), call(mask))


def test_kernels_run_on_the_current_stream(cupy):
    """A thread with its own stream, as blocks are read: no result waits for, or misses, another."""
    src = scene(size=700)
    lattice = refine(turned, (600, 600))
    expected = kernels.warp(src, 0, lattice, "bilinear")

    def one(shift):
        with cupy.cuda.Stream(non_blocking=True) as stream:
            device = cupy.asarray(src) + np.int16(shift)
            device[cupy.asarray(src) == 0] = 0
            found = kernels.warp(device, 0, lattice, "bilinear")
            host = cupy.asnumpy(found, stream=stream)
            stream.synchronize()
        return host

    with ThreadPoolExecutor(4) as pool:
        for shift, found in enumerate(pool.map(one, range(16))):
            np.testing.assert_array_equal(found, np.where(expected == 0, 0, expected + shift))


def test_a_launch_does_not_wait(cupy):
    busy = cupy.RawKernel(
        'extern "C" __global__ void busy() { long long t = clock64(); '
        "while (clock64() - t < 2000000000LL); }",
        "busy",
    )
    flags = cupy.ones((3, 64, 64), cupy.uint8)
    kernels.count_true(flags)  # compiled
    with cupy.cuda.Stream(non_blocking=True) as stream:
        busy((1,), (1,), ())
        found = kernels.count_true(flags)
        assert not stream.done
        stream.synchronize()
        assert (found == 3).all()
