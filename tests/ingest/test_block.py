"""Blocks of a tile: against GDAL scene by scene, and against each other."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyproj
import pytest
import rasterio
import scipy.ndimage
from affine import Affine
from rasterio.enums import Resampling
from rasterio.io import MemoryFile
from rasterio.vrt import WarpedVRT

from odc_stats_gpu.errors import Cancelled
from odc_stats_gpu.ingest import _reader as reader_module
from odc_stats_gpu.ingest import load_block, on_first_read, plan_tile
from odc_stats_gpu.model import Block, NativeBand, as_stack

SHAPE = (230, 240)
TILE = (210, 220)
T0 = Affine(30, 0, 498000, 0, -30, 6_002_000)


def moved(cols, rows):
    return T0 * Affine.translation(cols, rows)


def elsewhere(crs, pixels=30):
    """A grid in a neighbouring zone over about the same ground."""
    x, y = pyproj.Transformer.from_crs(32755, crs, always_xy=True).transform(T0.c, T0.f)
    return Affine(30, 0, round(x / 30) * 30 - 30 * pixels, 0, -30, round(y / 30) * 30 + 30 * pixels)


def bands(kit, seed, shape=SHAPE):
    """Two bands with gaps, and a mask with clouds."""
    rng = np.random.default_rng(seed)
    mask = np.ones(shape, "uint8")
    for _ in range(9):
        y, x = rng.integers(0, shape[0]), rng.integers(0, shape[1])
        mask[y : y + 9, x : x + 7] = 2
    out = {"red": kit.smooth(shape, seed), "nir": kit.smooth(shape, seed + 50), "mask": mask}
    for name in ("red", "nir"):
        out[name][rng.random(shape) < 0.02] = kit.NODATA
        out[name][:, : 10 * (seed % 4)] = kit.NODATA
    return out


@pytest.fixture
def pool():
    with ThreadPoolExecutor(2) as pool:
        yield pool


@pytest.fixture
def year(archive, kit):
    """Two days: one of two UTM zones and three scenes, two of them on one lattice."""
    turned = elsewhere(32754)
    return [
        archive.scene("2020-01-01T00:10:00", bands(kit, 1), transform=T0),
        archive.scene("2020-01-01T00:10:10", bands(kit, 2), transform=turned, crs="EPSG:32754"),
        archive.scene("2020-01-01T00:10:20", bands(kit, 3), transform=moved(40, 35)),
        archive.scene("2020-02-01T00:10:20", bands(kit, 4), transform=moved(0.5, -20)),
        archive.scene("2020-02-01T00:10:30", bands(kit, 5), transform=moved(11, 60)),
    ]


def exact(pixels, transform, crs, nodata, geobox, resampling):
    """GDAL's warp with an exact transform; `reproject` of rasterio 1.4 ignores `tolerance`."""
    kind = {"driver": "GTiff", "count": 1, "dtype": pixels.dtype, "nodata": nodata}
    with MemoryFile() as memory:
        with memory.open(
            height=pixels.shape[0], width=pixels.shape[1], transform=transform, crs=crs, **kind
        ) as file:
            file.write(pixels, 1)
        with (
            memory.open() as file,
            WarpedVRT(
                file, crs=str(geobox.crs), transform=geobox.affine, height=geobox.shape[0],
                width=geobox.shape[1], resampling=resampling, src_nodata=nodata, nodata=nodata,
                tolerance=1e-7, XSCALE=1, YSCALE=1,
            ) as warped,
        ):  # fmt: skip
            return warped.read(1)


def native(dataset, kit):
    """Masked bands of a scene, by SciPy."""
    with rasterio.open(dataset.measurements["mask"].uri) as src:
        cloud = src.read(1) == 2
    y, x = np.mgrid[-3:4, -3:4]
    bad = scipy.ndimage.binary_dilation(cloud, x * x + y * y <= 9)
    out = []
    for name in ("red", "nir"):
        with rasterio.open(dataset.measurements[name].uri) as src:
            out.append(np.where(bad, kit.NODATA, src.read(1)))
            transform, crs = src.transform, src.crs
    return np.stack(out).astype("int16"), transform, crs


def by_gdal(groups, geobox, kit, resampling):
    """Lists of scenes on one lattice: mosaic first, then GDAL's exact warp, then first valid."""
    out = np.full((2, *geobox.shape), kit.NODATA, "int16")
    for group in groups:
        scenes = [native(d, kit) for d in group]
        _, first, crs = scenes[0]
        mosaic = np.full((2, 500, 500), kit.NODATA, "int16")
        origin = first * Affine.translation(-100, -100)
        for pixels, transform, _ in scenes:
            col, row = (round(v) for v in ~origin * (transform.c, transform.f))
            part = mosaic[:, row : row + SHAPE[0], col : col + SHAPE[1]]
            part[...] = np.where(part == kit.NODATA, pixels, part)
        warped = np.stack([exact(m, origin, crs, kit.NODATA, geobox, resampling) for m in mosaic])
        out = np.where(out == kit.NODATA, warped, out)
    return out


@pytest.mark.parametrize("resampling", ["nearest", "bilinear", "cubic", "average", "lanczos"])
def test_a_tile_over_two_zones_equals_gdal(year, kit, pool, resampling):
    geobox = kit.albers(shape=TILE, shift=110)
    plan = plan_tile(kit.make_task(year, geobox), kit.Plain(resampling=resampling))
    got = as_stack(load_block(plan, plan.whole, pool))
    a, b, c, d, e = year
    for index, groups in enumerate([[[a, c], [b]], [[d], [e]]]):
        expected = by_gdal(groups, geobox, kit, Resampling[resampling])
        assert 0.3 < (expected != kit.NODATA).mean() < 1
        valid = (got[:, index] != kit.NODATA) == (expected != kit.NODATA)
        assert valid.mean() > 0.9999
        both = (got[:, index] != kit.NODATA) & (expected != kit.NODATA)
        off = np.abs(got[:, index].astype(int) - expected)[both]
        assert (off <= (0 if resampling == "nearest" else 1)).mean() > 0.9999


@pytest.mark.parametrize(
    ("resampling", "threads"), [("bilinear", 1), ("cubic", 3), ("average", 2), ("lanczos", 3)]
)
def test_block_size_and_threads_leave_no_trace(year, kit, resampling, threads):
    task = kit.make_task(year, kit.albers(shape=TILE, shift=110))
    plugin = kit.Plain(resampling=resampling, filters=(("opening", 2), ("dilation", 3)))
    plan = plan_tile(task, plugin)
    with ThreadPoolExecutor(threads) as pool:
        whole = as_stack(load_block(plan, plan.whole, pool))
        for size in (37, 100) if resampling != "lanczos" else (90,):
            for y in range(0, TILE[0], size):
                for x in range(0, TILE[1], size):
                    block = Block(y, min(y + size, TILE[0]), x, min(x + size, TILE[1]))
                    part = as_stack(load_block(plan, block, pool))
                    np.testing.assert_array_equal(part, whole[(..., *block.slices)])


def test_the_order_of_datasets_leaves_no_trace(year, kit, pool):
    geobox = kit.albers(shape=(90, 80))
    plan = plan_tile(kit.make_task(year, geobox), kit.Plain())
    whole = as_stack(load_block(plan, plan.whole, pool))
    for seed in range(3):
        random.Random(seed).shuffle(year)
        again = plan_tile(kit.make_task(year, geobox), kit.Plain())
        assert list(again.times) == list(plan.times)
        np.testing.assert_array_equal(as_stack(load_block(again, again.whole, pool)), whole)


def flags_plugin(kit, resampling):
    import xarray as xr

    from odc_stats_gpu import kernels

    class Union(kit.Plain):
        def native_bands(self, products):
            return (NativeBand("valid", "bool", None), NativeBand("cloud", "bool", None))

        def native_transform(self, scene, product):
            mask = scene["mask"].data
            return xr.Dataset({"valid": (("y", "x"), mask != 0), "cloud": (("y", "x"), mask == 2)})

        def native_fuse(self, scenes):
            fused = self.fuse(scenes)
            fused["cloud"].data = kernels.clean_mask(fused["cloud"].data, [("dilation", 6)])
            return fused

        def fuse(self, scenes):
            return xr.Dataset(
                {n: (("y", "x"), kernels.any_true(v.data)) for n, v in scenes.data_vars.items()}
            )

    return Union(bands=("mask",), mask=None, resampling=resampling, margin=6)


@pytest.mark.parametrize("resampling", ["nearest", "bilinear", "cubic_spline"])
def test_boolean_planes_in_blocks(year, kit, pool, resampling):
    """Cleaning after the union, and edges of scenes that a block does or doesn't reach."""
    plan = plan_tile(
        kit.make_task(year, kit.albers(shape=TILE, shift=110)), flags_plugin(kit, resampling)
    )
    data = load_block(plan, plan.whole, pool)
    assert data["valid"].dtype == bool
    whole = as_stack(data)
    assert 0.2 < whole[0].mean() < 1
    assert 0.01 < whole[1].mean() < 0.5
    for size in (41, 64) if resampling != "cubic_spline" else (83,):
        for y in range(0, TILE[0], size):
            for x in range(0, TILE[1], size):
                block = Block(y, min(y + size, TILE[0]), x, min(x + size, TILE[1]))
                part = as_stack(load_block(plan, block, pool))
                np.testing.assert_array_equal(part, whole[(..., *block.slices)])


def test_boolean_planes_are_cut_at_one_half(archive, kit, pool):
    scene = {"mask": np.where(np.arange(60) % 7 < 3, 2, 1).astype("uint8") * np.ones((60, 1), "u1")}
    task = kit.make_task(
        [archive.scene("2020-01-01", scene, transform=T0, predictor=1)],
        kit.albers(shape=(40, 40), around=(498000 + 900, 6_002_000 - 900), shift=20),
    )
    plan = plan_tile(task, flags_plugin(kit, "bilinear"))
    got = load_block(plan, plan.whole, pool)["valid"].data[0]
    planned = plan.scenes[0]
    assert planned.spec.resampling == "bilinear"
    ones = np.ones((60, 60), "float32")
    out = exact(ones, T0, "EPSG:32755", None, task.geobox, Resampling.bilinear)
    assert (got == (out > 0.5)).mean() > 0.97  # only rims may differ: what lies outside is 0 here


def test_only_scenes_that_touch_a_block_are_opened(archive, kit, pool, monkeypatch):
    near = archive.scene("2020-01-01", bands(kit, 1), transform=T0)
    far = archive.scene("2020-01-02", bands(kit, 2), transform=moved(5000, 0))
    west = archive.scene("2020-01-03", bands(kit, 3), transform=moved(-170, 0))
    geobox = kit.albers(shape=TILE, shift=110)
    plan = plan_tile(kit.make_task([near, far, west], geobox), kit.Plain())
    assert [s.dataset.id for s in plan.scenes] == [near.id, west.id]
    opened = []
    plain = reader_module.BandReader.__init__
    monkeypatch.setattr(
        reader_module.BandReader,
        "__init__",
        lambda self, uri, *rest: (opened.append(uri), plain(self, uri, *rest))[1],
    )
    east = Block(0, 210, 160, 220)
    assert [s.dataset.id for s in plan.touching(east)] == [near.id]
    data = load_block(plan, east, pool)
    assert {u.split("/")[-1].split("_")[0] for u in opened} == {"s001"}
    assert data.sizes == {"time": 2, "y": 210, "x": 60}
    assert (data["red"].data[1] == kit.NODATA).all()


def test_a_footprint_spares_reading_empty_corners(archive, kit):
    size = 3000
    grid = Affine(30, 0, 498000 - 2800 * 30, 0, -30, 6_002_000 + 2800 * 30)
    left, top = grid.c, grid.f
    ring = [[left, top], [left + 60_000, top], [left, top - 60_000], [left, top]]
    tiny = {b: np.zeros((size, size), "int16") for b in ("red", "nir")}
    tiny["mask"] = np.ones((size, size), "uint8")
    kind = {"type": "Polygon", "coordinates": [ring]}
    degrees = {"type": "Polygon", "coordinates": [[[147, -36], [148, -36], [148, -35], [147, -36]]]}
    geobox = kit.albers(shape=TILE, shift=110)
    for geometry, kept in ((kind, 0), (degrees, 1), (None, 1), ({"type": "Nonsense"}, 1)):
        scene = archive.scene("2020-01-01", tiny, transform=grid, geometry=geometry)
        plan = plan_tile(kit.make_task([scene], geobox), kit.Plain())
        assert len(plan.scenes) == kept


def test_a_tile_without_scenes_is_one_empty_step(kit, pool):
    plan = plan_tile(kit.make_task([], kit.albers(shape=(20, 30))), kit.Plain())
    data = load_block(plan, plan.whole, pool)
    assert data.sizes == {"time": 1, "y": 20, "x": 30}
    assert (as_stack(data) == kit.NODATA).all()
    assert plan.describe()["datasets"] == 0


def test_bands_of_other_resolutions_come_onto_the_basis_grid(archive, kit, pool):
    """Nearest by pixel centre, whichever band is the basis; the file's edge may be ragged."""
    fine, coarse = kit.smooth((120, 121), 1), kit.smooth((60, 60), 2)
    mask = np.ones((60, 60), "uint8")
    mask[20:24, 30:40] = 2
    at = Affine(30, 0, 498000, 0, -30, 6_002_000)
    twice = Affine(60, 0, 498000, 0, -60, 6_002_000)
    scene = archive.scene(
        "2020-01-01",
        {"red": fine, "nir": coarse, "mask": mask},
        transform=at,
        transforms={"nir": twice, "mask": twice},
    )
    geobox = kit.albers(shape=(64, 64), around=(498000 + 1800, 6_002_000 - 1800), shift=60)
    for basis, transform, shape in (("red", at, (120, 121)), ("nir", twice, (60, 60))):
        plugin = kit.Plain(basis=basis, resampling="bilinear")
        plan = plan_tile(kit.make_task([scene], geobox), plugin)
        got = as_stack(load_block(plan, plan.whole, pool))[:, 0]
        rows, cols = np.mgrid[: shape[0], : shape[1]] + 0.5
        x, y = transform * (cols, rows)
        both = []
        for pixels, own in ((fine, at), (coarse, twice), (mask, twice)):
            c, r = (np.floor(v + 1e-6).astype(int) for v in ~own * (x, y))
            inside = (r < pixels.shape[0]) & (c < pixels.shape[1])
            clipped = pixels[np.minimum(r, pixels.shape[0] - 1), np.minimum(c, pixels.shape[1] - 1)]
            both.append(np.where(inside, clipped, kit.NODATA if pixels.dtype != "u1" else 0))
        yy, xx = np.mgrid[-3:4, -3:4]
        bad = scipy.ndimage.binary_dilation(both[2] == 2, xx * xx + yy * yy <= 9)
        for plane, values in zip(got, both[:2], strict=True):
            masked = np.where(bad, kit.NODATA, values).astype("int16")
            expected = exact(
                masked, transform, "EPSG:32755", kit.NODATA, geobox, Resampling.bilinear
            )
            assert (np.abs(plane.astype(int) - expected) <= 1).mean() > 0.9995
            assert (expected != kit.NODATA).mean() > 0.5


def test_bands_warped_from_their_own_grid(archive, kit, pool):
    """The mask is cleaned on the basis grid; the coarse band keeps its own pixels."""
    fine, coarse = kit.smooth((120, 120), 1), kit.smooth((60, 60), 2)
    mask = np.ones((120, 120), "uint8")
    mask[40:48, 60:80] = 2
    at = Affine(30, 0, 498000, 0, -30, 6_002_000)
    twice = Affine(60, 0, 498000, 0, -60, 6_002_000)
    scenes = [
        archive.scene(
            f"2020-01-01T00:00:0{i}",
            {"red": fine + i, "nir": coarse + i, "mask": mask},
            transform=at * Affine.translation(8 * i, 4 * i),
            transforms={"nir": twice * Affine.translation(4 * i, 2 * i)},
        )
        for i in range(2)
    ]
    geobox = kit.albers(shape=(64, 64), around=(498000 + 1800, 6_002_000 - 1800), shift=60)
    plugin = kit.Plain(native_bands="own", resampling="bilinear")
    plan = plan_tile(kit.make_task(scenes[:1], geobox), plugin)
    got = as_stack(load_block(plan, plan.whole, pool))[:, 0]
    yy, xx = np.mgrid[-3:4, -3:4]
    bad = scipy.ndimage.binary_dilation(mask == 2, xx * xx + yy * yy <= 9)
    for plane, pixels, hidden, transform in (
        (got[0], fine, bad, at), (got[1], coarse, bad[1::2, 1::2], twice),
    ):  # fmt: skip
        masked = np.where(hidden, kit.NODATA, pixels).astype("int16")
        expected = exact(masked, transform, "EPSG:32755", kit.NODATA, geobox, Resampling.bilinear)
        assert (np.abs(plane.astype(int) - expected) <= 1).mean() > 0.9995
    plan = plan_tile(kit.make_task(scenes, geobox), plugin)
    assert len(plan.slots) == len(plan.slots[0].groups) == 1
    whole = as_stack(load_block(plan, plan.whole, pool))
    for size in (5, 17, 40):
        for y in range(0, 64, size):
            for x in range(0, 64, size):
                block = Block(y, min(y + size, 64), x, min(x + size, 64))
                part = as_stack(load_block(plan, block, pool))
                np.testing.assert_array_equal(part, whole[(..., *block.slices)])


def test_cancelling_ends_the_block_and_its_threads(year, kit, pool):
    plan = plan_tile(kit.make_task(year, kit.albers()), kit.Plain())
    calls = []

    def check():
        calls.append(threading.current_thread())
        if len(calls) == 7:
            raise Cancelled("lost the lease")

    with pytest.raises(Cancelled, match="lost the lease"):
        load_block(plan, plan.whole, pool, check=check)
    count = len(calls)
    assert count < 60  # some 300 in all
    pool.submit(lambda: None).result()
    assert len(calls) == count


def test_the_first_read_is_announced_once(year, kit, pool):
    heard = []
    on_first_read(lambda: heard.append(1))
    plan = plan_tile(kit.make_task(year, kit.albers(shape=(64, 64))), kit.Plain())
    assert not heard
    load_block(plan, Block(0, 32, 0, 64), pool)
    load_block(plan, Block(32, 64, 0, 64), pool)
    assert heard == [1]


def test_memory_estimate_covers_what_reading_takes(year, kit, pool):
    """Native planes are the bulk: count them as they are allocated."""
    import tracemalloc

    plan = plan_tile(kit.make_task(year, kit.albers(shape=TILE, shift=110)), kit.Plain())
    load_block(plan, plan.whole, pool)
    tracemalloc.start()
    kept = load_block(plan, plan.whole, pool)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    shape = plan.whole.shape
    assert plan.stack_bytes(shape) == as_stack(kept).nbytes
    assert peak < plan.stack_bytes(shape) + plan.transient_bytes(shape, 2)
