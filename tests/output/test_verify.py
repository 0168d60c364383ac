"""verify: nothing that is wrong with a finished tile goes unseen."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict

import pytest
import rasterio

from odc_stats_gpu.errors import ConfigError
from odc_stats_gpu.output import open_store, verify


@pytest.fixture
def tile(kit, tmp_path):
    task = kit.task()
    kit.write(open_store(str(tmp_path)), task, kit.pixels((96, 80))).commit()

    def find(suffix):
        return tmp_path / task.path(suffix)

    return find


def redo_sums(find, suffix, data):
    """Replace a file, and make item and sha1 file vouch for the new one."""
    path = find(suffix)
    old = path.read_bytes()
    path.write_bytes(data)
    item = find(".stac-item.json")
    before = item.read_text()
    doc = json.loads(before)
    for asset in doc["assets"].values():
        if asset["href"] == path.name:
            asset["file:size"] = len(data)
            asset["file:checksum"] = "1220" + hashlib.sha256(data).hexdigest()
    item.write_text(json.dumps(doc))
    text = find(".sha1").read_text()
    for a, b in ((old, data), (before.encode(), item.read_bytes())):
        text = text.replace(hashlib.sha1(a).hexdigest(), hashlib.sha1(b).hexdigest())
    find(".sha1").write_text(text)


def test_a_good_tile_has_no_findings(tile, tmp_path):
    seen = []
    report = verify(str(tmp_path), progress=lambda *a: seen.append(a))
    assert report.ok
    assert report.findings == ()
    assert seen == [(1, 1)]
    assert "1 of 1 tiles are good" in str(report)
    assert report.to_dict()["tiles"][0]["ok"] is True
    assert json.dumps(report.to_dict())
    assert asdict(report.tiles[0])["assets"] == 6


def test_an_empty_location_is_not_ok(tmp_path):
    report = verify(str(tmp_path / "nothing"))
    assert not report.ok
    assert "no STAC item" in str(report)
    with pytest.raises(ConfigError):
        verify("gs://x")


def test_a_flipped_byte_is_found_by_both_checksums(tile, tmp_path):
    path = tile("_red.tif")
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(data)
    errors = verify(str(tmp_path)).errors
    assert {(e.check, e.path.rpartition("_")[2]) for e in errors} >= {("checksum", "red.tif")}
    assert sum(e.check == "checksum" for e in errors) == 2


def test_a_missing_asset_and_a_missing_sha1_file(tile, tmp_path):
    tile("_red.tif").unlink()
    tile(".sha1").unlink()
    messages = [str(e) for e in verify(str(tmp_path)).errors]
    assert any("'red' is missing" in m for m in messages)
    assert any(m.startswith("error") and ".sha1: is missing" in m for m in messages)


def test_an_item_that_was_edited(tile, tmp_path):
    path = tile(".stac-item.json")
    path.write_text(path.read_text().replace("ga.gov.au", "example.com"))
    (error,) = verify(str(tmp_path)).errors
    assert (error.check, error.message) == ("checksum", "is not what the sha1 file says")


def test_an_item_that_is_cut_off(tile, tmp_path):
    path = tile(".stac-item.json")
    path.write_bytes(path.read_bytes()[:500])
    assert any("no JSON" in e.message for e in verify(str(tmp_path)).errors)


def test_an_item_that_breaks_the_schema(tile, tmp_path):
    doc = json.loads(tile(".stac-item.json").read_text())
    del doc["links"]
    redo = tile(".stac-item.json")
    redo.write_text(json.dumps(doc))
    assert any(e.check == "schema" and "links" in e.message for e in verify(str(tmp_path)).errors)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dtype": "int32"}, "is int32, the item says int16"),
        ({"nodata": 0}, "has nodata 0.0, the item says -999"),
        ({"nodata": None}, "has nodata None, the item says -999"),
        ({"crs": "EPSG:32655"}, "has the CRS EPSG:32655"),
        ({"transform": rasterio.Affine(30, 0, 0, 0, -30, 0)}, "has the transform"),
        ({"height": 95}, "is 95x80 pixels"),
        ({"count": 2}, "has 2 bands"),
    ],
)
def test_a_file_that_is_not_what_the_item_says(tile, tmp_path, change, message):
    path = tile("_red.tif")
    with rasterio.open(path) as src:
        profile = {**src.profile, **change, "driver": "COG"}
        for key in ("tiled", "blockxsize", "blockysize", "interleave"):
            profile.pop(key, None)
        pixels = src.read()[:, : profile["height"]].astype(profile["dtype"])
    other = tmp_path / "other.tif"
    with rasterio.open(other, "w", **profile) as dst:
        for band in range(profile["count"]):
            dst.write(pixels[0], band + 1)
    redo_sums(tile, "_red.tif", other.read_bytes())
    errors = verify(str(tmp_path)).errors
    assert [e.check for e in errors] == ["pixels"], errors
    assert message in errors[0].message


def test_a_tiff_that_is_no_cog(tile, tmp_path):
    with rasterio.open(tile("_red.tif")) as src:
        profile = {**src.profile, "height": 600, "width": 600, "tiled": False}
        del profile["blockxsize"], profile["blockysize"]
        with rasterio.open(tmp_path / "plain.tif", "w", **profile) as dst:
            dst.write(src.read(1, out_shape=(600, 600)), 1)
    redo_sums(tile, "_red.tif", (tmp_path / "plain.tif").read_bytes())
    errors = verify(str(tmp_path)).errors
    assert any(e.check == "cog" and "not tiled" in e.message for e in errors)


def test_tiles_that_cannot_be_decoded_are_found_although_the_sums_are_right(tile, tmp_path):
    redo_sums(tile, "_red.tif", tile("_red.tif").read_bytes()[:-2000])
    redo_sums(tile, "_thumbnail.jpg", b"no picture")
    errors = verify(str(tmp_path)).errors
    assert {e.path.rpartition("_")[2] for e in errors if e.check == "pixels"} == {
        "red.tif", "thumbnail.jpg",
    }  # fmt: skip


def test_leftovers_are_warnings(tile, tmp_path):
    (tmp_path / "report.html").write_text("not ours")
    folder = tmp_path / "x42" / "y13" / "2015--P1Y"
    folder.mkdir(parents=True)
    (folder / "ga_gm_x42y13_2015--P1Y_red.tif").write_bytes(b"")
    (folder / ".ga_gm_x42y13_2015--P1Y_blue.tif.host.1.2.ab.part").write_bytes(b"")
    report = verify(str(tmp_path))
    assert report.ok
    assert sorted(w.message for w in report.warnings) == [
        "belongs to no finished tile", "temporary file of an interrupted write",
    ]  # fmt: skip


def test_a_tile_that_was_moved_is_a_warning(tile, tmp_path):
    (tmp_path / "x41").rename(tmp_path / "moved")
    report = verify(str(tmp_path))
    assert report.ok
    assert "moved?" in report.warnings[0].message
