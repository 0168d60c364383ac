"""A whole tile through the command line, its CUDA kernels in Numba's simulator."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import rasterio
import yaml

from odc_stats_gpu.demo import write_archive

PRODUCTS = {
    "pq": {
        "plugin": "pq",
        "plugin_config": {
            "mask_band": "oa_fmask",
            "filters": {"clear_0_1": [["dilation", 1]]},
        },
    },
    "gm-ls": {
        "plugin": "gm-ls",
        "plugin_config": {
            "bands": ["nbart_blue", "nbart_red", "nbart_nir"],
            "mask_band": "oa_fmask",
            "contiguity_band": "oa_nbart_contiguity",
            "cloud_filters": {"cloud": [["opening", 1]], "shadow": []},
            "resampling": "bilinear",
        },
    },
}


def command(*args, cwd, **env):
    run = subprocess.run(
        [sys.executable, "-m", "odc_stats_gpu", *map(str, args)],
        cwd=cwd, capture_output=True, text=True, check=False, env=os.environ | env,
    )  # fmt: skip
    assert run.returncode == 0, f"{args}: {run.returncode}\n{run.stdout}\n{run.stderr}"
    return run.stdout + run.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("simulated")
    archive = write_archive(folder / "archive", kind="landsat", tile_pixels=32, dates=3, seed=3)
    command("save-tasks", "--eo3", archive.folder, "--grid", archive.grid, "--frequency", "annual",
            "tasks.db", cwd=folder)  # fmt: skip
    for name, config in PRODUCTS.items():
        product = {"name": name, "short_name": name, "version": "1.0.0"}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(config | {"product": product}))
    x, y = archive.tiles[0]
    return folder, f"{archive.year}--P1Y/{x}/{y}"


def run(folder, tile, name, device, *options, **env):
    out = folder / f"{name}-{device}"
    said = command("run", "tasks.db", tile, "--config", f"{name}.yaml", "--device", device,
                   "--location", out.as_uri(), *options, cwd=folder, **env)  # fmt: skip
    found = {}
    for path in sorted(out.rglob("*.tif")):
        with rasterio.open(path) as src:
            found[path.stem.split("--P1Y_")[1]] = src.read()
    return found, said


@pytest.mark.parametrize(("name", "options"), [("pq", ("--block-size=16x32",)), ("gm-ls", ())])
def test_equals_the_cpu(folder, name, options):
    """The first one in two blocks: one is read while the other one is reduced."""
    expected, _ = run(*folder, name, "cpu", *options)
    found, said = run(*folder, name, "cuda", *options, NUMBA_ENABLE_CUDASIM="1")
    assert "cuda simulator" in said
    assert found.keys() == expected.keys()
    seen = expected["count" if name == "gm-ls" else "total"]
    assert (seen > 1).mean() > 0.5
    for band, values in expected.items():
        if values.dtype.kind == "f":
            np.testing.assert_allclose(found[band], values, rtol=1e-3, atol=1e-6, err_msg=band)
        elif band == "rgba" or (name == "gm-ls" and band != "count"):
            assert np.abs(found[band].astype(int) - values).max() <= 1, band
        else:
            np.testing.assert_array_equal(found[band], values, err_msg=band)
