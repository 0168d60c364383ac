"""On hardware: whole tiles through the command line equal the CPU's, also where memory is short."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.gpu

NEEDED = (
    "rasterio", "xarray", "odc.geo", "pyproj", "shapely", "imagecodecs", "lmdb", "zstandard",
    "pydantic", "typer", "structlog", "pystac", "yaml",
)  # fmt: skip
REPOSITORY = Path(__file__).parents[2]
PRODUCTS = {
    "pq-ls": {
        "plugin": "pq",
        "plugin_config": {
            "mask_band": "oa_fmask",
            "filters": {"clear_2_5": [["opening", 2], ["dilation", 5]]},
        },
    },
    "gm-ls": {
        "plugin": "gm-ls",
        "plugin_config": {
            "bands": ["nbart_blue", "nbart_green", "nbart_red", "nbart_nir"],
            "mask_band": "oa_fmask",
            "contiguity_band": "oa_nbart_contiguity",
            "cloud_filters": {"cloud": [["opening", 2], ["dilation", 3]], "shadow": []},
            "resampling": "bilinear",
        },
    },
}
PRODUCTS["gm-generic"] = {
    "plugin": "gm-generic",
    "plugin_config": {
        "bands": ["nbart_red", "nbart_nir"], "mask_band": "oa_fmask",
        "nodata_classes": ["nodata"], "cloud_filters": {"cloud": [["dilation", 2]]},
    },
}  # fmt: skip
PRODUCTS["gm-s2"] = {
    "plugin": "gm-s2",
    "plugin_config": {"bands": ["B02", "B04", "B08"], "mask_band": "SCL"},
}
KINDS = {"gm-s2": "sentinel2"}
"""Archive of a product, if it isn't Landsat's."""
RESAMPLINGS = ("nearest", "cubic", "average")


def here(module):
    try:
        return find_spec(module) is not None
    except ImportError:
        return False


def command(*args, cwd, **env):
    path = f"{REPOSITORY}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    run = subprocess.run(
        [sys.executable, "-m", "odc_stats_gpu", *map(str, args)], cwd=cwd, capture_output=True,
        text=True, check=False, timeout=250, env=os.environ | {"PYTHONPATH": path} | env,
    )  # fmt: skip
    assert run.returncode == 0, f"{args}: {run.returncode}\n{run.stdout}\n{run.stderr}"
    return run.stdout + run.stderr


@pytest.fixture(scope="module")
def archive(found_board, tmp_path_factory):
    """Folder, tile name, and how to run one: (product, device, *options) -> bands, messages."""
    missing = [name for name in NEEDED if not here(name)]
    if missing:
        pytest.skip(f"whole tiles need {', '.join(missing)}: carry the wheels of `make gpu-wheels`")
    if found_board.kind == "host":
        pytest.skip("a tile is made by other processes: in the simulator or on a device")
    import rasterio
    import yaml

    from odc_stats_gpu.demo import write_archive

    folder = tmp_path_factory.mktemp("tiles")
    size, dates = found_board.pick((400, 8), (16, 2))

    @cache
    def made(kind):
        found = write_archive(folder / kind, kind=kind, tile_pixels=size, dates=dates, seed=3)
        command("save-tasks", "--eo3", found.folder, "--grid", found.grid, "--frequency", "annual",
                f"{kind}.db", cwd=folder)  # fmt: skip
        x, y = found.tiles[0]
        return f"{kind}.db", f"{found.year}--P1Y/{x}/{y}"

    for name, config in PRODUCTS.items():
        product = {"name": name, "short_name": name, "version": "1.0.0"}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(config | {"product": product}))
    simulated = {} if found_board.real else {"NUMBA_ENABLE_CUDASIM": "1"}

    def run(name, device, *options, cluster="worker", **env):
        out = folder / f"{name}-{device}"
        said = command(
            "run", *made(KINDS.get(name, "landsat")), "--config", f"{name}.yaml",
            "--device", device, "--cluster", cluster, "--location", out.as_uri(), "--overwrite",
            *options, cwd=folder, **(simulated if device == "cuda" else {}), **env,
        )  # fmt: skip
        bands = {}
        for path in sorted(out.rglob("*.tif")):
            with rasterio.open(path) as src:
                bands[path.stem.split("--P1Y_")[1]] = src.read()
        return bands, said

    return run


def assert_equal(found, expected):
    """One DN after rounding, MADs to 1e-3, counts to the bit; the CPU's own tolerance elsewhere."""
    assert found.keys() == expected.keys()
    for band, values in expected.items():
        other = found[band]
        if values.dtype.kind == "f":
            np.testing.assert_array_equal(np.isnan(other), np.isnan(values), err_msg=band)
            off = np.abs(other - values) > 1e-3 * np.abs(values) + 1e-6
            assert off.mean() < 1e-3, f"{band}: {off.sum()} of {off.size}"
        elif "count" in band.lower() or "clear" in band or band == "total":
            np.testing.assert_array_equal(other, values, err_msg=band)
        else:
            off = np.abs(other.astype(int) - values.astype(int)) > 1
            assert off.mean() < 1e-3, f"{band}: {off.sum()} of {off.size}"


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_tile_equals_the_cpus(archive, board, name):
    expected, _ = archive(name, "cpu")
    found, said = archive(name, "cuda")
    assert ("cuda:0" if board.real else "cuda simulator") in said
    seen = next(v for k, v in expected.items() if k == "total" or "count" in k.lower())
    assert (seen > 1).mean() > 0.5
    assert_equal(found, expected)


@pytest.mark.parametrize("resampling", RESAMPLINGS)
def test_resampling(archive, board, resampling):
    if not board.real and resampling != "average":
        pytest.skip("one is enough for a rehearsal")
    expected, _ = archive("gm-ls", "cpu", f"--resampling={resampling}")
    found, _ = archive("gm-ls", "cuda", f"--resampling={resampling}")
    assert_equal(found, expected)


def test_blocks_have_the_bits_of_the_tile(archive, board):
    whole, _ = archive("gm-ls", "cuda", f"--block-size={board.pick(400, 16)}")
    parts, _ = archive("gm-ls", "cuda", f"--block-size={board.pick('112x400', '8x16')}")
    for band, values in whole.items():
        np.testing.assert_array_equal(parts[band], values, err_msg=band)


@pytest.mark.parametrize("limit", [60_000_000, 12_000_000, 200_000])
def test_a_device_that_is_too_small(archive, cupy, limit):
    """CuPy's pool refuses beyond the limit: smaller blocks, then the CPU, never a failure."""
    expected, _ = archive("gm-ls", "cpu")
    found, _ = archive("gm-ls", "cuda", CUPY_GPU_MEMORY_LIMIT=str(limit))
    assert_equal(found, expected)


@pytest.mark.parametrize("pool", ["0.5", "async:0.5", "0"])
def test_one_worker_per_gpu(archive, cupy, pool):
    """Also where there is one only: pool, pinning and allocator are real."""
    if not here("dask_cuda"):
        pytest.skip("dask-cuda is not installed: make gpu-wheels DASK=1")
    expected, _ = archive("gm-ls", "cpu")
    found, said = archive("gm-ls", "cuda", f"--rmm-pool={pool}", cluster="dask-cuda")
    assert f"workers={cupy.cuda.runtime.getDeviceCount()}" in said
    assert_equal(found, expected)


def test_a_gpu_worker_killed_in_the_middle(archive, cupy, tmp_path):
    """The tile is made once more, on another GPU if there is one, else by the next process."""
    if not here("dask_cuda"):
        pytest.skip("dask-cuda is not installed: make gpu-wheels DASK=1")
    expected, _ = archive("pq-ls", "cpu")
    fault = f"asset_written:kill:once={tmp_path / 'mark'}"
    found, said = archive("pq-ls", "cuda", cluster="dask-cuda", ODC_STATS_FAULT=fault)
    assert "repeated" in said
    assert_equal(found, expected)
