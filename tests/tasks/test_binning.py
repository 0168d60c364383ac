"""Which tile and which period a scene goes to, against brute force over all tiles."""

import math
import random
from datetime import datetime, timedelta

import numpy as np
import pyproj
import pytest
import shapely

from odc_stats_gpu.model import Dataset, TileIndex
from odc_stats_gpu.tasks import Eo3Source, TaskDb, parse_grid, save_tasks
from odc_stats_gpu.tasks._footprints import Tiler
from odc_stats_gpu.tasks._solar import offset_hours, utc_offset


def _dataset(crs, corners=None, x=0.0, y=0.0, size=100_000.0):
    pixel = size / 100
    doc = {
        "id": "00000000-0000-0000-0000-000000000001",
        "product": {"name": "p"},
        "crs": crs,
        "grids": {"default": {"shape": [100, 100], "transform": [pixel, 0, x, 0, -pixel, y]}},
        "properties": {"datetime": "2019-01-01T00:00:00Z"},
        "measurements": {},
    }
    if corners is not None:
        doc["geometry"] = {"type": "Polygon", "coordinates": [[*corners, corners[0]]]}
    return Dataset.from_doc(doc, "file:///x.odc-metadata.yaml")


def _brute_force(grid, crs, outline, xs, ys):
    """Every tile of the ranges whose box meets the outline, reprojected finely."""
    spec = grid.spec
    to = pyproj.Transformer.from_crs(crs, str(spec.crs), always_xy=True)
    dense = shapely.segmentize(outline, outline.length / 500)
    xy = shapely.get_coordinates(dense)
    polygon = shapely.Polygon(np.column_stack(to.transform(xy[:, 0], xy[:, 1])))
    shapely.prepare(polygon)
    found, close = set(), set()
    for ix in xs:
        for iy in ys:
            left, bottom = (
                spec.origin.x + ix * spec.tile_size.x,
                spec.origin.y + iy * spec.tile_size.y,
            )
            box = shapely.box(left, bottom, left + spec.tile_size.x, bottom + spec.tile_size.y)
            if shapely.intersects(polygon, box):
                found.add((ix, iy))
            # Slivers of metres depend on how finely edges are bent: either answer is right.
            if shapely.intersects(polygon, box.buffer(30)) != shapely.intersects(
                polygon, box.buffer(-30)
            ):
                close.add((ix, iy))
    return found, close


@pytest.mark.parametrize("name", ["au-30", "au_extended_s2_20", "albers_au_25"])
def test_tiles_are_those_that_the_footprint_meets(name):
    grid = parse_grid(name)
    spec = grid.spec
    rng = random.Random(name)
    for _ in range(6):
        zone = rng.choice([32752, 32755, 28354])
        x, y = rng.uniform(3e5, 7e5), rng.uniform(6.0e6, 8.2e6)
        w, h, slant = rng.uniform(2e4, 2e5), rng.uniform(2e4, 2e5), rng.uniform(-4e4, 4e4)
        corners = [(x, y), (x + w, y - slant), (x + w - slant, y - h), (x - slant, y - h + slant)]
        outline = shapely.Polygon(corners)
        if not outline.is_valid:
            continue
        to = pyproj.Transformer.from_crs(zone, str(spec.crs), always_xy=True)
        cx, cy = to.transform(outline.centroid.x, outline.centroid.y)
        span = math.ceil(3e5 / spec.tile_size.x) + 1
        ix, iy = (
            math.floor((cx - spec.origin.x) / spec.tile_size.x),
            math.floor((cy - spec.origin.y) / spec.tile_size.y),
        )
        want, close = _brute_force(
            grid, zone, outline, range(ix - span, ix + span + 1), range(iy - span, iy + span + 1)
        )
        got = set(Tiler(grid).tiles(_dataset(f"epsg:{zone}", corners)))
        assert got - close == want - close
        assert got


def test_touching_an_edge_inside_the_bounding_box_counts():
    """A triangle's corner on the common corner of four tiles reaches all that its box covers."""
    grid = parse_grid("epsg:3857;30;100")
    tile = 3000.0
    corners = [
        (0.0, tile),
        (tile, 0.0),
        (2 * tile - 1, 2 * tile - 1),
    ]  # its edge passes through (0, tile)..(tile, 0)
    got = Tiler(grid).tiles(_dataset("epsg:3857", corners))
    assert got == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_a_scene_that_fills_a_tile_exactly_stays_in_it():
    grid = parse_grid("epsg:3857;30;100")
    assert Tiler(grid).tiles(_dataset("epsg:3857", x=3000.0, y=6000.0, size=3000.0)) == [(1, 1)]


def test_without_geometry_the_union_of_all_grids_counts():
    ds = _dataset("epsg:3857", x=100.0, y=2900.0, size=1000.0)
    doc = {
        "id": str(ds.id),
        "product": {"name": "p"},
        "crs": "epsg:3857",
        "measurements": {},
        "properties": {"datetime": "2019-01-01T00:00:00Z"},
        "grids": {
            "default": {"shape": [10, 10], "transform": [30, 0, 100, 0, -30, 2900]},
            "far": {"shape": [10, 10], "transform": [30, 0, 9100, 0, -30, 2900]},
        },
    }
    got = Tiler(parse_grid("epsg:3857;30;100")).tiles(Dataset.from_doc(doc, "x"))
    assert got == [(0, 0), (3, 0)]


@pytest.mark.parametrize(("zone", "x"), [(32601, 300_000.0), (32660, 700_000.0)])
def test_a_scene_over_the_antimeridian_reaches_both_ends_of_the_world_only(zone, x):
    """UTM zones 1 and 60 at 15 N: 200 km centred on 180 degrees."""
    grid = parse_grid("global-30")
    to = pyproj.Transformer.from_crs(4326, zone, always_xy=True)
    cx, cy = to.transform(180.0, 15.0)
    half = 100_000.0
    corners = [
        (cx - half, cy + half),
        (cx + half, cy + half),
        (cx + half, cy - half),
        (cx - half, cy - half),
    ]
    tiles = Tiler(grid).tiles(_dataset(f"epsg:{zone}", corners))
    columns = {ix for ix, _ in tiles}
    assert columns <= {0, 1, 2, 360, 361, 362}
    assert min(columns) <= 1
    assert max(columns) >= 360
    assert {0, 1} & columns


@pytest.mark.parametrize("grid", ["global-30", "epsg:4326;0.001;1000"])
def test_longitudes_beyond_180_come_back_on_the_other_side(grid):
    corners = [(179.2, 10.8), (180.8, 10.8), (180.8, 10.2), (179.2, 10.2)]
    got = {x for x, _ in Tiler(parse_grid(grid)).tiles(_dataset("epsg:4326", corners))}
    assert got == ({0, 361} if grid == "global-30" else {-180, 179})


def test_a_mosaic_of_the_world_reaches_all_of_it():
    corners = [(-180.0, 60.0), (180.0, 60.0), (180.0, -60.0), (-180.0, -60.0)]
    got = Tiler(parse_grid("epsg:4326;1;30")).tiles(_dataset("epsg:4326", corners))
    assert got == [(x, y) for x in range(-6, 6) for y in range(-2, 2)]


def test_a_footprint_that_crosses_itself_is_mended():
    bow = [(100.0, 100.0), (2900.0, 2900.0), (2900.0, 100.0), (100.0, 2900.0)]
    assert Tiler(parse_grid("epsg:3857;30;100")).tiles(_dataset("epsg:3857", bow)) == [(0, 0)]


@pytest.mark.parametrize(
    ("longitude", "hours"),
    [
        (150, 10),
        (148, 10),
        (0, 0),
        (7.4, 0),
        (7.5, 1),
        (-7.4, 0),
        (-7.6, -1),
        (-60, -4),
        (-67.4, -4),
        (-67.6, -5),
        (-179, -12),
        (179, 12),
        (172.4, 11),
        (-172.4, -11),
    ],
)
def test_local_time_is_rounded_alike_on_both_sides_of_greenwich(longitude, hours):
    assert offset_hours(longitude) == hours


def test_the_offset_is_that_of_the_tiles_centre():
    assert utc_offset(parse_grid("au-30"), (41, 13)) == timedelta(hours=10)
    grid = parse_grid("epsg:4326;0.001;1000")  # one degree per tile
    for lon in range(-180, 180, 3):
        assert utc_offset(grid, (lon, 10)) == timedelta(hours=math.floor((lon + 0.5) / 15 + 0.5))


@pytest.mark.parametrize("lon", [-150, -75, -7, 7, 75, 150])
def test_year_ends_follow_local_time(archive, tmp_path, lon):
    """Scenes every half hour around New Year: each in the year of its tile's solar time."""
    archive.product()
    start = datetime(2015, 12, 31, 6, 15)
    times = {}
    for n in range(72):
        when = start + timedelta(minutes=30 * n)
        uuid = archive.scene(when, crs="epsg:4326", x=lon + 0.25, y=10.75, size=10, pixel=0.05)
        times[uuid] = when
    hours = math.floor((lon + 0.5) / 15 + 0.5)
    for text in (None, "2016--P1Y"):
        save_tasks(
            Eo3Source(archive.root),
            grid="epsg:4326;0.001;1000",
            temporal_range=text,
            output=tmp_path / f"{text}.db",
        )
        with TaskDb.open(tmp_path / f"{text}.db") as db:
            got = {ix: {ds.id for ds in db._datasets(ix)} for ix in db.indexes()}
        years = (2015, 2016) if text is None else (2016,)
        assert got == {
            TileIndex(f"{year}--P1Y", lon, 10): {
                uuid for uuid, when in times.items() if (when + timedelta(hours=hours)).year == year
            }
            for year in years
        }
