"""Series of dates as pixels see them, and the awkward ones: what the geomedian's tests share."""

from __future__ import annotations

import numpy as np

NODATA = -999


def surface_reflectance(seed, dates, bands, shape, masked=0.45):
    """An int16 (band, time, y, x) stack: seasons, haze, clouds, shadows, saturation, gaps."""
    rng = np.random.default_rng(seed)
    spectrum = rng.uniform(200, 3500, (bands, 1, *shape))
    season = np.sin(2 * np.pi * rng.random((1, dates, *shape)))
    season = season * rng.uniform(0, 0.3, (bands, 1, *shape))
    x = spectrum * (1 + season) + rng.normal(0, 60, (bands, dates, *shape))
    x *= 1 + rng.normal(0, 0.05, (1, dates, *shape))
    weather = rng.random((dates, *shape))
    x[:, weather < 0.08] += rng.uniform(1500, 6000, np.count_nonzero(weather < 0.08))
    x[:, weather > 0.95] *= 0.4
    x[:, (weather > 0.08) & (weather < 0.085)] = 20000
    stack = np.clip(np.rint(x), -100, 20000).astype(np.int16)
    stack[:, rng.random((dates, *shape)) < masked] = NODATA
    return stack


def as_pixels(series, nodata=NODATA):
    """Stack series of (n, band) observations as one row of pixels, missing dates at the end."""
    dates = max(len(s) for s in series)
    bands = np.shape(series[0])[1]
    stack = np.full((bands, dates, 1, len(series)), nodata, np.int16)
    for j, s in enumerate(series):
        stack[:, : len(s), 0, j] = np.asarray(s).T
    return stack


def awkward(kind, seed, bands=6):
    """One series of the kind: (n, band) integers, n >= 3, the geomedian unique unless said."""
    rng = np.random.default_rng([seed, *kind.encode()])
    centre = rng.integers(300, 4000, bands)

    def cloud(n, spread=150):
        return centre + np.rint(rng.normal(0, spread, (n, bands))).astype(int)

    line = np.rint(rng.normal(0, 40, bands)).astype(int)
    match kind:
        case "three":
            x = cloud(3)
        case "four":
            x = cloud(4)
        case "all identical":
            x = np.repeat(cloud(1), rng.integers(3, 30), axis=0)
        case "majority of one":
            n = int(rng.integers(3, 20))
            x = np.concatenate([np.repeat(cloud(1), n, axis=0), cloud(n - 1, 600)])
        case "quarter of one":
            x = np.concatenate([np.repeat(cloud(1), 5, axis=0), cloud(15)])
        case "pairs":
            x = np.repeat(cloud(int(rng.integers(3, 12))), 2, axis=0)
        case "mean is a sample":
            half = cloud(6) - centre
            x = np.concatenate([centre + half, centre - half, centre[None]])
        case "collinear odd":
            x = centre + rng.permutation(np.arange(-7, 8))[:, None] * line
        case "near a line":
            x = centre + rng.integers(-9, 10, 21)[:, None] * line + rng.integers(-1, 2, (21, bands))
        case "one far outlier":
            x = np.concatenate([cloud(12, 20), np.full((1, bands), 30000)])
        case "saturated pair":
            x = np.concatenate([cloud(2), 20000 - rng.integers(0, 2, (2, bands))])
        case "cloudy":
            x = np.concatenate([cloud(22, 80), cloud(18, 400) + 5000])
        case "two clusters":
            x = np.concatenate([cloud(11, 60), cloud(13, 60) + 4000])
        case "negative":
            x = np.rint(rng.normal(-60, 20, (15, bands))).astype(int)
        case "one DN apart":
            x = centre + rng.integers(-1, 2, (17, bands))
        case "many":
            x = cloud(300)
        case _:
            raise ValueError(kind)
    return rng.permutation(x)


AWKWARD = (
    "three",
    "four",
    "all identical",
    "majority of one",
    "quarter of one",
    "pairs",
    "mean is a sample",
    "collinear odd",
    "near a line",
    "one far outlier",
    "saturated pair",
    "cloudy",
    "two clusters",
    "negative",
    "one DN apart",
    "many",
)
