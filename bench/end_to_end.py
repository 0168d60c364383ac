"""One Landsat-like tile, from task database to STAC item, by the incumbent and by us in turn.

    python bench/end_to_end.py --peer-python .bench-venv/bin/python [--runs 3]

Writes an archive (800x800 pixels at 30 m, 32 scenes on 24 days, 8 bands), one task database that
both programs read, and runs each `run` command as a whole process. Prints the medians of wall
seconds and of the peak memory (summed PSS of the process tree), and the ratios run by run.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import psutil
import yaml

BANDS = ["nbart_red", "nbart_green", "nbart_blue", "nbart_nir", "nbart_swir_1", "nbart_swir_2"]
# the incumbent insists on finding the contiguity band among the bands
CONFIG = {
    "plugin": "gm-ls",
    "plugin_config": {
        "bands": [*BANDS, "oa_nbart_contiguity"],
        "mask_band": "oa_fmask",
        "contiguity_band": "oa_nbart_contiguity",
        "nodata_classes": ["nodata"],
        "cloud_filters": {"cloud": [["opening", 0]], "shadow": [["opening", 0]]},
        "resampling": "bilinear",
    },
    "product": {"name": "bench_gm", "short_name": "bench_gm", "version": "1.0.0"},
    "cog_opts": {"zlevel": 9},
}


class Figures(NamedTuple):
    """What one run took."""

    wall: float
    """Seconds on the clock."""
    cpu: float
    """Seconds of all processes, user and system."""
    memory: float
    """Peak of the summed PSS of the process tree, GiB."""


def tree_pss(root: psutil.Process) -> int:
    """Bytes that the process and its descendants really occupy, shared pages shared out."""
    total = 0
    for proc in [root, *root.children(recursive=True)]:
        try:
            total += proc.memory_full_info().pss
        except psutil.Error:
            continue
    return total


def measure(command: list[str], cwd: Path) -> Figures:
    """Figures of a command that must succeed."""
    env = {**os.environ, "AWS_DEFAULT_REGION": "us-west-2", "AWS_EC2_METADATA_DISABLED": "true"}
    log = cwd / "log.txt"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    with log.open("wb") as out:
        proc = psutil.Popen(command, stdout=out, stderr=subprocess.STDOUT, cwd=cwd, env=env)
        peak = 0
        while proc.poll() is None:
            try:
                peak = max(peak, tree_pss(proc))
            except psutil.Error:
                break
            time.sleep(0.05)
        proc.wait()
    wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    if proc.returncode:
        sys.exit(f"{' '.join(command)} ended with {proc.returncode}:\n{log.read_text()[-3000:]}")
    return Figures(wall, cpu, peak / 2**30)


def prepare(folder: Path, plugin_config: dict) -> tuple[Path, Path, str]:
    """Write archive, task database and configuration; returns the last two and the tile."""
    from odc_stats_gpu.demo import write_archive

    archive = write_archive(folder / "archive", kind="landsat", tile_pixels=800, dates=24)
    db = folder / "tasks.db"
    save = [sys.executable, "-m", "odc_stats_gpu", "save-tasks", "--eo3", str(archive.folder)]
    options = ["--grid", archive.grid, "--frequency", "annual", archive.products[0], str(db)]
    subprocess.run([*save, *options], check=True, stdout=subprocess.DEVNULL)
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump({**CONFIG, "plugin_config": plugin_config}))
    x, y = archive.tiles[0]
    return db, config, f"{archive.year}--P1Y/{x}/{y}"


def report(runs: dict[str, list[Figures]], threads: int) -> None:
    """Print medians and the ratios of the runs made in turn."""
    count = len(next(iter(runs.values())))
    print(f"One tile, 800x800 pixels, 32 scenes, 8 bands, {threads} threads; {count} runs in turn")
    print("| program, medians | wall | CPU | peak memory |\n|---|---|---|---|")
    for name, figures in runs.items():
        wall, cpu, memory = (statistics.median(column) for column in zip(*figures, strict=True))
        print(f"| {name} | {wall:.1f} s | {cpu:.1f} s | {memory:.2f} GiB |")
    cells = []
    for k in range(3):
        ratios = [a[k] / b[k] for a, b in zip(*runs.values(), strict=True)]
        cells.append(f"{min(ratios):.1f} **{statistics.median(ratios):.1f}** {max(ratios):.1f}")
    print(f"| times less: min, median, max | {' | '.join(cells)} |")


def main() -> None:
    """Measure both programs alternately and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer-python", type=Path, required=True)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="work here and leave everything in place")
    args = parser.parse_args()
    folder = (args.keep or Path(tempfile.mkdtemp(prefix="odc-bench-"))).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        db, config, tile = prepare(folder, CONFIG["plugin_config"])
        peer = args.peer_python.absolute().with_name("odc-stats")
        commands = {
            "odc-stats": [str(peer), "run"],
            "odc-stats-gpu": [sys.executable, "-m", "odc_stats_gpu", "run"],
        }
        runs: dict[str, list[Figures]] = {name: [] for name in commands}
        for turn in range(args.runs + 1):  # the first turn warms caches and is not counted
            for name, command in commands.items():
                out = folder / f"out-{name}"
                shutil.rmtree(out, ignore_errors=True)
                options = [str(db), tile, "--config", str(config), "--threads", str(args.threads)]
                figures = measure([*command, *options, "--location", out.as_uri()], folder)
                if turn:
                    runs[name].append(figures)
        report(runs, args.threads)
    finally:
        if not args.keep:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
