"""The oracle: NumPy float64, pixel by pixel, exact to about 1e-9 of the spread, slow."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from odc_stats_gpu.kernels.geomedian._check import checked_nodata
from odc_stats_gpu.kernels.geomedian._face import Geomad, Nodata

Matrix = NDArray[np.float64]


def geomad(
    stack: NDArray[np.generic],
    nodata: Nodata,
    *,
    scale: float = 1e-4,
    offset: float = -1e-4,
) -> Geomad:
    """Return what `kernels.geomad` returns, in float64 (the count is uint16)."""
    missing = checked_nodata(stack, nodata, scale, offset)
    x = stack.astype(np.float64)
    # a float32 band's missing value is the float32 number nearest to the one given
    gaps = np.array(missing, stack.dtype if stack.dtype.kind == "f" else np.float64)
    valid = np.all(np.isfinite(x) & (x != gaps[:, None, None, None]), axis=0)
    bands, _, height, width = stack.shape
    out = Geomad(
        np.full((bands, height, width), np.nan),
        np.full((height, width), np.nan),
        np.full((height, width), np.nan),
        np.full((height, width), np.nan),
        valid.sum(axis=0).astype(np.uint16),
    )
    for i, j in np.argwhere(out.count):
        samples = x[:, valid[:, i, j], i, j].T
        m = geometric_median(samples)
        out.geomedian[:, i, j] = m
        out.emad[i, j] = np.median(np.linalg.norm(samples - m, axis=1))
        out.smad[i, j] = cosine_mad(samples * scale + offset, m * scale + offset)
        out.bcmad[i, j] = bray_curtis_mad(samples * scale + offset, m * scale + offset)
    return out


def objective(samples: Matrix, y: Matrix) -> float:
    """Return the sum of distances from `y` (p,) to the samples (n, p)."""
    return float(np.linalg.norm(samples - y, axis=1).sum())


def geometric_median(samples: Matrix) -> Matrix:
    """Return the minimiser of the sum of distances to samples (n, p), n >= 1.

    A sample is optimal iff the unit vectors towards the others add up to no more than its
    multiplicity (Vardi and Zhang 2000). Where several are, all points between them are: the mean
    is returned, which is the midpoint for two observations and the ordinary median for one band.
    """
    points, copies = np.unique(samples, axis=0, return_counts=True)
    optimal = []
    for point, eta in zip(points, copies, strict=True):
        pull = _pull(points, copies, point)
        if np.linalg.norm(pull) <= eta * (1 + 1e-12):
            optimal.append(point)
    if optimal:
        return np.mean(optimal, axis=0)
    return _interior_median(points, copies.astype(np.float64))


def cosine_mad(x: Matrix, m: Matrix) -> float:
    """Return the median cosine distance of samples (n, p) to m (p,), free of cancellation."""
    mm = m @ m
    xx = np.sum(x * x, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        d = x - m
        t = d @ m / mm
        r = d - t[:, None] * m
        sin2 = np.sum(r * r, axis=1) / xx
        cos = mm * (1 + t) / np.sqrt(xx * mm)
        distance = np.where(cos > 0, sin2 / (1 + cos), 1 - cos)
    return _median(distance)


def bray_curtis_mad(x: Matrix, m: Matrix) -> float:
    """Return the median of sum|x - m| / sum|x + m| over samples (n, p); infinite at x = -m."""
    with np.errstate(divide="ignore", invalid="ignore"):
        distance = np.sum(np.abs(x - m), axis=1) / np.sum(np.abs(x + m), axis=1)
    return _median(distance)


def _median(distance: Matrix) -> float:
    """Median of what is a number; NaN if nothing is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return float(np.nanmedian(distance))


def _pull(points: Matrix, copies: NDArray[Any], y: Matrix) -> Matrix:
    """Sum of unit vectors from y towards the points that are elsewhere."""
    e = points - y
    d = np.linalg.norm(e, axis=1)
    away = d > 0
    total: Matrix = np.sum(e[away] * (copies[away] / d[away])[:, None], axis=0)
    return total


def _interior_median(points: Matrix, copies: Matrix) -> Matrix:
    """Damped Newton from below every sample's objective, so that no sample is ever met."""

    def f(y: Matrix) -> float:
        return float(copies @ np.linalg.norm(points - y, axis=1))

    y = points[np.argmin([f(point) for point in points])]
    y = min((_leave(points, copies, y, f), copies @ points / copies.sum()), key=f)
    for _ in range(200):
        e = points - y
        d = np.linalg.norm(e, axis=1)
        w = copies / d
        g = e.T @ w
        hessian = w.sum() * np.eye(len(y)) - (e * (w / d**2)[:, None]).T @ e
        step = np.linalg.solve(hessian + 1e-15 * w.sum() * np.eye(len(y)), g)
        t = 1.0
        while f(y + t * step) > f(y) * (1 + 1e-15) and t > 1e-12:
            t /= 2
        y = y + t * step
        if t * np.linalg.norm(step) <= 1e-10 * (1 / w.sum() + 1e-6 * np.abs(y).max()):
            break
    return y


def _leave(points: Matrix, copies: Matrix, y: Matrix, f: Callable[[Matrix], float]) -> Matrix:
    """Step downhill from a sample that is not optimal."""
    e = points - y
    d = np.linalg.norm(e, axis=1)
    pull = _pull(points, copies, y)
    t = 1 / np.sum(copies[d > 0] / d[d > 0])
    while f(y + t * pull) >= f(y) and t > 1e-300:
        t /= 2
    return y + t * pull
