"""Only the tiles inside an area of interest are published."""

from __future__ import annotations

import pytest
import shapely
from pyproj import Transformer
from shapely.geometry import mapping

from odc_stats_gpu.errors import ConfigError
from odc_stats_gpu.model import TileIndex
from odc_stats_gpu.queue import within
from odc_stats_gpu.tasks import parse_grid

GRID = parse_grid("au-30")
TILES = [TileIndex("2019--P1Y", x, y) for x in range(38, 44) for y in range(11, 16)]


def box(tile, crs, shrink):
    square = GRID.geobox(tile).extent.geom.buffer(-shrink, join_style="mitre")
    project = Transformer.from_crs("EPSG:3577", crs, always_xy=True).transform
    return mapping(shapely.transform(square, project, interleaved=False))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda g: g,
        lambda g: {"type": "Feature", "geometry": g, "properties": {}},
        lambda g: {"type": "FeatureCollection", "features": [{"type": "Feature", "geometry": g}]},
        lambda g: {"type": "GeometryCollection", "geometries": [g]},
        lambda g: {
            "type": "Feature",
            "geometry": {"type": "GeometryCollection", "geometries": [g]},
        },
        lambda g: {**g, "crs": None},
        lambda g: {**g, "crs": {"properties": {"name": "urn:ogc:def:crs:OGC:1.3:CRS84"}}},
        lambda g: {
            "type": "Point",
            "coordinates": list(shapely.geometry.shape(g).centroid.coords[0]),
        },
    ],
)
def test_longitude_latitude_selects_the_tile_on_any_grid(wrap):
    assert within(TILES, GRID, wrap(box((41, 13), "EPSG:4326", 1000))) == [
        TileIndex("2019--P1Y", 41, 13)
    ]


def test_the_old_crs_member_is_honoured():
    area = {"type": "Feature", "geometry": box((41, 13), "EPSG:3577", 1)}
    area["crs"] = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::3577"}}
    assert within(TILES, GRID, area) == [TileIndex("2019--P1Y", 41, 13)]


def test_every_feature_counts():
    boxes = [box(tile, "EPSG:4326", 1000) for tile in [(39, 12), (42, 14)]]
    features = [{"type": "Feature", "geometry": b} for b in boxes]
    got = within(TILES, GRID, {"type": "FeatureCollection", "features": features})
    assert got == [TileIndex("2019--P1Y", 39, 12), TileIndex("2019--P1Y", 42, 14)]


@pytest.mark.parametrize("area", [{}, {"type": "FeatureCollection", "features": []}, {"type": "x"}])
def test_no_area_is_an_error_not_everything(area):
    with pytest.raises(ConfigError, match=r"a\.geojson"):
        within(TILES, GRID, area, "a.geojson")


def rectangle(west, south, east, north):
    return [[west, south], [east, south], [east, north], [west, north], [west, south]]


FIJI = [
    {"type": "Polygon", "coordinates": [rectangle(177, -19, 183, -16)]},
    {"type": "Polygon", "coordinates": [rectangle(-183, -19, -177, -16)]},
    {"type": "MultiPolygon",
     "coordinates": [[rectangle(177, -19, 180, -16)], [rectangle(-180, -19, -177, -16)]]},
    {"type": "Polygon", "coordinates": [rectangle(177, -19, -177, -16)]},
]  # fmt: skip


@pytest.mark.parametrize("area", FIJI, ids=["beyond 180", "beyond -180", "cut", "jump"])
@pytest.mark.parametrize("spec", ["epsg:3832;100;1000", "global-30", "epsg:4326;0.001;1000"])
def test_an_area_across_the_antimeridian_is_the_same_however_it_is_written(area, spec):
    grid = parse_grid(spec)
    project = Transformer.from_crs("EPSG:4326", str(grid.spec.crs), always_xy=True).transform
    inside = [(178, -17.5), (179.95, -17.5), (-179.95, -17.5), (-178, -17.5)]
    outside = [(175, -17.5), (-175, -17.5), (0, -17.5), (178, 17.5), (100, -17.5)]

    wanted = [tile_at(grid, *project(*p)) for p in inside]
    others = [tile_at(grid, *project(*p)) for p in outside]
    assert within(wanted + others, grid, area) == wanted


def tile_at(grid, x, y):
    found = grid.spec.pt2idx(x, y)
    return TileIndex("2019--P1Y", found.x, found.y)


def test_a_box_around_the_world_holds_everything():
    area = {"type": "Polygon", "coordinates": [rectangle(-180, -90, 180, 90)]}
    assert within(TILES, GRID, area) == TILES
    most = {"type": "Polygon", "coordinates": [rectangle(-170, -80, 170, 80)]}
    assert within(TILES, GRID, most) == TILES


def test_a_tile_that_holds_a_pole_is_found_from_every_side():
    grid = parse_grid("epsg:3031;1000;1000")  # tiles of 1000 km around the South Pole
    middle = tile_at(grid, 1000.0, 1000.0)
    far = tile_at(grid, 2_500_000.0, 2_500_000.0)
    area = {"type": "Polygon", "coordinates": [rectangle(0, -89.9, 90, -89)]}
    assert middle in within([middle, far], grid, area)
    assert far not in within([middle, far], grid, area)


def test_an_area_in_another_zone_selects_nothing_here():
    area = {"type": "Polygon", "coordinates": [rectangle(4e5, 5e6, 5e5, 51e5)]}
    area["crs"] = {"type": "name", "properties": {"name": "EPSG:32633"}}
    assert within(TILES, GRID, area) == []


def test_holes_and_crossed_rings_are_read():
    square = box((41, 13), "EPSG:4326", -300_000)["coordinates"][0]
    hole = box((41, 13), "EPSG:4326", -1000)["coordinates"][0]
    got = within(TILES, GRID, {"type": "Polygon", "coordinates": [square, hole]})
    assert TileIndex("2019--P1Y", 41, 13) not in got
    assert TileIndex("2019--P1Y", 40, 13) in got
    bow = {"type": "Polygon", "coordinates": [[[130, -30], [140, -20], [140, -30], [130, -20]]]}
    bow["coordinates"][0].append(bow["coordinates"][0][0])
    assert isinstance(within(TILES, GRID, bow), list)
