"""What must not change a pixel: neighbours, blocks, threads, layout, empty dates, their order."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import pytest
from geomedian_cases import AWKWARD, NODATA, as_pixels, awkward, surface_reflectance
from hypothesis import given, settings
from hypothesis import strategies as st

from odc_stats_gpu import kernels


def assert_same(got, want, select=np.s_[...]):
    for name, a, b in zip(want._fields, got, want, strict=True):
        np.testing.assert_array_equal(a, b[select], err_msg=name)


class Scene(tuple):  # a pair that Hypothesis can print
    __slots__ = ()

    def __repr__(self):
        return "scene"


@pytest.fixture(scope="module")
def scene():
    """Ordinary pixels with awkward ones between them, 13 x 37."""
    stack = surface_reflectance(11, 20, 3, (13, 37))
    rng = np.random.default_rng(2)
    for k in range(60):
        x = awkward(AWKWARD[k % (len(AWKWARD) - 1)], k, 3)[:20]
        i, j = rng.integers(13), rng.integers(37)
        stack[:, :, i, j] = NODATA
        stack[:, : len(x), i, j] = x.T
    return Scene((stack, kernels.geomad(stack, NODATA)))


@given(st.integers(0, 12), st.integers(0, 36), st.integers(1, 13), st.integers(1, 37))
@settings(max_examples=60)
def test_any_window_gives_the_same_bits(scene, top, left, height, width):
    stack, whole = scene
    window = np.s_[..., top : top + height, left : left + width]
    assert_same(kernels.geomad(stack[window], NODATA), whole, window)
    assert_same(kernels.geomad(stack[window].copy(), NODATA), whole, window)


@pytest.mark.parametrize(
    "layout",
    [
        np.asfortranarray,
        lambda s: np.ascontiguousarray(s.transpose(1, 2, 3, 0)).transpose(3, 0, 1, 2),
        lambda s: np.repeat(s, 2, axis=3)[..., ::2],
        lambda s: s[:, :, ::-1].copy()[:, :, ::-1],
        lambda s: s[..., ::-1].copy()[..., ::-1],
        lambda s: np.pad(s, ((0, 0), (0, 0), (2, 1), (3, 5)))[:, :, 2:-1, 3:-5],
    ],
    ids=[
        "fortran",
        "pixel-interleaved",
        "every second",
        "upside down",
        "mirrored",
        "inside a frame",
    ],
)
def test_any_layout_gives_the_same_bits(scene, layout):
    stack, whole = scene
    view = layout(stack)
    view.flags.writeable = False
    assert_same(kernels.geomad(view, NODATA), whole)


@given(st.randoms(use_true_random=False), st.integers(1, 6))
@settings(max_examples=20)
def test_added_empty_dates_change_nothing(scene, random, extra):
    stack, whole = scene
    places = sorted(random.sample(range(20 + extra), extra))
    longer = np.insert(stack, [p - k for k, p in enumerate(places)], NODATA, axis=1)
    longer[1:, places[0]] = 5  # one band missing is enough
    assert_same(kernels.geomad(longer, NODATA), whole)


@given(st.permutations(range(20)))
@settings(max_examples=20)
def test_order_of_dates_does_not_matter(scene, order):
    stack, whole = scene
    got = kernels.geomad(stack[:, order], NODATA)
    np.testing.assert_array_equal(got.count, whole.count)
    np.testing.assert_allclose(got.geomedian, whole.geomedian, rtol=0, atol=1.5e-3)
    np.testing.assert_allclose(got.emad, whole.emad, rtol=1e-4, atol=2e-3)


@given(
    st.integers(0, 9),
    st.lists(st.tuples(*[st.integers(-50, 50)] * 3), min_size=1, max_size=12),
)
def test_small_integers_reach_the_optimum(repeats, points):
    x = np.array(points + points[:1] * repeats)
    got = kernels.geomad(as_pixels([x]), NODATA)
    y = got.geomedian[:, 0, 0].astype(np.float64)
    best = min(np.linalg.norm(x - p, axis=1).sum() for p in x)
    assert np.linalg.norm(x - y, axis=1).sum() <= best * (1 + 1e-6) + 1e-4
    assert np.all(x.min(axis=0) - 1e-3 <= y)
    assert np.all(y <= x.max(axis=0) + 1e-3)
    assert got.count[0, 0] == len(x)


def test_threads_do_not_matter_and_many_callers_are_safe():
    stack = surface_reflectance(12, 12, 3, (90, 100))
    before = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        alone = kernels.geomad(stack, NODATA)
    finally:
        numba.set_num_threads(before)
    with ThreadPoolExecutor(6) as pool:
        for got in pool.map(lambda _: kernels.geomad(stack, NODATA), range(12)):
            assert_same(got, alone)


def test_importing_the_kernels_imports_no_compiler_and_no_driver():
    code = (
        "import sys, odc_stats_gpu.kernels as k; from odc_stats_gpu.kernels import reference\n"
        "heavy = {m for m in sys.modules if m.split('.')[0] in ('numba', 'numba_cuda', 'cupy')}\n"
        "sys.exit(', '.join(sorted(heavy)) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
