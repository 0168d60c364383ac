"""Geomedian and MADs judged as the contract says: against the CPU, and float64 pixel by pixel."""

from __future__ import annotations

import numpy as np

from odc_stats_gpu import kernels
from odc_stats_gpu.kernels.geomedian.reference import (
    bray_curtis_mad,
    cosine_mad,
    geometric_median,
    objective,
)


def series_of(stack, nodata, i, j):
    """Valid observations of a pixel, float64 (n, band)."""
    x = stack[:, :, i, j].T.astype(np.float64)
    return x[np.all((x != nodata) & np.isfinite(x), axis=1)]


def condition(x, m):
    """Least curvature of the sum of distances at m, in sums of 1/distance; 1 at a sample."""
    e = x - m
    d = np.linalg.norm(e, axis=1)
    if d.min() < 1e-6:
        return 1.0
    hessian = (1 / d).sum() * np.eye(len(m)) - (e / d[:, None] ** 3).T @ e
    return np.linalg.eigvalsh(hessian)[0] / (1 / d).sum()


def check_geomad(got, stack, nodata, *, looked_at=60, cpu=True, scale=1e-4, offset=-1e-4):
    """Fail where a result (NumPy arrays) of a stack breaks the contract.

    All pixels: counts, missing pixels, and against the CPU (if `cpu`, which compiles once for each
    number of bands) 0.2 DN where it is well determined, and MADs. `looked_at` of them against
    float64: 0.1 DN of the minimiser, and MADs given the geomedian.
    """
    dn = 1e-4 / scale if stack.dtype.kind == "f" else 1.0
    valid = ((stack != nodata) & np.isfinite(stack)).all(axis=0)
    np.testing.assert_array_equal(got.count, valid.sum(axis=0))
    empty = got.count == 0
    np.testing.assert_array_equal(np.isnan(got.geomedian).all(axis=0), empty)
    assert not np.isnan(got.geomedian[:, ~empty]).any()
    assert all(np.isnan(a[empty]).all() for a in got[1:4])
    if cpu:
        want = kernels.geomad(stack, nodata, scale=scale, offset=offset)
        _check_against(want, got, stack, nodata, empty, dn)
    some = np.argwhere(~empty)
    for i, j in some[:: max(1, len(some) // max(1, looked_at))] if looked_at else ():
        _check_pixel(got, series_of(stack, nodata, i, j), i, j, dn, scale, offset)


def _check_against(want, got, stack, nodata, empty, dn):
    far = (np.abs(got.geomedian - want.geomedian) > 0.2 * dn).any(axis=0)
    assert far.mean() <= 2e-3, f"{far.sum()} of {far.size} pixels differ from the CPU's"
    for i, j in np.argwhere(far):  # nearly flat: then the sum of distances is what counts
        x = series_of(stack, nodata, i, j)
        mine, cpu = (objective(x, a.geomedian[:, i, j].astype(np.float64)) for a in (got, want))
        assert mine <= cpu * (1 + 1e-6) + 1e-3 * dn, f"pixel {i}, {j}: {mine} > {cpu}"
    fine = ~far & ~empty
    for field, atol in (("smad", 1e-7), ("emad", 2e-2 * dn), ("bcmad", 1e-6)):
        a, b = getattr(got, field), getattr(want, field)
        rtol = 1e-2 if field == "smad" else 1e-3
        np.testing.assert_allclose(a[fine], b[fine], rtol=rtol, atol=atol, err_msg=field)


def _check_pixel(got, x, i, j, dn, scale, offset):
    y = got.geomedian[:, i, j].astype(np.float64)
    m = geometric_median(x)
    if np.any(np.all(x == m, axis=1)):
        np.testing.assert_allclose(y, m, rtol=1e-7, atol=0)  # a sample, exactly
    elif len(x) > 2 and x.shape[1] > 1 and condition(x, m) > 1e-2:
        np.testing.assert_allclose(y, m, rtol=0, atol=0.1 * dn)
    assert objective(x, y) <= objective(x, m) * (1 + 1e-6) + 1e-3 * dn
    X, M = x * scale + offset, y * scale + offset
    emad = np.median(np.linalg.norm(x - y, axis=1))
    for field, exact, atol in (
        ("smad", cosine_mad(X, M), 1e-9),
        ("emad", emad, 1e-3 * dn),
        ("bcmad", bray_curtis_mad(X, M), 1e-8),
    ):
        np.testing.assert_allclose(getattr(got, field)[i, j], exact, rtol=2e-5, atol=atol)
