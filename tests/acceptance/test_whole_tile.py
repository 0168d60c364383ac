"""One tile through the command line against the independent float64 pipeline.

The tile lies on the boundary of two UTM zones, has solar-day pairs, slanted swath edges, clouds
with shadows and band dropouts: every rule of masking, fusing and warping shows in the result.
"""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import oracle
import pytest
import rasterio
import yaml

from odc_stats_gpu.demo import write_archive
from odc_stats_gpu.model import TileIndex
from odc_stats_gpu.tasks import parse_grid

BANDS = ("nbart_blue", "nbart_green", "nbart_red", "nbart_nir", "nbart_swir_1", "nbart_swir_2")
RECIPE = oracle.Recipe(
    product="ga_ls8c_ard_3",
    bands=BANDS,
    mask="oa_fmask",
    bad=(0, 2, 3),
    contiguity="oa_nbart_contiguity",
    nodata=-999,
)
CONFIG = {
    "plugin": "gm-ls",
    "plugin_config": {
        "bands": list(BANDS),
        "mask_band": "oa_fmask",
        "contiguity_band": "oa_nbart_contiguity",
        "resampling": "bilinear",
    },
    "product": {"name": "gm", "short_name": "gm", "version": "1.0.0"},
}


def command(*args, cwd):
    run = subprocess.run(
        [sys.executable, "-m", "odc_stats_gpu", *map(str, args)],
        cwd=cwd, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, f"{args}: {run.returncode}\n{run.stdout}\n{run.stderr}"
    return run.stdout


def read(folder: Path) -> dict[str, np.ndarray]:
    out = {}
    for path in sorted(folder.rglob("*.tif")):
        with rasterio.open(path) as src:
            out[path.stem.split("--P1Y_")[1]] = src.read(1)
    return out


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """Folder with archive, task database and configuration; the tile's index on the grid."""
    folder = tmp_path_factory.mktemp("tile")
    archive = write_archive(folder / "archive", kind="landsat", tile_pixels=160, dates=18, seed=7)
    command(
        "save-tasks", "--eo3", archive.folder, "--grid", archive.grid, "--frequency", "annual",
        "tasks.db", cwd=folder,
    )  # fmt: skip
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    return folder, archive, TileIndex(f"{archive.year}--P1Y", *archive.tiles[0])


def run(scene, name, *options):
    folder, _, index = scene
    out = folder / name
    command("run", "tasks.db", f"{index.period}/{index.x}/{index.y}", "--config", "config.yaml",
            "--location", out.as_uri(), *options, cwd=folder)  # fmt: skip
    return out


@pytest.fixture(scope="module")
def ours(scene):
    return read(run(scene, "whole"))


@pytest.fixture(scope="module")
def truth(scene):
    folder, archive, index = scene
    geobox = parse_grid(archive.grid).geobox((index.x, index.y))
    stack = oracle.stack_of_days(
        folder / "archive", RECIPE, "EPSG:3577", geobox.affine, geobox.shape, 10, archive.year
    )
    return oracle.geomad(stack, RECIPE.nodata)


def test_both_utm_zones_and_a_shared_day_are_really_in_the_tile(scene):
    folder, _, _ = scene
    docs = oracle.read_scenes(folder / "archive", RECIPE)
    assert len({d["crs"] for d in docs}) == 2
    assert len({d["_time"].date() for d in docs}) < len(docs)


def test_counts_are_equal_nearly_everywhere(ours, truth):
    assert (ours["count"] == truth["count"]).mean() >= 0.9995


@pytest.mark.parametrize("band", BANDS)
def test_every_band_is_within_one_dn(ours, truth, band):
    expected = truth["geomedian"][BANDS.index(band)]
    seen = ~np.isnan(expected)
    assert ((ours[band] == -999) == ~seen).mean() >= 0.9995
    near = np.abs(ours[band][seen] - expected[seen]) <= 1
    assert near.mean() >= 0.999


@pytest.mark.parametrize(("band", "key"), [("sdev", "smad"), ("edev", "emad"), ("bcdev", "bcmad")])
def test_spread_is_within_one_percent(ours, truth, band, key):
    seen = ~np.isnan(truth[key]) & (truth[key] > 0)
    error = np.abs(ours[band][seen] - truth[key][seen]) / truth[key][seen]
    assert (error <= 0.01).mean() >= 0.999


@pytest.mark.parametrize(("block", "threads"), list(product(["100", "64x160"], ["1", "2"])))
def test_the_result_does_not_depend_on_blocks_or_threads(scene, ours, block, threads):
    out = run(scene, f"b{block}-t{threads}", "--block-size", block, "--threads", threads)
    again = read(out)
    assert again.keys() == ours.keys()
    for band in ours:
        np.testing.assert_array_equal(again[band], ours[band], err_msg=band)


def test_identical_input_gives_identical_files(scene, ours):
    whole, again = scene[0] / "whole", run(scene, "again", "--block-size", "100")
    for path in sorted(whole.rglob("*.tif")):
        assert path.read_bytes() == (again / path.relative_to(whole)).read_bytes(), path.name


def test_verify_finds_nothing_wrong(scene, ours):
    folder, _, _ = scene
    report = json.loads(command("verify", "whole", "--json", cwd=folder))
    assert report["ok"] is True
