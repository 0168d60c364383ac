"""Whole tiles through the engine's own CUDA device, with a CuPy that allows only what CuPy does."""

from __future__ import annotations

import numpy as np
import pytest
import yaml

pytest.importorskip("cupy", reason="the CUDA wheels are not installed")
import rasterio
import strictcupy

from odc_stats_gpu.cli import main
from odc_stats_gpu.demo import write_archive
from odc_stats_gpu.engine import _session
from odc_stats_gpu.engine._cuda_device import CudaDevice

LANDSAT = {"mask_band": "oa_fmask"}
CONFIGS = {
    "gm-ls": LANDSAT | {
        "bands": ["nbart_blue", "nbart_red"], "contiguity_band": "oa_nbart_contiguity",
        "cloud_filters": {"cloud": [["opening", 1], ["dilation", 2]], "shadow": []},
        "resampling": "bilinear",
    },
    "pq": LANDSAT | {"filters": {"clear_1_2": [["opening", 1], ["dilation", 2]]}},
}  # fmt: skip


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    folder = tmp_path_factory.mktemp("strict")
    made = write_archive(folder / "archive", kind="landsat", tile_pixels=16, dates=4, seed=2)
    args = ["save-tasks", "--eo3", str(made.folder), "--grid", made.grid, "--frequency", "annual"]
    assert main([*args, str(folder / "tasks.db")]) == 0
    x, y = made.tiles[0]
    return folder, f"{made.year}--P1Y/{x}/{y}"


def pixels(archive, name, device, *options):
    folder, tile = archive
    config = folder / f"{name}.yaml"
    product = {"name": name, "short_name": name, "version": "1.0.0"}
    config.write_text(yaml.safe_dump(
        {"plugin": name, "plugin_config": CONFIGS[name], "product": product}
    ))  # fmt: skip
    out = folder / f"{name}-{device}-{len(options)}"
    args = ["run", str(folder / "tasks.db"), tile, "--config", str(config), "--cluster", "none"]
    code = main([*args, "--device", device, "--location", str(out), "--threads", "2", *options])
    assert code == 0
    bands = {}
    for path in sorted(out.rglob("*.tif")):
        with rasterio.open(path) as src:
            bands[path.stem.split("--P1Y_")[1]] = src.read()
    return bands


LANCZOS = pytest.param(("--resampling", "lanczos"), marks=pytest.mark.slow)


@pytest.mark.parametrize("options", [("--block-size", "8x16"), LANCZOS])
@pytest.mark.parametrize("name", CONFIGS)
def test_a_tile_asks_nothing_that_cupy_lacks(archive, monkeypatch, name, options):
    if name == "pq" and "--resampling" in options:
        pytest.skip("flags are not interpolated")
    expected = pixels(archive, name, "cpu", *options)
    module = strictcupy.install(monkeypatch)
    device = CudaDevice("cuda:0 strict", module)
    monkeypatch.setattr(_session, "open_device", lambda *_, **__: (device, ""))
    _session._current.clear()
    found = pixels(archive, name, "cuda", *options)
    _session._current.clear()
    assert found.keys() == expected.keys()
    for band, values in expected.items():
        if values.dtype.kind == "f":
            np.testing.assert_allclose(found[band], values, rtol=2e-3, atol=1e-5, err_msg=band)
        else:
            assert np.abs(found[band].astype(int) - values).max() <= 1, band
