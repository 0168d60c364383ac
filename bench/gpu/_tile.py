"""Tiles of a made-up archive from task database to STAC item, on the CPU and on the device."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench.gpu._bench import Bench
from bench.gpu._children import end, start
from bench.gpu._machine import REPOSITORY
from bench.gpu._nvml import GpuWatch

NEEDED = (
    "rasterio", "xarray", "odc.geo", "pyproj", "shapely", "imagecodecs", "lmdb", "zstandard",
    "pydantic", "typer", "structlog", "pystac", "yaml",
)  # fmt: skip
CONFIG = {
    "plugin": "gm-ls",
    "plugin_config": {
        "bands": ["nbart_blue", "nbart_green", "nbart_red", "nbart_nir", "nbart_swir_1",
                  "nbart_swir_2"],
        "mask_band": "oa_fmask",
        "contiguity_band": "oa_nbart_contiguity",
        "cloud_filters": {"cloud": [["opening", 2], ["dilation", 3]], "shadow": []},
        "resampling": "bilinear",
    },
    "product": {"name": "gpu_gm", "short_name": "gpu_gm", "version": "1.0.0"},
}  # fmt: skip


class MissingError(Exception):
    """A part that this machine can't run, and why: skipped, not failed."""


def missing() -> list[str]:
    """Modules that whole tiles need and that aren't there."""
    found = []
    for name in NEEDED:
        try:
            there = find_spec(name) is not None
        except ImportError:
            there = False
        if not there:
            found.append(name)
    return found


def tiles(bench: Bench, deadline: float) -> Iterator[dict[str, Any]]:
    """Seconds, stages and the device's busy share, the device first; both devices' files compared.

    Raises:
        MissingError: packages are missing.
    """
    if lacking := missing():
        raise MissingError(f"whole tiles need {', '.join(lacking)} (make gpu-wheels collects them)")
    folder = Path(tempfile.mkdtemp(prefix="gpu-tiles-"))
    try:
        work = prepare(bench, folder)
        found: dict[str, Any] = {"archive": work["archive"]}
        for device in ("cuda", "cpu"):
            found[device] = _run(bench, folder, work["tiles"], device, deadline)
            yield found
        found["agreement"] = _compare(folder / "cpu", folder / "cuda")
        yield found
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def prepare(bench: Bench, folder: Path) -> dict[str, Any]:
    """Write archive, task database and configuration; return the tiles' names."""
    import yaml

    from odc_stats_gpu.demo import write_archive

    size, dates = bench.pick((800, 16), (400, 8), (16, 2))
    made = write_archive(folder / "archive", kind="landsat", tile_pixels=size, dates=dates, seed=3)
    command = [sys.executable, "-m", "odc_stats_gpu", "save-tasks", "--eo3", str(made.folder),
               "--grid", made.grid, "--frequency", "annual", "tasks.db"]  # fmt: skip
    subprocess.run(command, cwd=folder, env=_environment(), check=True, capture_output=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    x, y = made.tiles[0]
    return {
        "archive": {"tile_pixels": size, "dates": dates, "bands": 6},
        "tiles": [f"{made.year}--P1Y/{x}/{y}"] if bench.simulate else [],  # else the nine around
    }


def run_command(folder: Path, names: list[str], device: str) -> list[str]:
    """The command line of a run; no names: all tiles of the database."""
    return [
        sys.executable, "-m", "odc_stats_gpu", "run", "tasks.db", *names, "--config", "config.yaml",
        "--device", device, "--cluster", "worker", "--location", (folder / device).as_uri(),
        "--overwrite", "--log-format", "json",
    ]  # fmt: skip


def _environment(**more: str) -> dict[str, str]:
    path = os.pathsep.join((str(REPOSITORY), os.environ.get("PYTHONPATH", "")))
    return os.environ | {"PYTHONPATH": path.rstrip(os.pathsep)} | more


def environment(bench: Bench, device: str) -> dict[str, str]:
    """Variables of a run on a device."""
    simulated = {"NUMBA_ENABLE_CUDASIM": "1"} if bench.simulate and device == "cuda" else {}
    return _environment(**simulated)


def _run(
    bench: Bench, folder: Path, names: list[str], device: str, deadline: float
) -> dict[str, Any]:
    log = folder / f"{device}.log"
    limit = max(30.0, deadline - time.monotonic())
    begin = time.monotonic()
    with GpuWatch() as watch, log.open("wb") as out:
        child = start(
            run_command(folder, names, device), cwd=folder, env=environment(bench, device),
            stdout=out, stderr=out,
        )  # fmt: skip
        try:
            code = str(child.wait(limit))
        except subprocess.TimeoutExpired:
            code = f"{limit:.0f} s, its limit"
        end(child)
    wall = time.monotonic() - begin
    text = log.read_text(errors="replace")
    if code != "0":
        raise RuntimeError(f"run --device {device} ended with {code}: {text[-1500:]}")
    made = [json.loads(line) for line in text.splitlines() if '"task done"' in line]
    stages: dict[str, float] = {}
    for tile in made[1:] or made:
        for name, seconds in tile["stages"].items():
            stages[name] = round(stages.get(name, 0.0) + seconds, 3)
    found: dict[str, Any] = {"tiles": len(made), "peak_mib": max(t["peak_mib"] for t in made)}
    if bench.simulate:
        return found | {"stages": sorted(stages)}
    first = made[0]["seconds"]
    others = [tile["seconds"] for tile in made[1:]]
    steady = time.monotonic() - sum(others) if others else begin
    return found | {
        "wall_seconds": wall,
        "first_tile_seconds": first,
        "other_tiles_median_seconds": statistics.median(others) if others else None,
        "stage_seconds_of_the_others": stages,
        "gpu": watch.summary(steady) if device == "cuda" else None,
        "gpu_whole_run": watch.summary() if device == "cuda" else None,
    }


def _compare(cpu: Path, cuda: Path) -> dict[str, Any]:
    """Largest difference per band, and the share of pixels beyond the contract."""
    import numpy as np
    import rasterio

    found: dict[str, dict[str, float]] = {}
    paths = sorted(p.relative_to(cpu) for p in cpu.rglob("*.tif"))
    assert paths == sorted(p.relative_to(cuda) for p in cuda.rglob("*.tif")), "files differ"
    for path in paths:
        with rasterio.open(cpu / path) as a, rasterio.open(cuda / path) as b:
            want, got = a.read(), b.read()
        band = path.stem.split("--P1Y_")[1]
        entry = found.setdefault(band, {"largest_difference": 0.0, "share_beyond": 0.0})
        difference = np.abs(got.astype(float) - want.astype(float))
        missing_differs = np.isnan(got.astype(float)) != np.isnan(want.astype(float))
        relative = 1e-3 * np.abs(want.astype(float)) + 1e-6 if want.dtype.kind == "f" else 1
        beyond = (difference > relative) | missing_differs
        entry["largest_difference"] = max(
            entry["largest_difference"], float(np.nan_to_num(difference).max())
        )
        entry["share_beyond"] = max(entry["share_beyond"], float(beyond.mean()))
    return found
