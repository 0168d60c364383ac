"""What a profiler sees: NVTX ranges of tiles, blocks and stages; nothing without one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import defaultdict

import fakenvml
import nvtxrecorder
import pytest

from odc_stats_gpu.demo import write_archive
from odc_stats_gpu.tasks import Eo3Source, save_tasks
from odc_stats_gpu.telemetry._nvtx import COLOURS, DOMAIN, PLAIN

STAGES_OF_A_RUN = {"task", "exists", "plan", "read", "decode", "mask", "fuse", "warp", "reduce",
                   "encode", "write", "commit"}  # fmt: skip
CONFIG = """\
plugin: gm-ls
plugin_config: {bands: [nbart_blue, nbart_red, nbart_nir], mask_band: oa_fmask,
  cloud_filters: {cloud: [[opening, 1]], shadow: []}, resampling: bilinear}
product: {name: gm, short_name: gm, version: 1.0.0}
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return nvtxrecorder.build(tmp_path_factory.mktemp("nvtx"))


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranges")
    archive = write_archive(folder / "archive", kind="landsat", tile_pixels=64, dates=3)
    x, y = archive.tiles[0]
    save_tasks(Eo3Source(archive.folder), grid=archive.grid, output=folder / "t.db")
    (folder / "cfg.yaml").write_text(CONFIG)
    return folder, f"{archive.year}--P1Y/{x}/{y}"


def run(scene, out, *options, **env):
    """The line "task done" of a run of that tile."""
    folder, tile = scene
    done = subprocess.run(
        [sys.executable, "-m", "odc_stats_gpu", "run", "t.db", tile, "--config=cfg.yaml",
         "--device=cpu", f"--location={out}", "--block-size=32", "--log-format=json", *options],
        cwd=folder, env=os.environ | env, capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    return next(line for line in lines if line["event"] == "task done")


@pytest.mark.parametrize(
    "options",
    [(), pytest.param(("--cluster=dask",), marks=pytest.mark.slow)],
    ids=["worker", "dask"],
)
def test_every_stage_of_a_tile_is_a_range_in_the_worker(scene, library, tmp_path, options):
    record = tmp_path / "record"
    gpu = fakenvml.environment(fakenvml.build(tmp_path), 1, simulate=False)
    env = nvtxrecorder.environment(library, record) | gpu
    line = run(scene, tmp_path / "out", *options, **env)
    assert "gpu" not in line  # there is one, but the tile was made on the CPU
    found = nvtxrecorder.ranges(record)  # well nested in every thread, or it raises
    assert {r.domain for r in found} == {DOMAIN}
    assert len({r.process for r in found}) == 1

    stages = [r for r in found if r.category == "stage"]
    assert {r.name for r in stages} == set(line["stages"])
    assert set(line["stages"]) >= STAGES_OF_A_RUN
    for r in stages:
        assert r.colour == COLOURS.get(r.name, PLAIN["stage"])
    seconds = defaultdict(float)
    for r in stages:
        seconds[r.name] += r.seconds
    for name, measured in line["stages"].items():
        # the range is a little longer than what it surrounds; a busy machine may stop in between
        assert measured - 0.01 <= seconds[name] <= measured * 1.2 + 1, name

    (tile,) = (r for r in found if r.category == "tile")
    assert tile.name == f"tile {scene[1]}"
    blocks = {r.name: r for r in found if r.category == "block"}
    assert set(blocks) == {
        f"block {n} {step}" for n in range(4) for step in ("read", "reduce", "put")
    }
    assert len({blocks[f"block 0 {step}"].thread for step in ("read", "reduce", "put")}) == 3
    reduced = [r for r in stages if r.name == "reduce"]
    assert [r.inside for r in reduced] == [(tile.name, f"block {n} reduce") for n in range(4)]
    assert {r.thread for r in reduced} == {tile.thread}
    assert {r.inside[:1] for r in stages if r.name in ("plan", "commit")} == {(tile.name,)}


def test_a_range_ends_when_its_stage_fails(library, tmp_path):
    code = """
from odc_stats_gpu.telemetry import span, stage
for k in range(2):
    try:
        with span("tile a", "tile"), stage("read"):
            raise ValueError
    except ValueError:
        pass
with stage("mine"):
    pass
"""
    record = tmp_path / "record"
    python(code, **nvtxrecorder.environment(library, record))
    found = [(r.name, r.inside, r.colour) for r in nvtxrecorder.ranges(record)]
    one = [("read", ("tile a",), COLOURS["read"]), ("tile a", (), PLAIN["tile"])]
    assert found == [*one, *one, ("mine", (), PLAIN["stage"])]


ONE_STAGE = """
import sys
{before}
from odc_stats_gpu.telemetry import recording, span, stage
with recording() as times, span("tile a", "tile"), stage("read"):
    pass
assert times.counts() == {{"read": 1}}
print("nvtx" if sys.modules.get("nvtx") else "nothing")
"""


def python(code, **env):
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("NVTX", "NSYS", "ODC_STATS"))}
    run = subprocess.run(
        [sys.executable, "-c", code], env=clean | env, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.strip(), run.stderr


@pytest.mark.parametrize(
    ("env", "seen"),
    [
        ({}, "nothing"),
        ({"ODC_STATS_NVTX": "1"}, "nvtx"),
        ({"NSYS_PROFILING_SESSION_ID": "7"}, "nvtx"),
        ({"NSYS_PROFILING_SESSION_ID": "7", "ODC_STATS_NVTX": "0"}, "nothing"),
    ],
    ids=["nobody looks", "asked for", "nsys", "nsys, but no"],
)
def test_nvtx_is_loaded_only_when_somebody_looks(env, seen):
    assert python(ONE_STAGE.format(before=""), **env) == (seen, "")


def test_without_the_package_one_line_says_so():
    out, err = python(ONE_STAGE.format(before="sys.modules['nvtx'] = None"), ODC_STATS_NVTX="1")
    assert out == "nothing"
    assert err == "no NVTX ranges: nvtx is not installed: pip install nvtx\n"
