"""Geomedian + three MADs + count: ours against geomad, single thread each, in one run.

    python bench/kernels.py --peer-python .bench-venv/bin/python

geomad lives in an interpreter of its own (`make bench` builds it): this file runs itself there as
a subprocess, over the same pixels. The two take turns, so that a busy machine slows both; a ratio
is taken per turn and the median of the ratios is printed. Times are CPU seconds of the process.
Both start from what suits them best, prepared beforehand: ours from int16 (band, time, y, x) with
nodata, geomad from float32 reflectance (y, x, band, time) with NaN, at its production tolerance of
1e-5. Compilation isn't counted. The last columns say how many of 200 pixels are off the optimum,
found in float64, by more than 0.1 DN, and by how much at most.

Data are synthetic and 45 % masked: seasons, haze, clouds and shadows that the mask missed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

CASES = ((40, 6), (90, 6), (70, 10))
"""(dates, bands)"""
NODATA = -999
CHECKED = 200


def make_stack(dates: int, bands: int, size: int, masked: float) -> np.ndarray:
    """Return int16 (band, time, y, x) pixels with missing dates."""
    rng = np.random.default_rng([dates, bands])
    shape = (dates, size, size)
    spectrum = rng.uniform(200, 3500, (bands, 1, size, size))
    amplitude = rng.uniform(0, 0.25, (bands, 1, size, size))
    phase = np.linspace(0, 2 * np.pi * dates / 23, dates)[:, None, None]
    x = spectrum * (1 + amplitude * np.sin(phase)) + rng.normal(0, 60, (bands, *shape))
    weather = rng.random(shape)
    x[:, weather < 0.05] += rng.uniform(1000, 5000, np.count_nonzero(weather < 0.05))
    x[:, weather > 0.97] *= 0.4
    stack = np.clip(np.rint(x), 1, 20000).astype(np.int16)
    stack[:, rng.random(shape) < masked] = NODATA
    return stack


def peer(folder: Path) -> None:
    """Serve: a line with a case's number starts a run; the answer is its seconds."""
    import geomad

    for line in sys.stdin:
        case = int(line)
        stack = np.load(folder / f"{case}.npy")
        x = stack.transpose(2, 3, 0, 1).astype(np.float32) * np.float32(1e-4) - np.float32(1e-4)
        x[stack.transpose(2, 3, 0, 1) == NODATA] = np.nan
        x = np.ascontiguousarray(x)
        start = time.process_time()
        median = geomad.nangeomedian_pcm(x, eps=1e-5, num_threads=1)
        for mad in (geomad.smad_pcm, geomad.emad_pcm, geomad.bcmad_pcm):
            mad(x, median, num_threads=1)
        seconds = time.process_time() - start
        np.save(folder / f"{case}-peer.npy", median)
        print(seconds, flush=True)


def misses(stack: np.ndarray, median: np.ndarray) -> tuple[int, float]:
    """Count pixels of a (band, y, x) median in DN off by > 0.1 DN, of the first 200; the worst."""
    from odc_stats_gpu.kernels import reference

    flat = stack.reshape(*stack.shape[:2], 1, -1)[..., :CHECKED]
    truth = reference.geomad(flat, NODATA).geomedian[:, 0]
    error = np.linalg.norm(median.reshape(len(median), -1)[:, :CHECKED] - truth, axis=0)
    return int(np.sum(error > 0.1)), float(np.nanmax(error))


def ours(stack: np.ndarray) -> tuple[float, np.ndarray]:
    """Run once; return CPU seconds and the geomedian."""
    from odc_stats_gpu.kernels import geomad

    start = time.process_time()
    result = geomad(stack, NODATA)
    return time.process_time() - start, result.geomedian


def main() -> None:
    """Measure, print a Markdown table, fail if a ratio is below --at-least."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer-python", type=Path, help="a Python that has geomad")
    parser.add_argument("--turns", type=int, default=7, help="runs of each per case (default 7)")
    parser.add_argument("--size", type=int, default=64, help="pixels per side (default 64)")
    parser.add_argument("--masked", type=float, default=0.45, help="share masked (default 0.45)")
    parser.add_argument("--at-least", type=float, default=0, help="exit 1 below this ratio")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        peer(options.serve)
        return
    if options.peer_python is None:
        parser.error("--peer-python: which interpreter has geomad? `make bench` builds one")
    os.environ["NUMBA_NUM_THREADS"] = "1"
    print(
        "| dates, bands | geomad us/pixel | ours us/pixel | ratio | geomad off by > 0.1 DN | ours |"
    )
    print("|---|---|---|---|---|---|")
    lowest = np.inf
    with tempfile.TemporaryDirectory() as folder:
        command = [options.peer_python, __file__, "--serve", folder]
        server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for case, (dates, bands) in enumerate(CASES):
            stack = make_stack(dates, bands, options.size, options.masked)
            np.save(Path(folder) / f"{case}.npy", stack)
            ours(stack)  # compiles
            theirs, mine = [], []
            for _ in range(options.turns):
                print(case, file=server.stdin, flush=True)
                answer = server.stdout.readline()
                if not answer:
                    sys.exit(f"{options.peer_python} could not run geomad (is it installed there?)")
                theirs.append(float(answer))
                seconds, median = ours(stack)
                mine.append(seconds)
            ratio = statistics.median(a / b for a, b in zip(theirs, mine, strict=True))
            lowest = min(lowest, ratio)
            peer_median = np.load(Path(folder) / f"{case}-peer.npy").transpose(2, 0, 1) * 1e4 + 1
            cells = [
                f"{n} of {CHECKED}, worst {worst:.3g}"
                for n, worst in (misses(stack, peer_median), misses(stack, median))
            ]
            per_pixel = [statistics.median(s) / options.size**2 * 1e6 for s in (theirs, mine)]
            print(
                f"| {dates}, {bands} | {per_pixel[0]:.2f} | {per_pixel[1]:.2f} | {ratio:.1f} "
                f"| {cells[0]} | {cells[1]} |",
                flush=True,
            )
        server.stdin.close()
        server.wait()
    if lowest < options.at_least:
        sys.exit(f"slowest ratio {lowest:.1f} is below {options.at_least}")


if __name__ == "__main__":
    main()
