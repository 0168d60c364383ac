"""The geomedian's CUDA kernel, its own IR run on this CPU: any lanes, any launch."""

from __future__ import annotations

from dataclasses import replace

import hostlaunch
import numpy as np
import pytest
from cudahost import runtime
from geomedian_cases import AWKWARD, NODATA, as_pixels, awkward, surface_reflectance

from odc_stats_gpu import kernels
from odc_stats_gpu.kernels import SimulatedDeviceArray, reference
from odc_stats_gpu.kernels.geomedian import cuda
from odc_stats_gpu.kernels.geomedian._cuda_plan import Multiprocessors, off_chip, plan
from odc_stats_gpu.kernels.geomedian.reference import (
    bray_curtis_mad,
    cosine_mad,
    geometric_median,
    objective,
)

BIG = Multiprocessors(count=3, shared_bytes=1 << 30, blocks=32)
FOUR, MEMORY, TEN = (6, 4, True), (6, 4, False), (10, 8, True)
"""Bands, lanes per pixel, whether observations are on chip."""
OFTEN = (FOUR, TEN)
SELDOM = tuple(
    pytest.param(v, marks=pytest.mark.slow)
    for v in (
        (6, 1, True),
        (6, 2, True),
        (6, 16, True),
        (6, 32, True),
        (6, 32, False),
        (16, 4, True),
    )
)


def name(variant):
    bands, lanes, on_chip = variant
    return f"{bands}-bands-{lanes}-lanes{'' if on_chip else '-off-chip'}"


@pytest.fixture
def run(monkeypatch):
    """geomad by a variant of the kernel; `change` may alter the launch."""
    hostlaunch.use(monkeypatch)

    def geomad(variant, stack, nodata=NODATA, change=lambda how: how, **options):
        bands, lanes, on_chip = variant
        assert bands == stack.shape[0]
        choose = plan if on_chip else off_chip

        def planned(array):
            pixels = array.shape[2] * array.shape[3]
            how = choose(bands, array.dtype.name, array.shape[1], pixels, BIG, lanes)
            assert how.on_chip == on_chip
            return change(how)

        monkeypatch.setattr(cuda, "plan_for", planned)
        got = kernels.geomad(stack.view(SimulatedDeviceArray), nodata, **options)
        return type(got)(*map(np.asarray, got))

    return geomad


def assert_same(got, want, select=np.s_[...]):
    for field, a, b in zip(want._fields, got, want, strict=True):
        np.testing.assert_array_equal(a, b[select], err_msg=field)


def series_of(stack, i, j):
    x = stack[:, :, i, j].T.astype(np.float64)
    return x[np.all(x != NODATA, axis=1)]


def condition(x, m):
    """Least curvature of the sum of distances at m, in sums of 1/distance; 1 at a sample."""
    e = x - m
    d = np.linalg.norm(e, axis=1)
    if d.min() < 1e-6:
        return 1.0
    hessian = (1 / d).sum() * np.eye(len(m)) - (e / d[:, None] ** 3).T @ e
    return np.linalg.eigvalsh(hessian)[0] / (1 / d).sum()


@pytest.mark.parametrize("variant", [*OFTEN, *SELDOM], ids=name)
def test_equals_the_definition(run, variant):
    stack = surface_reflectance(variant[1], 36, variant[0], (3, 67))
    stack[0, :5] = NODATA  # in one band only
    got, want = run(variant, stack), reference.geomad(stack, NODATA)
    assert {a.dtype for a in got[:4]} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(got.count, want.count)
    np.testing.assert_allclose(got.geomedian, want.geomedian, rtol=0, atol=0.05)
    for field in ("smad", "emad", "bcmad"):
        np.testing.assert_allclose(getattr(got, field), getattr(want, field), rtol=1e-3)
    for j in range(0, 67, 3):  # and given the same geomedian
        x, m = series_of(stack, 1, j), got.geomedian[:, 1, j].astype(np.float64)
        X, M = x * 1e-4 - 1e-4, m * 1e-4 - 1e-4
        emad = np.median(np.linalg.norm(x - m, axis=1))
        exact = (cosine_mad(X, M), emad, bray_curtis_mad(X, M))
        np.testing.assert_allclose([a[1, j] for a in got[1:4]], exact, rtol=1e-5)


def test_equals_the_cpu_on_thousands_of_pixels(run):
    stack = surface_reflectance(21, 24, 6, (40, 101), masked=0.6)
    got, want = run(FOUR, stack), kernels.geomad(stack, NODATA)
    np.testing.assert_array_equal(got.count, want.count)
    np.testing.assert_allclose(got.geomedian, want.geomedian, rtol=0, atol=0.1)
    np.testing.assert_allclose(got.emad, want.emad, rtol=1e-3, atol=1e-2)
    np.testing.assert_allclose(got.smad, want.smad, rtol=1e-2, atol=1e-7)
    np.testing.assert_allclose(got.bcmad, want.bcmad, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("variant", [*OFTEN, *SELDOM], ids=name)
def test_awkward_series(run, variant):
    cases = [awkward(kind, seed, variant[0]) for kind in AWKWARD[:-1] for seed in range(6)]
    got = run(variant, as_pixels(cases))
    for j, x in enumerate(cases):
        m = geometric_median(x.astype(np.float64))
        y = got.geomedian[:, 0, j].astype(np.float64)
        well = condition(x.astype(np.float64), m)
        if np.any(np.all(x == m, axis=1)):
            np.testing.assert_array_equal(y, m)  # a sample, exactly
        elif well > 1e-3:
            np.testing.assert_allclose(y, m, rtol=0, atol=0.1 if well > 1e-2 else 1.0)
        assert objective(x, y) <= objective(x, m) * (1 + 1e-6) + 1e-3


@pytest.mark.parametrize("dates", [0, 1, 2, 3, 31, 33, 100, 1000])
def test_any_number_of_dates(run, dates):
    stack = surface_reflectance(dates, dates, 6, (2, 9), masked=0.1 if dates > 2 else 0.0)
    got, want = run(MEMORY, stack), reference.geomad(stack, NODATA)
    np.testing.assert_array_equal(got.count, want.count)
    np.testing.assert_allclose(got.geomedian, want.geomedian, rtol=0, atol=0.05)
    np.testing.assert_allclose(got.emad, want.emad, rtol=1e-3)
    if dates <= 100:
        assert_same(run(FOUR, stack), got)


@pytest.fixture(scope="module")
def scene():
    """Ordinary pixels with awkward ones between them, 7 x 41; most dates empty somewhere."""
    stack = surface_reflectance(11, 23, 6, (7, 41))
    rng = np.random.default_rng(2)
    for k in range(60):
        x = awkward(AWKWARD[k % (len(AWKWARD) - 1)], k, 6)[:23]
        i, j = rng.integers(7), rng.integers(41)
        stack[:, :, i, j] = NODATA
        stack[:, : len(x), i, j] = x.T
    stack[:, :, 3, 3:9] = NODATA
    return stack


def test_launch_and_split_do_not_matter(run, scene):
    whole = run(FOUR, scene)
    for warps in (1, 2, 8):
        how = plan(6, "int16", 23, 7 * 41, BIG, 4)
        per_warp = how.shared_bytes // how.warps
        blocks = -(-7 * 41 // (8 * warps))

        def launch(how, warps=warps, per_warp=per_warp, blocks=blocks):
            return replace(
                how, warps=warps, blocks=blocks, grid=blocks, shared_bytes=warps * per_warp
            )

        assert_same(run(FOUR, scene, change=launch), whole)
    part = np.s_[..., 2:5, 7:30]
    assert_same(run(FOUR, scene[part]), whole, part)
    assert_same(run(FOUR, scene[part].copy(order="F")), whole, part)
    for grid in (1, 3):  # blocks per launch; the last one has fewer
        assert_same(run(MEMORY, scene, change=lambda how, g=grid: replace(how, grid=g)), whole)


def test_the_order_of_threads_does_not_matter(run, scene):
    """A race between threads would show: nothing else is known of their order than the barriers."""
    for variant in (FOUR, MEMORY):
        whole = run(variant, scene)
        runtime().ch_order(1)
        try:
            assert_same(run(variant, scene), whole)
        finally:
            runtime().ch_order(0)


def test_dates_may_be_empty_or_in_any_order(run, scene):
    whole = run(FOUR, scene)
    longer = np.insert(scene, [0, 5, 5, 5, 16, 23], NODATA, axis=1)
    longer[1:, 0] = 5  # one band missing is enough
    assert_same(run(FOUR, longer), whole)
    mixed = run(FOUR, scene[:, np.random.default_rng(0).permutation(23)])
    np.testing.assert_array_equal(mixed.count, whole.count)
    np.testing.assert_allclose(mixed.emad, whole.emad, rtol=1e-3, atol=1e-2)
    well = np.ones((7, 41), bool)
    for i, j in np.argwhere(whole.count > 2):
        x = series_of(scene, i, j)
        well[i, j] = condition(x, geometric_median(x)) > 1e-2
    assert well.mean() > 0.9
    np.testing.assert_allclose(
        mixed.geomedian[:, well], whole.geomedian[:, well], rtol=0, atol=0.03
    )


def test_nothing_around_the_arrays_is_read_or_written(run, scene, monkeypatch):
    whole = run(FOUR, scene)
    made = []

    class Guarded:
        def empty(self, shape, dtype):
            size = int(np.prod(shape))
            space = np.full(size + 128, 77, dtype).view(SimulatedDeviceArray)
            made.append(space)
            return space[64 : 64 + size].reshape(shape)

    monkeypatch.setattr(cuda, "memory_of", lambda _: Guarded())
    for around in (NODATA, 3000):
        framed = np.pad(scene, ((1, 2), (3, 1), (2, 2), (5, 7)), constant_values=around)
        inside = framed[1:-2, 3:-1, 2:-2, 5:-7]
        for variant in (FOUR, MEMORY):
            assert_same(run(variant, inside), whole)
    assert len(made) == 4 * 6
    for space in made:
        assert (space[:64] == 77).all()
        assert (space[-64:] == 77).all()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["uint16", "float32"])
def test_other_types_have_the_bits_of_int16(run, scene, kind):
    stack = np.where(scene == NODATA, 20001, scene)
    stack[:, stack.min(axis=0) < 0] = 20001
    small = run(FOUR, stack.astype(np.int16), 20001)
    other = run(FOUR, stack.astype(kind), 20001)
    assert_same(other, small)
