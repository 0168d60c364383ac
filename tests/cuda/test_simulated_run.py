"""Whole tiles through the command line, their CUDA kernels in Numba's simulator."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import rasterio
import yaml

from odc_stats_gpu.demo import write_archive

PRODUCTS = {
    "pq": {
        "kind": "landsat",
        "plugin": "pq",
        "plugin_config": {
            "mask_band": "oa_fmask",
            "filters": {"clear_0_1": [["dilation", 1]]},
        },
    },
    "gm-ls": {
        "kind": "landsat",
        "plugin": "gm-ls",
        "plugin_config": {
            "bands": ["nbart_blue", "nbart_red", "nbart_nir"],
            "mask_band": "oa_fmask",
            "contiguity_band": "oa_nbart_contiguity",
            "cloud_filters": {"cloud": [["opening", 1]], "shadow": []},
            "resampling": "bilinear",
        },
    },
    "gm-s2": {  # a band of 20 m among those of 10 m, the mask of 20 m
        "kind": "sentinel2",
        "plugin": "gm-s2",
        "plugin_config": {
            "bands": ["B02", "B11"],
            "cloud_classes": ["cloud shadows", "cloud high probability"],
            "filters": [1, 2],
            "resampling": "cubic",
        },
    },
}
BANDS = {"landsat": ["blue", "red", "nir"], "sentinel2": ["blue", "swir1"]}
FLOATS = ("smad", "emad", "bcmad", "sdev", "edev", "bcdev")


def command(*args, cwd, code=0, **env):
    run = subprocess.run(
        [sys.executable, "-m", "odc_stats_gpu", *map(str, args)],
        cwd=cwd, capture_output=True, text=True, check=False, env=os.environ | env,
    )  # fmt: skip
    assert run.returncode == code, f"{args}: {run.returncode}\n{run.stdout}\n{run.stderr}"
    return run.stdout + run.stderr


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Make the tile of a product out of scenes of two UTM zones."""
    folder = tmp_path_factory.mktemp("simulated")
    tiles = {}
    for kind, bands in BANDS.items():
        archive = write_archive(
            folder / kind, kind=kind, tile_pixels=32, dates=3, seed=3, bands=bands
        )
        command("save-tasks", "--eo3", archive.folder, "--grid", archive.grid,
                "--frequency", "annual", f"{kind}.db", cwd=folder)  # fmt: skip
        documents = [yaml.safe_load(path.read_text()) for path in archive.documents]
        assert len({document["crs"] for document in documents}) == 2
        x, y = archive.tiles[0]
        tiles[kind] = f"{kind}.db", f"{archive.year}--P1Y/{x}/{y}"

    def make(name, device, *options, code=0, out="", **env):
        config = {k: v for k, v in PRODUCTS[name].items() if k != "kind"}
        config["product"] = {"name": name, "short_name": name, "version": "1.0.0"}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(config))
        out = folder / (out or f"{name}-{device}")
        if device == "cuda":
            env = {"NUMBA_ENABLE_CUDASIM": "1", **env}
        said = command(
            "run", *tiles[PRODUCTS[name]["kind"]], "--config", f"{name}.yaml", "--device", device,
            "--location", out.as_uri(), "--threads", "2", *options, cwd=folder, code=code, **env,
        )  # fmt: skip
        return out, said

    return make


@pytest.fixture(scope="module")
def of_the_cpu(run):
    """Each product as the CPU makes it, once."""
    made = {}
    return lambda name: made.setdefault(name, run(name, "cpu")[0])


def bands_of(folder):
    found = {}
    for path in sorted(folder.rglob("*.tif")):
        with rasterio.open(path) as src:
            found[path.stem.split("--P1Y_")[1]] = src.read()
    return found


@pytest.mark.parametrize(
    ("name", "options"),
    [("pq", ["--block-size=16x32"]), ("gm-ls", ["--block-size=32x16"]), ("gm-s2", [])],
)
def test_equals_the_cpu(run, of_the_cpu, name, options):
    """In two blocks one is read while the other one is reduced."""
    expected = bands_of(of_the_cpu(name))
    folder, said = run(name, "cuda", *options)
    found = bands_of(folder)
    assert "cuda simulator" in said
    assert found.keys() == expected.keys()
    seen = expected["total" if name == "pq" else "count" if name == "gm-ls" else "COUNT"]
    assert (seen > 1).mean() > 0.5
    for band, values in expected.items():
        if values.dtype.kind == "f":
            np.testing.assert_allclose(found[band], values, rtol=1e-3, atol=1e-6, err_msg=band)
        elif band == "rgba" or (name != "pq" and band.lower() != "count"):
            assert np.abs(found[band].astype(int) - values).max() <= 1, band
        else:
            np.testing.assert_array_equal(found[band], values, err_msg=band)


def pixels(folder):
    return {p.name: p.read_bytes() for p in folder.rglob("*.tif")}


def device_of(folder):
    (item,) = folder.rglob("*.stac-item.json")
    text = json.loads(item.read_text())
    return next(v for k, v in text["properties"].items() if k.endswith("device"))


@pytest.mark.parametrize(
    ("fault", "device", "warnings"),
    [
        ("device_memory:oom:3", "cuda simulator", ["blocks of 32x32, again with smaller ones"]),
        (
            "device_memory:oom",
            "cpu",
            [
                "blocks of 32x32, again with smaller ones",
                "blocks of 16x32, again with smaller ones",
                "even with blocks of 16x16, again on the CPU",
            ],
        ),
    ],
)
def test_a_device_that_refuses_memory(run, of_the_cpu, fault, device, warnings):
    """Once: smaller blocks. Always: the CPU. The same bytes in the end, and who made them."""
    out, said = run("pq", "cuda", out=f"pq-{len(warnings)}", ODC_STATS_FAULT=fault)
    told = re.findall(
        r"\[warning *\] .*: out of memory on cuda simulator (?:with )?(.*?) reason", said
    )
    assert told == warnings
    assert "injected at device_memory" in said
    expected = pixels(of_the_cpu("pq"))
    assert len(expected) == 3
    assert pixels(out) == expected
    assert device_of(out) == device
    assert not [p for p in out.rglob("*") if p.name.startswith(".") or p.suffix == ".tmp"]


def test_a_host_that_has_no_memory(run):
    """Smaller blocks on the device are no remedy: the tile fails by name, nothing is left."""
    out, said = run("pq", "cuda", code=1, out="pq-host", ODC_STATS_FAULT="block_read:oom")
    assert re.search(
        r"failed: \S+/\S+/\S+: out of memory \(.*block_read\): lower --memory-limit", said
    )
    assert "smaller ones" not in said
    assert not [p for p in out.rglob("*") if p.is_file()]
