"""On hardware: geomedian and MADs of CuPy arrays against the CPU, on streams, of any layout."""

from __future__ import annotations

import numpy as np
import pytest
from geomedian_cases import AWKWARD, NODATA, as_pixels, awkward, surface_reflectance

from odc_stats_gpu import kernels
from odc_stats_gpu.kernels.geomedian.reference import objective

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


def on_gpu(cupy, stack, nodata=NODATA, **options):
    got = kernels.geomad(cupy.asarray(stack), nodata, **options)
    assert all(isinstance(a, cupy.ndarray) for a in got)
    return type(got)(*map(cupy.asnumpy, got))


@pytest.mark.parametrize(
    ("bands", "dates"),
    [(1, 30), (2, 9), (6, 3), (6, 20), (6, 90), (6, 400), (6, 3000), (10, 70), (10, 150), (16, 50)],
)
def test_equals_the_cpu(cupy, bands, dates):
    size = (60, 101) if dates < 1000 else (9, 33)
    stack = surface_reflectance(dates, dates, bands, size)
    got, want = on_gpu(cupy, stack), kernels.geomad(stack, NODATA)
    np.testing.assert_array_equal(got.count, want.count)
    far = np.abs(got.geomedian - want.geomedian) > 0.2
    assert far.mean() < 1e-4  # nearly flat pixels of very few observations
    fine = ~far.any(axis=0)
    for field in ("smad", "emad", "bcmad"):
        a, b = getattr(got, field)[fine], getattr(want, field)[fine]
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-6, err_msg=field)


@pytest.mark.parametrize("kind", AWKWARD)
def test_awkward_series_reach_the_optimum(cupy, kind):
    cases = [awkward(kind, seed, 6) for seed in range(200)]
    stack = as_pixels(cases)
    got, want = on_gpu(cupy, stack), kernels.geomad(stack, NODATA)
    for j, x in enumerate(cases):
        y, m = (a.geomedian[:, 0, j].astype(np.float64) for a in (got, want))
        assert objective(x, y) <= objective(x, m) * (1 + 1e-6) + 1e-3


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_other_types_and_layouts(cupy, dtype):
    stack = surface_reflectance(5, 24, 6, (40, 50))
    stack = np.where(stack == NODATA, 40000, np.maximum(stack, 0)).astype(dtype)
    want = kernels.geomad(stack, 40000)
    device = cupy.asarray(stack)
    for given in (device, cupy.asfortranarray(device), device[:, :, ::-1].copy()[:, :, ::-1]):
        got = kernels.geomad(given, 40000)
        np.testing.assert_array_equal(cupy.asnumpy(got.count), want.count)
        far = np.abs(cupy.asnumpy(got.geomedian) - want.geomedian) > 0.2
        assert far.mean() < 1e-4


def test_windows_have_the_bits_of_the_whole_and_streams_do_not_mix(cupy):
    stack = cupy.asarray(surface_reflectance(6, 30, 6, (64, 96)))
    whole = kernels.geomad(stack, NODATA)
    streams = [cupy.cuda.Stream(non_blocking=True) for _ in range(4)]
    parts = []
    cupy.cuda.get_current_stream().synchronize()
    for k, stream in enumerate(streams):
        with stream:
            parts.append(kernels.geomad(stack[:, :, 16 * k : 16 * k + 16, 3:90], NODATA))
    for k, stream in enumerate(streams):
        stream.synchronize()
        for got, want in zip(parts[k], whole, strict=True):
            rows = np.s_[..., 16 * k : 16 * k + 16, 3:90]
            np.testing.assert_array_equal(cupy.asnumpy(got), cupy.asnumpy(want[rows]))


def test_a_launch_does_not_wait(cupy):
    busy = cupy.RawKernel(
        'extern "C" __global__ void busy() { long long t = clock64(); '
        "while (clock64() - t < 2000000000LL); }",
        "busy",
    )
    stack = cupy.asarray(surface_reflectance(7, 10, 6, (8, 8)))
    want = kernels.geomad(stack, NODATA)  # compiled
    with cupy.cuda.Stream(non_blocking=True) as stream:
        busy((1,), (1,), ())
        got = kernels.geomad(stack, NODATA)
        assert not stream.done
        stream.synchronize()
        assert (got.geomedian == want.geomedian).all()
