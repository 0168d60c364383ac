"""Geomedian, MADs and count against the definition, on ordinary and on awkward series."""

from __future__ import annotations

import numpy as np
import pytest
from geomedian_cases import AWKWARD, NODATA, as_pixels, awkward, surface_reflectance

from odc_stats_gpu import kernels
from odc_stats_gpu.kernels import reference
from odc_stats_gpu.kernels.geomedian.reference import (
    bray_curtis_mad,
    cosine_mad,
    geometric_median,
    objective,
)


def series_of(stack, i, j, nodata=NODATA):
    x = stack[:, :, i, j].T.astype(np.float64)
    return x[np.all(x != nodata, axis=1)]


def optimality_gap(x, y):
    """How far -0 from the subdifferential at y: 0 iff y minimises the sum of distances to x."""
    e = x - y
    d = np.linalg.norm(e, axis=1)
    pull = np.linalg.norm((e[d > 0] / d[d > 0, None]).sum(axis=0))
    return max(0.0, pull - np.count_nonzero(d == 0))


@pytest.mark.parametrize(("bands", "dates"), [(6, 40), (3, 90), (10, 24)])
def test_equals_the_definition_on_masked_series(bands, dates):
    stack = surface_reflectance(7, dates, bands, (3, 21))
    got = kernels.geomad(stack, NODATA)
    want = reference.geomad(stack, NODATA)
    assert got.count.dtype == np.uint16
    assert {a.dtype for a in got[:4]} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(got.count, want.count)
    np.testing.assert_allclose(got.geomedian, want.geomedian, rtol=0, atol=0.05)
    for name in ("smad", "emad", "bcmad"):
        np.testing.assert_allclose(getattr(got, name), getattr(want, name), rtol=1e-3, err_msg=name)


def test_mads_are_exact_for_the_geomedian_returned():
    stack = surface_reflectance(8, 60, 6, (2, 40))
    got = kernels.geomad(stack, NODATA, scale=2.75e-5, offset=-0.2)
    for i, j in np.ndindex(2, 40):
        x, m = series_of(stack, i, j), got.geomedian[:, i, j].astype(np.float64)
        emad = np.median(np.linalg.norm(x - m, axis=1))
        X, M = x * 2.75e-5 - 0.2, m * 2.75e-5 - 0.2
        want = (cosine_mad(X, M), emad, bray_curtis_mad(X, M))
        np.testing.assert_allclose([a[i, j] for a in got[1:4]], want, rtol=1e-5)


def test_smad_keeps_its_digits_where_one_minus_cosine_has_none():
    rng = np.random.default_rng(1)
    direction = np.array([1.0, 2, 3, 2, 1, 1]) * 3000
    x = np.rint(direction * rng.uniform(0.9, 1.1, (31, 1)) + rng.normal(0, 0.6, (31, 6)))
    got = kernels.geomad(as_pixels([x]), NODATA, offset=0)
    want = cosine_mad(x, got.geomedian[:, 0, 0].astype(np.float64))
    assert want < 5e-8  # in float32, 1 - cos would be 0 or 6e-8
    assert got.smad[0, 0] == pytest.approx(want, rel=1e-4)


@pytest.mark.parametrize("kind", AWKWARD)
@pytest.mark.parametrize("bands", [3, 6])
def test_awkward_series(kind, bands):
    cases = [awkward(kind, seed, bands) for seed in range(12)]
    got = kernels.geomad(as_pixels(cases), NODATA)
    for j, x in enumerate(cases):
        m = geometric_median(x.astype(np.float64))
        y = got.geomedian[:, 0, j].astype(np.float64)
        if np.any(np.all(x == m, axis=1)):
            np.testing.assert_array_equal(y, m)  # a sample, exactly
        else:
            np.testing.assert_allclose(y, m, rtol=0, atol=0.1)
        assert objective(x, y) <= objective(x, m) * (1 + 1e-5) + 1e-3


def test_middle_of_a_collinear_even_series_is_optimal():
    steps = np.array([-5, -3, -1, 2, 4, 9])
    x = np.array([1000, 2000, 500]) + steps[:, None] * np.array([7, -3, 11])
    y = kernels.geomad(as_pixels([x]), NODATA).geomedian[:, 0, 0].astype(np.float64)
    best = objective(x, x[2])
    assert objective(x, y) == pytest.approx(best, rel=1e-6)


def test_one_and_two_observations(impl):
    one = np.array([[100, 200, 300]])
    two = np.array([[100, 200, 300], [105, 100, 301]])
    got = impl.geomad(as_pixels([one, two, two[:0]]), NODATA)
    np.testing.assert_array_equal(got.geomedian[:, 0, 0], [100, 200, 300])
    np.testing.assert_array_equal(got.geomedian[:, 0, 1], [102.5, 150, 300.5])
    assert np.isnan(got.geomedian[:, 0, 2]).all()
    np.testing.assert_array_equal(got.count, [[1, 2, 0]])
    assert [a[0, 0] for a in got[1:4]] == [0, 0, 0]
    assert all(np.isnan(a[0, 2]) for a in got[1:4])


def test_one_band_is_the_ordinary_median(impl):
    stack = surface_reflectance(3, 30, 1, (2, 9))
    stack[:, :5] -= 2000
    got = impl.geomad(stack, NODATA)
    for i, j in np.ndindex(2, 9):
        assert got.geomedian[0, i, j] == np.median(series_of(stack, i, j))


def test_an_observation_counts_only_if_every_band_is_valid(impl):
    x = np.array([[10, 20, 30], [11, 21, 31], [500, 0, 500], [12, 22, 32], [0, 500, 500]])
    stack = as_pixels([x], nodata=NODATA).astype(np.uint16)
    got = impl.geomad(stack, 0)
    np.testing.assert_array_equal(got.geomedian[:, 0, 0], [11, 21, 31])
    assert got.count[0, 0] == 3
    assert impl.geomad(stack, (500, 0, None)).count[0, 0] == 4
    assert impl.geomad(stack, None).count[0, 0] == 5
    assert impl.geomad(stack, -999).count[0, 0] == 5  # no uint16 is that


def test_numbers_above_32767_are_uint16(impl):
    x = np.array([[60000, 61000, 62000], [60001, 61000, 62000], [60000, 61002, 62000]])
    stack = x.T.reshape(3, 3, 1, 1).astype(np.uint16)
    got = impl.geomad(stack, 0)
    assert objective(x, got.geomedian[:, 0, 0]) < objective(x, x[0]) + 1e-2


def test_nan_infinity_and_nodata_are_missing_in_floats(impl):
    rng = np.random.default_rng(5)
    stack = rng.uniform(0.01, 0.4, (3, 12, 1, 3)).astype(np.float32)
    stack[1, 2] = np.nan
    stack[0, 3, 0, 0] = np.inf
    stack[2, 4] = -9999.0
    got = impl.geomad(stack, -9999.0, scale=1, offset=0)
    np.testing.assert_array_equal(got.count, [[9, 10, 10]])
    kept = np.delete(stack[:, :, 0, 1], [2, 4], axis=1).T.astype(np.float64)
    assert optimality_gap(kept, geometric_median(kept)) < 1e-9
    np.testing.assert_allclose(got.geomedian[:, 0, 1], geometric_median(kept), rtol=0, atol=1e-6)


def test_reflectance_and_dn_agree(impl):
    stack = surface_reflectance(9, 20, 3, (1, 12))
    reflectance = np.where(stack == NODATA, np.nan, stack * 1e-4 - 1e-4).astype(np.float32)
    dn = impl.geomad(stack, NODATA)
    unit = impl.geomad(reflectance, np.nan, scale=1, offset=0)
    np.testing.assert_allclose(unit.geomedian, dn.geomedian * 1e-4 - 1e-4, rtol=0, atol=2e-6)
    np.testing.assert_allclose(unit.emad, dn.emad * 1e-4, rtol=1e-3)
    np.testing.assert_allclose(unit.smad, dn.smad, rtol=1e-3)
    np.testing.assert_allclose(unit.bcmad, dn.bcmad, rtol=1e-3)


def test_angles_of_nothing_are_dropped_and_opposites_sort_last(impl):
    dark = np.array([0, 0, 0])
    x = np.array([[300, 400, 500], [300, 400, 500], [300, 400, 500], dark, dark])
    got = impl.geomad(as_pixels([x]), NODATA, offset=0)
    assert got.smad[0, 0] == 0  # of three: the two without a direction don't count
    assert got.bcmad[0, 0] == 0  # of five: those two are at distance 1
    opposite = np.array([[300, 400, 500]] * 2 + [[-300, -400, -500]] * 2)
    bcmad = impl.geomad(as_pixels([opposite[:3]]), NODATA, offset=0).bcmad[0, 0]
    assert bcmad == 0
    nothing = impl.geomad(as_pixels([[dark, dark, dark]]), NODATA, offset=0)
    assert np.isnan(nothing.smad[0, 0])
    assert np.isnan(nothing.bcmad[0, 0])
    assert nothing.emad[0, 0] == 0
    one = impl.geomad(as_pixels([np.array([[-300, 400, -500]])]), NODATA, offset=0)
    assert one.bcmad[0, 0] == 0


def test_no_dates_and_no_pixels(impl):
    none = impl.geomad(np.zeros((3, 0, 2, 5), np.int16), NODATA)
    assert none.geomedian.shape == (3, 2, 5)
    assert np.isnan(none.geomedian).all()
    assert not none.count.any()
    assert impl.geomad(np.zeros((3, 4, 0, 5), np.int16), NODATA).count.shape == (0, 5)


def test_sixteen_bands_and_a_thousand_dates():
    stack = surface_reflectance(4, 1000, 3, (1, 8))
    got = kernels.geomad(stack, NODATA)
    for j in range(8):
        m = geometric_median(series_of(stack, 0, j))
        np.testing.assert_allclose(got.geomedian[:, 0, j], m, rtol=0, atol=0.05)


@pytest.mark.parametrize(
    ("stack", "nodata", "options", "error", "message"),
    [
        (np.zeros((3, 4, 5), np.int16), 0, {}, ValueError, "got 3 axes"),
        (np.zeros((3, 4, 1, 1), np.float64), 0, {}, TypeError, "float64"),
        (np.zeros((3, 4, 1, 1), ">i2"), 0, {}, TypeError, ">i2"),
        (np.zeros((17, 4, 1, 1), np.int16), 0, {}, ValueError, "16 bands"),
        (np.zeros((3, 4, 1, 1), np.int16), (0, 1), {}, ValueError, "2 nodata values for 3 bands"),
        (np.zeros((3, 4, 1, 1), np.int16), 0, {"scale": 0.0}, ValueError, "scale"),
        (np.zeros((3, 4, 1, 1), np.int16), 0, {"offset": "0"}, TypeError, "offset must be"),
        (np.zeros((3, 4, 1, 1), np.int16), "none", {}, TypeError, "no nodata 'none'"),
        (np.zeros((0, 4, 1, 1), np.int16), 0, {}, ValueError, "1 to 16 bands"),
    ],
)
def test_what_cannot_be_is_refused(impl, stack, nodata, options, error, message):
    with pytest.raises(error, match=message):
        impl.geomad(stack, nodata, **options)
