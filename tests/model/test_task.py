"""Names, folders and ids of a tile: a fleet must be able to switch in mid-collection."""

from __future__ import annotations

from uuid import NAMESPACE_URL, UUID, uuid5

import pytest
from affine import Affine
from odc.geo.geobox import GeoBox

from odc_stats_gpu.errors import ConfigError, DataError
from odc_stats_gpu.model import (
    Dataset,
    OutputProduct,
    Task,
    TileIndex,
    TimeRange,
    parse_config,
    resolve,
)

PRODUCT = OutputProduct(name="ga_ls_gm", short_name="gm", version="3.0.0")


def document(name="a", **changes):
    doc = {
        "id": str(uuid5(NAMESPACE_URL, name)),
        "product": {"name": "ls"},
        "crs": "epsg:32655",
        "grids": {"default": {"shape": [10, 20], "transform": [30, 0, 5, 0, -30, 7, 0, 0, 1]}},
        "properties": {"datetime": "2015-03-04T00:10:00Z"},
        "measurements": {"red": {"path": "red.tif"}},
        "lineage": {},
    }
    return {**doc, **changes}


def task(tile=(6, 25), docs=(), product=PRODUCT):
    geobox = GeoBox((10, 10), Affine(30, 0, 0, 0, -30, 0), "EPSG:3577")
    datasets = tuple(Dataset.from_doc(d, "/data/s/x.odc-metadata.yaml") for d in docs)
    return Task(
        product=product, tile=tile, geobox=geobox, period=TimeRange.parse("2015--P1Y"),
        datasets=datasets, products={},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("tile", "folder"),
    [
        ((6, 25), "x06/y25/2015--P1Y"),
        ((100, 5), "x10/0y05/2015--P1Y"),
        ((-10, 4), "x-1/0y04/2015--P1Y"),
        ((170, 82), "x17/0y82/2015--P1Y"),
    ],
)
def test_the_region_code_is_cut_where_the_incumbent_cuts_it(tile, folder):
    assert task(tile).folder == folder


def test_file_names_carry_product_tile_period_and_maturity():
    assert task().path("_red.tif") == "x06/y25/2015--P1Y/gm_x06y25_2015--P1Y_red.tif"
    final = PRODUCT.model_copy(update={"maturity": "final"})
    assert task(product=final).path(".sha1").endswith("gm_x06y25_2015--P1Y_final.sha1")


def test_the_id_follows_the_incumbents_recipe():
    docs = [document("b"), document("a")]
    text = "\n".join(
        ["ga_ls_gm", "3.0.0", "", "tile=(6, 25)", "time=2015--p1y", *sorted(d["id"] for d in docs)]
    )
    assert task(docs=docs).uuid == uuid5(UUID("6f34c6f4-13d6-43c0-8e4e-42b6c13203af"), text)
    assert task(docs=docs[::-1]).uuid == task(docs=docs).uuid


def test_lineage_stands_in_for_the_scene():
    parent = str(uuid5(NAMESPACE_URL, "level1"))
    for lineage in (
        {"level1": [parent]},
        {"source_datasets": {"level1": {"id": parent}}},
        {"source_datasets": {"level1": parent}},
    ):
        assert task(docs=[document(lineage=lineage)]).source_ids == (UUID(parent),)


@pytest.mark.parametrize(
    "text", ["2015--P1Y/6/25", "2015--P1Y,6,25", "x+006/y+025/2015--P1Y", "x06/y25/2015-01--P1Y"]
)
def test_tiles_are_read_in_every_spelling(text):
    assert TileIndex.parse(text) == ("2015--P1Y", 6, 25)


def test_negative_tiles_and_bad_ones():
    assert TileIndex.parse("2015--P1Y/-3/-4") == ("2015--P1Y", -3, -4)
    assert str(TileIndex("2015--P1Y", 3, -4)) == "2015--P1Y/03/-4"
    for bad in ("2015--P1Y/6", "6/25", "2015--P1Y/a/b", ""):
        with pytest.raises(ConfigError, match="period/x/y"):
            TileIndex.parse(bad)


def test_paths_resolve_against_the_document():
    for base, path, full in [
        ("/data/s/x.yaml", "red.tif", "file:///data/s/red.tif"),
        ("file:///data/s/x.yaml", "../red.tif", "file:///data/red.tif"),
        ("s3://bucket/a/b/x.yaml", "red.tif", "s3://bucket/a/b/red.tif"),
        ("https://host/a/x.yaml", "red.tif", "https://host/a/red.tif"),
        ("/data/x.yaml", "s3://bucket/red.tif", "s3://bucket/red.tif"),
        ("/data/x.yaml", "/other/red.tif", "file:///other/red.tif"),
    ]:
        doc = document(measurements={"red": {"path": path}})
        assert Dataset.from_doc(doc, base).measurements["red"].uri == full


@pytest.mark.parametrize("key", ["id", "product", "crs", "grids", "properties", "measurements"])
def test_a_document_without_a_needed_key_is_named(key):
    doc = document()
    del doc[key]
    with pytest.raises(DataError, match=f"/data/x.yaml.*{key}"):
        Dataset.from_doc(doc, "/data/x.yaml")


def test_centre_time_is_the_middle_of_the_pass_in_utc():
    props = {
        "datetime": "2015-03-04T00:00:00Z",
        "dtr:start_datetime": "2015-03-04T10:00:00+10:00",
        "dtr:end_datetime": "2015-03-04T00:00:20Z",
    }
    when = Dataset.from_doc(document(properties=props), "/x.yaml").time
    assert (when.hour, when.second, when.tzinfo) == (0, 10, None)


@pytest.mark.parametrize("template", ["s3://b/{}", "/out/{nam}", "/out/{version:d}", "/out/}{"])
def test_a_location_that_cannot_be_filled_in_lists_what_is_known(template):
    with pytest.raises(ConfigError, match=r"can't fill in .*\{short_name\}, \{version\}"):
        PRODUCT.expand_location(template)


def test_braces_in_a_location():
    assert PRODUCT.expand_location("/out/{{a}}/{name}/{version}/") == "/out/{a}/ga_ls_gm/3-0-0"


@pytest.mark.parametrize("text", ["x{x:02d}", "x{x}y{z}", "h{}v{}", "x{x:y}y{y}", "all"])
def test_a_region_code_that_tiles_would_share_is_refused(text):
    with pytest.raises(ConfigError, match=r"product\.region_code_format = .*\{y\}|Invalid format"):
        parse_config({"product": {"name": "a", "region_code_format": text}})


def test_a_file_name_may_hold_a_colon():
    base = "file:///data/s%20e/x.odc-metadata.yaml"
    assert resolve(base, "a:b.tif") == "file:///data/s%20e/a:b.tif"
    assert resolve(base, "gs://b/k.tif") == "gs://b/k.tif"
