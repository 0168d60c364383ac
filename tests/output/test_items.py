"""STAC items: what catalogues and readers find in them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from datetime import datetime
from uuid import UUID, uuid5

import numpy as np
import pytest
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox

from odc_stats_gpu.model import Dataset, Grid
from odc_stats_gpu.output import open_store
from odc_stats_gpu.output._footprint import footprint
from odc_stats_gpu.output._stac_rules import stac_problems


@pytest.fixture
def item(kit, tmp_path):
    sources = [UUID(int=7), UUID(int=3)]
    scenes = [
        Dataset(UUID(int=1), "ard", datetime(2015, 2, 3), "epsg:32655",
                {"default": Grid((10, 10), Affine.identity())}, {}, {}, sources=tuple(sources)),
        Dataset(UUID(int=2), "ard", datetime(2015, 3, 3), "epsg:32655", {}, {}, {}),
    ]  # fmt: skip
    task = replace(
        kit.task(maturity="final", properties={"eo:platform": "landsat-8"}), datasets=tuple(scenes)
    )
    store = open_store(str(tmp_path))
    cog = {"overrides": {"rgba": {"compress": "DEFLATE"}}}
    kit.write(store, task, kit.pixels((96, 80)), cog=cog).commit()
    doc = json.loads(store.read(task.path(".stac-item.json")))
    return task, store, doc


def test_the_id_follows_the_incumbents_recipe(item):
    _, _, doc = item
    lines = ["ga_gm", "3.0.0", "", "tile=(41, 13)", "time=2015--p1y",
             "00000000-0000-0000-0000-000000000002", "00000000-0000-0000-0000-000000000003",
             "00000000-0000-0000-0000-000000000007"]  # fmt: skip
    namespace = UUID("6f34c6f4-13d6-43c0-8e4e-42b6c13203af")
    assert doc["id"] == str(uuid5(namespace, "\n".join(lines)))
    inputs = doc["properties"]["odc:lineage"]["inputs"]
    assert sorted(inputs) == lines[5:]


def test_properties_that_catalogues_index(item):
    _, _, doc = item
    properties = doc["properties"]
    assert doc["type"] == "Feature"
    assert properties.pop("odc:lineage")
    assert properties.pop("odc:processing_datetime")[-1] == "Z"
    assert properties == {
        "title": "ga_gm_x41y13_2015--P1Y_final",
        "datetime": "2015-01-01T00:00:00Z",
        "dtr:start_datetime": "2015-01-01T00:00:00.000000Z",
        "dtr:end_datetime": "2015-12-31T23:59:59.999999Z",
        "start_datetime": "2015-01-01T00:00:00.000000Z",
        "end_datetime": "2015-12-31T23:59:59.999999Z",
        "eo:platform": "landsat-8",
        "odc:file_format": "GeoTIFF",
        "odc:product_family": "geomedian",
        "odc:producer": "ga.gov.au",
        "odc:product": "ga_gm",
        "odc:dataset_version": "3.0.0",
        "odc:region_code": "x41y13",
        "proj:code": "EPSG:3577",
        "proj:shape": [96, 80],
        "proj:transform": [30, 0, -1000000, 0, -30, -3000000, 0, 0, 1],
        "processing:software": {"odc-stats-gpu": "0.1.0"},
        "odc_stats:device": "cpu",
        "odc_stats:config_hash": "abc",
    }
    assert "collection" not in doc


def test_links_and_assets_lead_to_the_files(item):
    task, store, doc = item
    links = {link["rel"]: link["href"] for link in doc["links"]}
    assert links["self"] == store.uri(task.path(".stac-item.json"))
    assert links["product_overview"] == "https://collections.dea.ga.gov.au/product/ga_gm"
    assert list(doc["assets"]) == ["red", "green", "blue", "sdev", "count", "rgba", "thumbnail"]
    for asset in doc["assets"].values():
        data = store.read(f"{task.folder}/{asset['href']}")
        assert asset["file:size"] == len(data)
        assert asset["file:checksum"] == "1220" + hashlib.sha256(data).hexdigest()
    bands = {k: a["raster:bands"][0] for k, a in doc["assets"].items() if "raster:bands" in a}
    assert bands["red"] == {
        "data_type": "int16", "nodata": -999, "unit": "1", "spatial_resolution": 30
    }  # fmt: skip
    assert bands["sdev"]["nodata"] == "nan"
    assert "nodata" not in bands["count"]
    assert doc["assets"]["rgba"]["roles"] == ["visual"]
    assert doc["assets"]["thumbnail"]["roles"] == ["thumbnail"]


def test_it_is_valid_stac(item):
    _, _, doc = item
    assert list(stac_problems(doc)) == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_another_reader_loads_the_pixels_from_it(kit, item):
    import odc.stac
    import pystac

    task, store, _ = item
    path = store.uri(task.path(".stac-item.json")).removeprefix("file://")
    loaded = odc.stac.load([pystac.Item.from_file(path)], bands=["red", "sdev", "count"])
    wanted = kit.pixels((96, 80))
    assert loaded.odc.geobox == task.geobox
    for band in ("red", "sdev", "count"):
        np.testing.assert_array_equal(loaded[band].values[0], wanted[band].values)
        assert loaded[band].dtype == wanted[band].dtype
    assert loaded.red.nodata == -999


def test_bytes_are_compact_json_without_nan(item):
    task, store, doc = item
    data = store.read(task.path(".stac-item.json")).decode()
    assert data == json.dumps(doc, separators=(",", ":"))
    assert "NaN" not in data


def geobox(crs, x, y, size=1000, res=100):
    return GeoBox((size, size), Affine(res, 0, x, 0, -res, y), crs)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # odc-geo calls shapely the old way
def test_a_footprint_follows_the_curved_sides():
    box = geobox("EPSG:3577", 1_500_000, -4_000_000)
    geometry, bbox = footprint(box)
    shape = shapely.geometry.shape(geometry)
    exact = box.extent.to_crs("EPSG:4326", resolution=1000).geom
    assert shape.symmetric_difference(exact).area < exact.area * 1e-4
    np.testing.assert_allclose(bbox, exact.bounds, atol=1e-4)
    assert shape.exterior.is_ccw
    assert len(shape.exterior.coords) < 90


def test_a_tile_across_the_antimeridian_is_split_as_geojson_asks():
    geometry, bbox = footprint(geobox("EPSG:3832", 3_300_000, -1_000_000))  # 150 E + 30 = 180
    assert geometry["type"] == "MultiPolygon"
    west, south, east, north = bbox
    assert 179 < west <= 180
    assert -180 <= east < -179
    assert south < north
    lons = [p[0] for ring in geometry["coordinates"] for p in ring[0]]
    assert all(-180 <= lon <= 180 for lon in lons)
    assert {round(lon) for lon in lons} == {180, -180, 179, -179} or max(lons) == 180
    widths = [max(p[0] for p in r[0]) - min(p[0] for p in r[0]) for r in geometry["coordinates"]]
    assert max(widths) < 2


def test_a_tile_that_only_touches_the_antimeridian_stays_whole():
    for x in (180 - 1, -180):
        geometry, bbox = footprint(geobox("EPSG:4326", x, 10, 100, 0.01))
        assert geometry["type"] == "Polygon"
        assert bbox[2] - bbox[0] == pytest.approx(1)


def test_a_tile_over_a_pole_reaches_round_the_world():
    geometry, bbox = footprint(geobox("EPSG:3031", -50_000, 50_000))
    assert geometry["type"] == "Polygon"
    assert bbox[0::2] == [-180, 180]
    assert bbox[1] == -90
    assert -90 < bbox[3] < -89


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("id"), "id"),
        (lambda d: d["properties"].pop("datetime"), "datetime"),
        (lambda d: d.update(collection="x"), "collection"),
        (lambda d: d["properties"].update({"proj:code": "3577"}), "proj:code"),
        (lambda d: d["properties"].update({"proj:shape": [0, 1]}), "proj:shape"),
        (lambda d: d["properties"].update({"proj:transform": [1, 2]}), "proj:transform"),
        (lambda d: d["properties"].update({"datetime": "2015-01-01"}), "datetime"),
        (lambda d: d["assets"]["red"].update({"file:checksum": "abc"}), "multihash"),
        (lambda d: d["assets"]["red"].update({"file:size": -1}), "file:size"),
        (lambda d: d["assets"]["red"]["raster:bands"][0].update(nodata="none"), "nodata"),
        (lambda d: d["assets"]["red"]["raster:bands"][0].update(data_type="int17"), "data_type"),
        (lambda d: d["assets"]["red"].pop("href"), "href"),
        (lambda d: d.update(bbox=[1, 2]), "bbox"),
    ],
)
def test_broken_items_are_told_apart(item, change, message):
    _, _, doc = item
    change(doc)
    problems = list(stac_problems(doc))
    assert any(message in p for p in problems), problems
