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
