"""report: one page that needs nothing but itself."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from uuid import UUID

import imagecodecs
import numpy as np
import pytest
import rasterio
import yaml

from odc_stats_gpu.errors import ConfigError, DataError
from odc_stats_gpu.model import Dataset, OutputBand
from odc_stats_gpu.output import open_store, write_report


def pictures(html):
    """Title of each figure with its decoded pixels."""
    found = re.findall(r'<img src="data:image/png;base64,([^"]+)" alt="([^"]*)"', html)
    return {alt: imagecodecs.png_decode(base64.b64decode(data)) for data, alt in found}


NAMES = ("nbart_red", "nbart_green", "nbart_blue")


@pytest.fixture
def scene(kit, tmp_path):
    """A document of one date with an alias-named product: half of it lies outside the tile."""
    task = kit.task()
    folder = tmp_path / "scenes"
    folder.mkdir()
    a, b, c, d, e, f = task.geobox.transform[:6]
    transform = rasterio.Affine(a, b, c + 40 * a, d, e, f)
    profile = {"driver": "GTiff", "width": 80, "height": 96, "count": 1, "dtype": "int16",
               "nodata": -999, "crs": "EPSG:3577", "transform": transform}  # fmt: skip
    for band, value in zip(NAMES, (3000, 1500, 1), strict=True):
        with rasterio.open(folder / f"{band}.tif", "w", **profile) as dst:
            dst.write(np.full((96, 80), value, np.int16), 1)
    doc = {
        "id": str(UUID(int=5)), "product": {"name": "ard"}, "crs": "epsg:3577",
        "grids": {"default": {"shape": [96, 80], "transform": list(transform[:6])}},
        "properties": {"datetime": "2015-05-09T00:00:00Z", "eo:cloud_cover": 31.0},
        "measurements": {n: {"path": f"{n}.tif"} for n in NAMES},
    }  # fmt: skip
    path = folder / "scene.odc-metadata.yaml"
    path.write_text(yaml.safe_dump(doc))
    return path


@pytest.fixture
def tile(kit, tmp_path):
    source = Dataset(UUID(int=5), "ard", datetime(2015, 5, 9), "epsg:3577", {}, {}, {})
    task = replace(kit.task(), datasets=(source,))
    ds = kit.pixels((96, 80))
    kit.write(open_store(str(tmp_path / "out")), task, ds).commit()
    return ds


def test_the_page_shows_every_measure_and_needs_nothing_else(tile, scene, tmp_path):
    page = write_report(
        str(tmp_path / "out"), tmp_path / "deep" / "report.html", scenes=[scene],
        timings={"save-tasks": 1.25, "run": 20.0}, title="Tiles <of> a year",
    )  # fmt: skip
    html = page.read_text()
    assert "Tiles &lt;of&gt; a year" in html
    assert not re.search(r'(src|href)="(https?:)?//', html.replace("collections.dea.ga.gov.au", ""))
    assert "<script" not in html
    assert "url(" not in html
    assert "20.0 s" in html
    shown = pictures(html)
    assert [t.split(":")[0] for t in shown] == [
        "One date", "The geomedian", "Spectral spread", "Clear observations",
    ]  # fmt: skip
    assert "9 May 2015, 31 % cloud" in html
    files = [h for h in re.findall(r'href="([^"#]+)"', html) if not h.startswith("http")]
    assert len(files) == 7
    assert all((page.parent / h).exists() for h in files)


def test_pictures_show_the_pixels(tile, scene, tmp_path):
    html = write_report([str(tmp_path / "out")], tmp_path / "r.html", scenes=[scene]).read_text()
    shown = pictures(html)
    before = shown["One date"]
    assert (before[:, :40, 3] == 0).all()
    assert (before[:, 41:] == [255, 127, 0, 255]).all()
    after = shown["The geomedian"]
    valid = np.logical_and.reduce([tile[b].values != -999 for b in ("red", "green", "blue")])
    np.testing.assert_array_equal(after[..., 3] > 0, valid)
    wanted = (np.clip(tile["red"].values.astype(int), 1, 3000) - 1) * 255 // 2999
    np.testing.assert_allclose(after[..., 0][valid], wanted[valid], atol=1)
    spread = next(p for t, p in shown.items() if t.startswith("Spectral"))
    np.testing.assert_array_equal(spread[..., 3] > 0, np.isfinite(tile["sdev"].values))
    order = np.argsort(tile["sdev"].values[tile["sdev"].notnull().values])
    light = spread[..., :3].astype(int).sum(-1)[tile["sdev"].notnull().values][order]
    assert np.corrcoef(light, np.arange(light.size))[0, 1] > 0.95


def test_counts_share_one_scale(kit, tmp_path):
    bands = tuple(OutputBand(n, "uint16", None) for n in ("total", "clear", "clear_0_5"))
    ds = kit.pixels((96, 80), bands)
    for i, band in enumerate(bands):
        ds[band.name].values[:] = 30 - 10 * i
    kit.write(open_store(str(tmp_path / "o")), kit.task(), ds, bands, rgb=False).commit()
    shown = pictures(write_report(str(tmp_path / "o"), tmp_path / "r.html").read_text())
    titles = [t.split(":")[0] for t in shown]
    assert titles == ["Observations", "Clear observations", "Clear after dilation 5"]
    assert all(t.endswith("0 to 30 ") for t in shown)
    light = [int(p[..., :3].astype(int).sum()) for p in shown.values()]
    assert light[0] > light[1] > light[2]


def test_scenes_that_are_no_inputs_of_the_tile_are_not_shown(tile, scene, tmp_path):
    doc = yaml.safe_load(scene.read_text())
    scene.write_text(yaml.safe_dump({**doc, "id": str(UUID(int=6))}))
    html = write_report(str(tmp_path / "out"), tmp_path / "r.html", scenes=[scene]).read_text()
    assert "One date" not in pictures(html)


def test_given_pictures_are_shown_as_they_are(tile, tmp_path):
    rgb = np.full((10, 12, 3), 77, np.uint8)
    html = write_report(
        str(tmp_path / "out"), tmp_path / "r.html", scenes=[("12 June", rgb)]
    ).read_text()
    np.testing.assert_array_equal(pictures(html)["12 June"], rgb)


def test_an_empty_tile_has_a_page_too(kit, tmp_path):
    ds = kit.pixels((96, 80))
    for band in kit.bands:
        ds[band.name].values[:] = 0 if band.nodata is None else band.nodata
    kit.write(open_store(str(tmp_path / "o")), kit.task(), ds).commit()
    html = write_report(str(tmp_path / "o"), tmp_path / "r.html").read_text()
    assert (pictures(html)["The geomedian"][..., 3] == 0).all()


def test_what_cannot_be_shown_is_said(tile, tmp_path):
    with pytest.raises(ConfigError, match="no finished tile below"):
        write_report(str(tmp_path / "nowhere"), tmp_path / "r.html")
    with pytest.raises(ConfigError, match="can't write"):
        write_report(str(tmp_path / "out"), tmp_path / "out")
    with pytest.raises(DataError, match=r"none\.yaml"):
        write_report(str(tmp_path / "out"), tmp_path / "r.html", scenes=["none.yaml"])
    item = next(Path(tmp_path / "out").rglob("*.stac-item.json"))
    item.write_text(json.dumps({"type": "Feature"}))
    with pytest.raises(DataError, match="run `verify`"):
        write_report(str(tmp_path / "out"), tmp_path / "r.html")
