"""The warp against GDAL's, with an exact transform and XSCALE = YSCALE = 1."""

from __future__ import annotations

from functools import cache

import numpy as np
import pyproj
import pytest
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.io import MemoryFile
from rasterio.vrt import WarpedVRT

from odc_stats_gpu.kernels import refine

N = 120
PLACE = (
    146.2,
    -35.0,
)  # between the central meridians of zones 54 and 55: grids are turned by 3 degrees


def grid(epsg, resolution, *, dx=0.0, dy=0.0):
    """A grid with PLACE in the middle of N x N pixels of 30 m, dx and dy pixels aside."""
    x, y = pyproj.Transformer.from_crs(4326, epsg, always_xy=True).transform(*PLACE)
    x, y = 30 * round(x / 30), 30 * round(y / 30)
    corner = Affine(resolution, 0, x - 15 * N, 0, -resolution, y + 15 * N)
    return CRS.from_epsg(epsg), corner * Affine.translation(dx, dy)


SOURCE = grid(32755, 30)
CASES = {
    "utm to albers": (SOURCE, grid(3577, 30), (N, N)),
    "utm to albers, finer": (SOURCE, grid(3577, 10, dx=90, dy=120), (N, N)),
    "utm to albers, coarser": (SOURCE, grid(3577, 75, dx=12, dy=12), (40, 40)),
    "zone to zone": (grid(32754, 30), grid(32755, 30, dx=0.3, dy=0.4), (N, N)),
    "turned": (
        (SOURCE[0], SOURCE[1] * Affine.rotation(17)),
        (SOURCE[0], SOURCE[1] * Affine.translation(20, 30)),
        (N, N),
    ),
    "same grid, moved": (SOURCE, grid(32755, 30, dx=-3, dy=4), (N, N)),
    "same grid, half a pixel off": (SOURCE, grid(32755, 30, dx=-3.5, dy=4.5), (N, N)),
    "same grid, twice as fine": (SOURCE, grid(32755, 15), (2 * N, 2 * N)),
    "same grid, 2.5 times as coarse": (SOURCE, grid(32755, 75, dx=0.1, dy=0.1), (46, 46)),
}


def exact(source, target):
    """The coordinate transform of a case, for `refine`."""
    (src_crs, src_transform), (dst_crs, dst_transform) = source, target
    back = ~src_transform
    if src_crs == dst_crs:
        both = back * dst_transform
        return lambda x, y: (
            both.a * x + both.b * y + both.c,
            both.d * x + both.e * y + both.f,
        )
    across = pyproj.Transformer.from_crs(dst_crs.to_wkt(), src_crs.to_wkt(), always_xy=True)

    def transform(x, y):
        u, v = across.transform(
            dst_transform.a * x + dst_transform.c, dst_transform.e * y + dst_transform.f
        )
        return back.a * u + back.b * v + back.c, back.d * u + back.e * v + back.f

    return transform


def gdal(src, nodata, source, target, shape, resampling):
    """GDAL's own. (`reproject` of rasterio 1.4 ignores `tolerance`, a WarpedVRT doesn't.)"""
    kind = {"driver": "GTiff", "height": N, "width": N, "count": 1, "dtype": src.dtype}
    with MemoryFile() as memory:
        with memory.open(crs=source[0], transform=source[1], nodata=nodata, **kind) as file:
            file.write(src, 1)
        with (
            memory.open() as file,
            WarpedVRT(
                file,
                crs=target[0],
                transform=target[1],
                height=shape[0],
                width=shape[1],
                resampling=Resampling[resampling],
                tolerance=1e-7,
                src_nodata=nodata,
                nodata=nodata,
                XSCALE=1,
                YSCALE=1,
            ) as warped,
        ):
            return warped.read(1)


def noise(dtype, nodata):
    """White noise with single pixels and a block missing: the hardest image there is."""
    rng = np.random.default_rng(0)
    high = {"uint8": 255, "int16": 4000, "uint16": 60000, "float32": 4000}[dtype]
    src = rng.integers(-40 if dtype == "int16" else 1, high, (N, N)).astype(dtype)
    src[rng.random(src.shape) < 0.06] = nodata
    src[40:60, 30:70] = nodata
    return src


def clear_cut(x, y, shape):
    """Points that a slight error can't give other taps: off the edges and centres of pixels."""
    clear = np.ones(shape, bool)
    for along in (x, y):
        clear &= np.abs(2 * along - np.round(2 * along)).reshape(shape) > 4e-4
    return clear


@cache
def by_gdal(case, resampling, dtype="int16", nodata=-999):
    source, target, shape = CASES[case]
    return gdal(noise(dtype, nodata), nodata, source, target, shape, resampling)


@cache
def lattice(case, step=32, tolerance=5e-5):
    source, target, shape = CASES[case]
    return refine(exact(source, target), shape, step, tolerance)


@pytest.mark.parametrize("resampling", ["nearest", "bilinear", "cubic"])
@pytest.mark.parametrize("case", CASES)
def test_equals_gdal_at_pixel_centres(impl, case, resampling):
    source, target, shape = CASES[case]
    transform = exact(source, target)
    src = noise("int16", -999)
    expected = by_gdal(case, resampling)
    found = impl.warp(src, -999, lattice(case), resampling)
    if source[0] == target[0]:
        # centres on the very edges of pixels included; at most the turning point differs
        assert (found != expected).sum() <= (case == "turned")
        return
    rows, cols = np.mgrid[: shape[0], : shape[1]] + 0.5
    sure = clear_cut(*transform(cols, rows), shape)
    assert sure.mean() > 0.99
    np.testing.assert_array_equal((found == -999)[sure], (expected == -999)[sure])
    assert np.abs(found.astype(int) - expected)[sure].max() <= (0 if resampling == "nearest" else 1)
    assert (found != expected).mean() < 0.04
    # with exact coordinates nothing but the rounding of ties is left
    fine = impl.warp(src, -999, lattice(case, step=1), resampling)
    assert (fine != expected).mean() < 1e-4


@pytest.mark.parametrize(
    ("dtype", "nodata"), [("uint8", 0), ("uint8", 255), ("uint16", 0), ("float32", np.nan)]
)
@pytest.mark.parametrize("resampling", ["bilinear", "cubic"])
def test_equals_gdal_in_other_types(impl, dtype, nodata, resampling):
    case = "same grid, half a pixel off"
    expected = by_gdal(case, resampling, dtype, nodata)
    found = impl.warp(noise(dtype, nodata), nodata, lattice(case), resampling)
    np.testing.assert_allclose(found, expected, rtol=1e-6 if dtype == "float32" else 0)


@pytest.mark.parametrize("case", [case for case in CASES if "fine" not in case])
def test_averages_as_gdal_does(impl, case):
    """Inside within 1, for GDAL rounds ties by chance.

    At the image's edge GDAL gives cut pixels too much weight and drops boxes that hang out by more
    than two pixels; we don't.
    """
    source, target, shape = CASES[case]
    transform = exact(source, target)
    src = noise("int16", -999)
    expected = by_gdal(case, "average")
    found = impl.warp(src, -999, lattice(case, tolerance=1e-6), "average")
    rows, cols = np.mgrid[: shape[0], : shape[1]]
    inside = np.ones(shape, bool)
    for corner in (0, 1):
        for along in transform(cols + corner, rows + corner):
            inside &= (along >= 0).reshape(shape) & (along <= N).reshape(shape)
    assert inside.sum() > 1000
    np.testing.assert_array_equal((found == -999)[inside], (expected == -999)[inside])
    assert np.abs(found.astype(int) - expected)[inside].max() <= 1
    assert (found != expected)[inside].mean() < 0.01
