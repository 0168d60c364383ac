"""Real Dask clusters whose workers are killed, hang or get signals.

GPU workers run under an NVML that shows two GPUs which do not exist, and compute in Numba's
simulator; everything else is what runs on a GPU machine. Waiting is for facts, never for seconds.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import fakenvml
import psutil
import pytest

from odc_stats_gpu.cli import main
from odc_stats_gpu.demo import write_archive
from odc_stats_gpu.tasks import Eo3Source, save_tasks

CONFIG = """\
plugin: {plugin}
plugin_config: {{mask_band: oa_fmask, filters: {{clear_0_1: [[dilation, 1]]}}}}
product: {{name: pq, short_name: pq, version: 1.0.0}}
"""
STUCK = """\
import ctypes
from pathlib import Path

from odc_stats_gpu.plugins import PixelQuality


class Stuck(PixelQuality):
    '''Hangs once in a C call that keeps Python's lock: no signal handler runs, no thread moves.'''

    def reduce(self, ds):
        mark = Path({mark!r})
        if not mark.exists():
            mark.touch()
            ctypes.PyDLL(None).sleep(3600)
        return super().reduce(ds)
"""
DASK = ("--cluster", "dask", "--device", "cpu")
CUDA = ("--cluster", "dask-cuda", "--device", "cuda")
CLUSTERS = [pytest.param(DASK, id="dask"), pytest.param(CUDA, id="dask-cuda")]
PATIENCE = 240


@dataclass(frozen=True)
class Scene:
    folder: Path
    db: str
    config: str
    tiles: tuple[str, ...]
    gpus: dict[str, str]


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    top = tmp_path_factory.mktemp("dask")
    archive = write_archive(
        top / "archive", kind="landsat", tile_pixels=16, dates=3, tile_counts=(3, 1)
    )
    (x0, y0), (x1, _) = archive.tiles[0], archive.tiles[-1]
    save_tasks(
        Eo3Source(archive.folder), grid=archive.grid, output=top / "tasks.db",
        tiles=((x0, x1 + 1), (y0, y0 + 1)),
    )  # fmt: skip
    (top / "cfg.yaml").write_text(CONFIG.format(plugin="pq"))
    (top / "nvml").mkdir()
    gpus = fakenvml.environment(fakenvml.build(top / "nvml"), gpus=2)
    tiles = tuple(f"2021--P1Y/{x}/{y}" for x, y in archive.tiles)
    return Scene(top, str(top / "tasks.db"), str(top / "cfg.yaml"), tiles, gpus)


class Run:
    """The command in a process, group and temporary folder of its own."""

    def __init__(self, scene, out, *args, config="", **env):
        self.out = out
        self.tmp = Path(tempfile.mkdtemp(prefix="run-", dir=out.parent))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "odc_stats_gpu", "run", scene.db, *map(str, args),
             "--config", config or scene.config, "--location", str(out), "--log-format", "json"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
            env={**os.environ, **scene.gpus, "TMPDIR": str(self.tmp), **env},
        )  # fmt: skip

    def end(self):
        """Exit code and log; nothing but JSON lines was said on stderr."""
        _, err = self.process.communicate(timeout=PATIENCE)
        self.log = [json.loads(line) for line in err.splitlines()]
        return self.process.returncode

    def events(self, name):
        return [line for line in self.log if line["event"] == name]

    @property
    def children(self):
        return psutil.Process(self.process.pid).children(recursive=True)

    def assert_nothing_left(self, processes=(), seconds=10):
        _, alive = psutil.wait_procs(processes, timeout=seconds)
        assert alive == []
        assert [p.name for p in self.tmp.iterdir()] == []
        assert list(self.out.rglob("*.part*")) == []


def wait_for(condition, seconds=PATIENCE):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def digests(out):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in out.rglob("*.tif")}


@pytest.fixture(scope="module")
def expected(scene):
    """Pixels as this machine's CPU makes them, without any cluster."""
    out = scene.folder / "expected"
    args = ["run", scene.db, "--config", scene.config, "--location", str(out)]
    assert main([*args, "--cluster", "none", "--device", "cpu"]) == 0
    found = digests(out)
    assert len(found) == 3 * len(scene.tiles)
    return found


def test_a_gpu_worker_killed_in_the_middle_costs_nothing(scene, expected, tmp_path):
    """The tile is made on the other GPU; the result is the CPU's, byte for byte."""
    mark = tmp_path / "mark"
    run = Run(scene, tmp_path / "o", "0:2", *CUDA,
              ODC_STATS_FAULT=f"asset_written:kill:once={mark}")  # fmt: skip
    assert run.end() == 0, run.log
    assert mark.exists()
    (start,) = run.events("dask")
    assert start["workers"] == 2
    (line,) = run.events("run")
    assert line["device"] == "cuda simulator"
    (again,) = [x for x in run.log if "repeated" in x["event"]]
    assert again["tile"] in scene.tiles[:2]
    assert again["worker"].startswith("GPU-")
    assert len(run.events("first_read")) == 1
    assert {x["tile"] for x in run.events("task done")} == set(scene.tiles[:2])
    mine = digests(run.out)
    assert len(mine) == 6
    assert mine == {name: d for name, d in expected.items() if name in mine}
    run.assert_nothing_left()


@pytest.mark.slow
@pytest.mark.parametrize("cluster", CLUSTERS)
def test_killed_twice_fails_by_name_on_two_workers(scene, tmp_path, cluster):
    run = Run(scene, tmp_path / "o", "0", *cluster, "--workers", "2",
              ODC_STATS_FAULT="asset_written:kill")  # fmt: skip
    assert run.end() == 1
    (failed,) = run.events("task failed")
    assert failed["tile"] == scene.tiles[0]
    places = re.search(r"worker process died 2 times, on (\S+) and (\S+);", failed["error"])
    assert places[1] != places[2]
    assert [p for p in run.out.rglob("*") if p.is_file()] == []
    run.assert_nothing_left()


@pytest.mark.slow
@pytest.mark.parametrize("cluster", CLUSTERS)
def test_the_other_tiles_go_on(scene, expected, tmp_path, cluster):
    """One worker: it is started anew twice, and makes the rest."""
    faults = f"asset_written:kill:once={tmp_path / 'a'},before_item:kill:once={tmp_path / 'b'}"
    run = Run(scene, tmp_path / "o", *cluster, "--workers", "1", ODC_STATS_FAULT=faults)
    assert run.end() == 1
    (failed,) = run.events("task failed")
    assert failed["tile"] == scene.tiles[0]
    assert {x["tile"] for x in run.events("task done")} == set(scene.tiles[1:])
    mine = digests(run.out)
    assert len(mine) == 3 * (len(scene.tiles) - 1)
    assert mine == {name: d for name, d in expected.items() if name in mine}
    run.assert_nothing_left()


@pytest.mark.slow
@pytest.mark.parametrize("cluster", CLUSTERS)
def test_a_hung_tile_is_killed_for_real(scene, tmp_path, cluster):
    """It holds Python's lock: nothing but SIGKILL ends it."""
    plugin = tmp_path / "stuck.py"
    plugin.write_text(STUCK.format(mark=str(tmp_path / "mark")))
    config = tmp_path / "cfg.yaml"
    config.write_text(CONFIG.format(plugin=f"{plugin}:Stuck"))
    run = Run(scene, tmp_path / "o", "0:2", *cluster, "--workers", "1",
              "--max-processing-time", "30", config=str(config))  # fmt: skip
    wait_for((tmp_path / "mark").exists)
    (worker,) = [p for p in run.children if "spawn_main" in " ".join(p.cmdline())]
    assert run.end() == 1
    (failed,) = run.events("task failed")
    assert failed["tile"] == scene.tiles[0]
    assert failed["error"] == "stopped after max_processing_time = 30 s"
    assert [x["tile"] for x in run.events("task done")] == [scene.tiles[1]]
    assert len(list(run.out.rglob("*.stac-item.json"))) == 1
    run.assert_nothing_left([worker])


@pytest.mark.slow
@pytest.mark.parametrize("cluster", CLUSTERS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_leave_nothing(scene, tmp_path, cluster, number):
    """SIGINT goes to the whole group, as Ctrl-C does."""
    mark = tmp_path / "mark"
    run = Run(scene, tmp_path / "o", *cluster, "--workers", "2",
              ODC_STATS_FAULT=f"before_item:stop:once={mark}")  # fmt: skip
    wait_for(mark.exists)
    children = run.children
    assert len(children) >= 2
    begin = time.monotonic()
    if number == signal.SIGINT:
        os.killpg(run.process.pid, number)
    else:
        run.process.send_signal(number)
    assert run.end() == 3, run.log
    assert time.monotonic() - begin < 10
    assert any(signal.Signals(number).name in x["event"] for x in run.log)
    items = list(run.out.rglob("*.stac-item.json"))  # of tiles that were through at that moment
    assert len(run.events("task done")) <= len(items) < len(scene.tiles)
    assert {p.parent for p in run.out.rglob("*.*") if p.is_file()} == {p.parent for p in items}
    assert len(digests(run.out)) == 3 * len(items)
    run.assert_nothing_left(children)


@pytest.mark.slow
@pytest.mark.parametrize("cluster", CLUSTERS)
def test_a_signal_while_the_cluster_starts(scene, tmp_path, cluster):
    run = Run(scene, tmp_path / "o", *cluster, "--workers", "2")
    wait_for(lambda: any("spawn_main" in " ".join(p.cmdline()) for p in run.children))
    children = run.children
    begin = time.monotonic()
    run.process.send_signal(signal.SIGTERM)
    assert run.end() == 3, run.log
    assert time.monotonic() - begin < 10
    run.assert_nothing_left(children)


@pytest.mark.slow
@pytest.mark.parametrize("cluster", CLUSTERS)
def test_workers_die_with_the_command_and_its_folder_goes_with_the_next(scene, tmp_path, cluster):
    mark = tmp_path / "mark"
    run = Run(scene, tmp_path / "o", "0", *cluster, ODC_STATS_FAULT=f"block_read:stop:once={mark}")
    wait_for(mark.exists)
    children = run.children
    run.process.kill()
    run.process.communicate(timeout=30)
    _, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []
    assert list(run.out.rglob("*.stac-item.json")) == []
    assert [p.name[:18] for p in run.tmp.iterdir()] == ["odc-stats-gpu-dask"]
    after = Run(scene, tmp_path / "o", "0", *cluster, TMPDIR=str(run.tmp))
    assert after.end() == 0
    run.assert_nothing_left()


@pytest.mark.slow
def test_workers_that_do_not_come_are_counted_and_explained(scene, tmp_path):
    """RMM fails where there is no driver: dask-cuda makes a cluster without workers, silently."""
    script = tmp_path / "start.py"
    script.write_text("""\
from odc_stats_gpu.engine import CancelToken
from odc_stats_gpu.engine._cuda_cluster import Pool, cluster_arguments
from odc_stats_gpu.engine._dask_cluster import OwnWorkers
from odc_stats_gpu.engine._gpus import list_gpus
from odc_stats_gpu.errors import ConfigError

def build(scratch):
    from dask_cuda import LocalCUDACluster
    return LocalCUDACluster(
        **cluster_arguments(list_gpus(), workers=2, pool=Pool(0.5), scratch=scratch))

if __name__ == "__main__":
    try:
        OwnWorkers(build, 2, token=CancelToken(), timeout=100, remedy="lower --rmm-pool")
    except ConfigError as exc:
        print(exc)
""")
    run = subprocess.run(
        [sys.executable, str(script)], env={**os.environ, **scene.gpus, "TMPDIR": str(tmp_path)},
        capture_output=True, text=True, check=True, timeout=PATIENCE,
    )  # fmt: skip
    assert re.match(r"0 of 2 workers came: .*driver.*\(lower --rmm-pool\)$", run.stdout.strip())
    assert run.stderr == ""
    assert list(tmp_path.iterdir()) == [script]


@pytest.mark.slow
def test_a_cluster_of_somebody_else(scene, expected, tmp_path):
    """Its worker is killed in the middle of a tile; its nanny, not we, starts another one."""
    file = tmp_path / "s.json"
    options = ["--scheduler-file", str(file), "--no-dashboard"]
    more = ["--nworkers", "2", "--nthreads", "1", "--local-directory", str(tmp_path)]
    fault = f"before_item:stop:once={tmp_path / 'mark'}"
    servers = []

    def serve(module, *args):
        with (tmp_path / f"{module}.log").open("w") as log:
            servers.append(subprocess.Popen(
                [sys.executable, "-m", f"distributed.cli.{module}", *options, *args],
                stdout=log, stderr=log, env={**os.environ, "ODC_STATS_FAULT": fault},
            ))  # fmt: skip

    serve("dask_scheduler", "--port", "0")
    serve("dask_worker", *more)
    try:
        wait_for(file.exists)
        address = json.loads(file.read_text())["address"]
        run = Run(scene, tmp_path / "o", "--scheduler", address, "--device", "cpu")
        wait_for((tmp_path / "mark").exists)
        workers = [
            p for p in psutil.Process(servers[1].pid).children(recursive=True)
            if "spawn_main" in " ".join(p.cmdline())
        ]  # fmt: skip
        assert workers
        workers[0].kill()
        if len(workers) > 1:
            workers[1].kill()
        assert run.end() == 0, run.log
        assert any("repeated" in x["event"] for x in run.log)
        assert digests(run.out) == expected
        assert all(server.poll() is None for server in servers)
        run.assert_nothing_left()
    finally:
        for server in reversed(servers):
            server.terminate()
        for server in reversed(servers):
            server.wait(30)
