"""Properties that a geometric median has, whatever computes it."""

from __future__ import annotations

import numpy as np
import pytest
from geomedian_cases import NODATA, as_pixels
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from odc_stats_gpu.kernels.geomedian.reference import geometric_median, objective

few = settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
BANDS = 3


@st.composite
def series(draw, least=1, most=24):
    """One pixel's (n, band) observations: a cloud, a line, two clusters, few values, outliers."""
    rng = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    n = draw(st.integers(least, most))
    centre = rng.integers(200, 4000, BANDS)
    match draw(st.sampled_from(["cloud", "line", "clusters", "repeats", "outliers"])):
        case "cloud":
            x = rng.normal(0, 200, (n, BANDS))
        case "line":
            x = rng.integers(-20, 21, (n, 1)) * rng.integers(-9, 10, BANDS)
        case "clusters":
            x = rng.normal(0, 30, (n, BANDS)) + 3000 * (rng.random((n, 1)) < 0.4)
        case "repeats":
            x = rng.integers(-2, 3, (n, BANDS))
        case _:
            x = rng.normal(0, 40, (n, BANDS))
            x[: n // 3] = 9000
    return rng.permutation(centre + np.rint(x).astype(int))


def pixels(*chosen):
    return as_pixels([np.asarray(x) for x in chosen])


def curvature(x, m):
    """Least eigenvalue of the objective's Hessian in units of its weights; 1 at a sample."""
    e = x - m
    d = np.linalg.norm(e, axis=1)
    if d.min() < 1e-6:
        return 1.0
    weights = (1 / d).sum()
    return np.linalg.eigvalsh(weights * np.eye(BANDS) - (e / d[:, None] ** 3).T @ e)[0] / weights


def assert_same(got, want, select=np.s_[...]):
    for name, a, b in zip(want._fields, got, want, strict=True):
        np.testing.assert_array_equal(a, b[select], err_msg=name)


def assert_near(x, got, want, atol=0.05):
    """Two results agree: in place where that is determined, in the sum of distances anywhere."""
    best = objective(x, geometric_median(x.astype(float)))
    for y in (got, want):
        assert objective(x, y) <= best * (1 + 1e-6) + 1e-3
    if curvature(x, geometric_median(x.astype(float))) > 1e-2:
        np.testing.assert_allclose(got, want, rtol=0, atol=atol)


@few
@given(chosen=st.lists(series(), min_size=1, max_size=5))
def test_it_is_the_minimiser(impl, chosen):
    got = impl.geomad(pixels(*chosen), NODATA)
    for j, x in enumerate(chosen):
        assert got.count[0, j] == len(x)
        y = got.geomedian[:, 0, j].astype(float)
        assert_near(x, y, geometric_median(x.astype(float)), atol=0.1)
        assert np.all(y >= x.min(axis=0) - 0.01)
        assert np.all(y <= x.max(axis=0) + 0.01)


@few
@given(x=series(least=3), random=st.randoms(use_true_random=False))
def test_order_of_dates(impl, x, random):
    order = random.sample(range(len(x)), len(x))
    got = impl.geomad(pixels(x, x[order]), NODATA)
    assert_near(x, got.geomedian[:, 0, 1].astype(float), got.geomedian[:, 0, 0].astype(float))
    assert got.emad[0, 1] == pytest.approx(got.emad[0, 0], rel=1e-2, abs=0.1)


@few
@given(x=series(), where=st.lists(st.integers(0, 24), min_size=1, max_size=40))
def test_masked_dates_change_no_bit(impl, x, where):
    whole = impl.geomad(pixels(x), NODATA)
    stack = np.insert(pixels(x), [min(k, len(x)) for k in where], NODATA, axis=1)
    assert_same(impl.geomad(stack, NODATA), whole)
    stack[1, stack[0] == NODATA] = 5  # one band missing is enough
    assert_same(impl.geomad(stack, NODATA), whole)


@few
@given(x=series(least=3), shift=st.integers(-150, 3000))
def test_shifted_and_scaled_with_its_samples(impl, x, shift):
    got = impl.geomad(pixels(x, x + shift, 2 * x), NODATA)
    y = got.geomedian[:, 0].astype(float).T
    assert_near(x, y[1] - shift, y[0])
    assert_near(x, y[2] / 2, y[0])
    if curvature(x, geometric_median(x.astype(float))) > 1e-2:
        assert got.emad[0, 1] == pytest.approx(got.emad[0, 0], rel=1e-2, abs=0.2)
        assert got.emad[0, 2] == pytest.approx(2 * got.emad[0, 0], rel=1e-2, abs=0.4)


@few
@given(x=series(least=3), copies=st.integers(2, 4))
def test_copies_of_all_dates_change_nothing(impl, x, copies):
    got = impl.geomad(pixels(x, np.repeat(x, copies, axis=0)), NODATA)
    assert got.count[0, 1] == copies * len(x)
    assert_near(x, got.geomedian[:, 0, 1].astype(float), got.geomedian[:, 0, 0].astype(float))


@few
@given(x=series(least=2, most=9), far=st.integers(-30000, 32000))
def test_a_minority_of_outliers_cannot_carry_it_off(impl, x, far):
    good = np.concatenate([x, x, x[:1]])  # the majority: at most twice the spread away from it
    got = impl.geomad(pixels(np.concatenate([good, np.full((len(x), BANDS), far)])), NODATA)
    centre = good.mean(axis=0)
    spread = np.linalg.norm(good - centre, axis=1).max()
    share = len(x) / (len(good) + len(x))
    bound = 2 * (1 - share) / (1 - 2 * share) * spread + 0.1  # Lopuhaa and Rousseeuw 1991
    assert np.linalg.norm(got.geomedian[:, 0, 0] - centre) <= bound


@few
@given(a=st.tuples(*[st.integers(0, 9000)] * 3), b=st.tuples(*[st.integers(0, 9000)] * 3))
def test_nothing_one_and_two(impl, a, b):
    got = impl.geomad(pixels(np.array([a]), np.array([a, b]), np.zeros((0, 3), int)), NODATA)
    np.testing.assert_array_equal(got.geomedian[:, 0, 0], a)
    np.testing.assert_array_equal(got.geomedian[:, 0, 1], np.add(a, b) / 2)
    np.testing.assert_array_equal(got.count, [[1, 2, 0]])
    assert got.emad[0, 0] == 0
    assert got.emad[0, 1] == pytest.approx(np.linalg.norm(np.subtract(a, b)) / 2, rel=1e-6)
    assert all(np.isnan(field[..., 0, 2]).all() for field in got[:4])


@few
@given(
    chosen=st.lists(series(), min_size=7, max_size=7),
    left=st.integers(0, 6),
    width=st.integers(1, 7),
    layout=st.sampled_from(["C", "F", "every second", "mirrored"]),
)
def test_neighbours_and_layout_change_no_bit(impl, chosen, left, width, layout):
    stack = pixels(*chosen)
    whole = impl.geomad(stack, NODATA)
    window = np.s_[..., left : left + width]
    match layout:
        case "F":
            view = stack.copy(order="F")[window]
        case "every second":
            view = np.repeat(stack, 2, axis=1)[:, ::2][window]
        case "mirrored":
            view = stack[..., ::-1].copy()[..., ::-1][window]
        case _:
            view = stack[window]
    assert_same(impl.geomad(view, NODATA), whole, window)


@pytest.mark.parametrize("dates", [1, 2, 31, 32, 33, 63, 64, 65, 255, 257, 1000])
def test_any_number_of_dates(impl, dates):
    rng = np.random.default_rng(dates)
    x = rng.integers(300, 4000, BANDS) + np.rint(rng.normal(0, 150, (dates, BANDS))).astype(int)
    got = impl.geomad(pixels(x), NODATA)
    assert got.count[0, 0] == dates
    np.testing.assert_allclose(
        got.geomedian[:, 0, 0], geometric_median(x.astype(float)), rtol=0, atol=0.05
    )
