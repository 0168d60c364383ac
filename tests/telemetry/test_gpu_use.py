"""What a tile's report says of its GPU, under an NVML that shows GPUs which do not exist."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import types

import fakenvml
import pytest

from odc_stats_gpu.demo import write_archive
from odc_stats_gpu.tasks import Eo3Source, save_tasks
from odc_stats_gpu.telemetry import GpuWatch

GIB = 1 << 30
CONFIG = """\
plugin: pq
plugin_config: {mask_band: oa_fmask, filters: {clear_0_1: [[dilation, 1]]}}
product: {name: pq, short_name: pq, version: 1.0.0}
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return fakenvml.build(tmp_path_factory.mktemp("nvml"))


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gpu-use")
    archive = write_archive(folder / "archive", kind="landsat", tile_pixels=16, dates=3)
    save_tasks(Eo3Source(archive.folder), grid=archive.grid, output=folder / "t.db")
    (folder / "cfg.yaml").write_text(CONFIG)
    x, y = archive.tiles[0]
    return folder, f"{archive.year}--P1Y/{x}/{y}"


def done(scene, out, *options, **env):
    """The line "task done" of one tile."""
    folder, tile = scene
    run = subprocess.run(
        [sys.executable, "-m", "odc_stats_gpu", "run", "t.db", tile, "--config=cfg.yaml",
         f"--location={out}", "--log-format=json", *options],
        cwd=folder, env=os.environ | env, capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    lines = [json.loads(line) for line in run.stderr.splitlines()]
    return next(line for line in lines if line["event"] == "task done")


def test_a_tile_on_a_gpu_reports_the_gpu_that_it_was_given(scene, library, tmp_path):
    env = fakenvml.environment(
        library, 2, memory=[16 * GIB, 24 * GIB], free=[12 * GIB, 4 * GIB], watts="70,300",
        busy="20,80,50", clock="1590,1200",
    )  # fmt: skip
    line = done(
        scene, tmp_path / "o", "--device=cuda", "--cluster=worker", **env, CUDA_VISIBLE_DEVICES="1"
    )
    gpu = line["gpu"]
    assert gpu["memory_peak_mib"] == 20 << 10
    assert gpu["watts_mean"] == 300
    assert gpu["sm_mhz_mean"] == 1200
    assert gpu["busy_max"] == 0.8
    assert 0.2 < gpu["busy_mean"] < 0.8
    assert gpu["readings"] >= 3
    assert 0 < gpu["joules"] <= 300 * line["seconds"] + 1


WATCH = """
import json, time
from odc_stats_gpu.engine._gpus import own_gpu
from odc_stats_gpu.telemetry import GpuWatch
watch = GpuWatch()
with watch.watch(own_gpu()):
    time.sleep(0.7)
print(json.dumps(watch.facts()))
"""


def facts(library, *arguments, **env):
    cuda = {"CUDA_VISIBLE_DEVICES": env.pop("CUDA_VISIBLE_DEVICES", None)}
    given = {k: v for k, v in cuda.items() if v is not None}
    environment = fakenvml.environment(library, *arguments, simulate=False, **env)
    run = subprocess.run(
        [sys.executable, "-c", WATCH], env=os.environ | environment | given,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return json.loads(run.stdout)


def test_means_peaks_and_energy(library):
    got = facts(library, 1, memory=[8 * GIB], free=[2 * GIB], watts=50, busy="0,100")
    assert got["readings"] >= 3
    assert got["busy_max"] == 1
    assert 0 < got["busy_mean"] < 1
    assert got["memory_peak_mib"] == 6 << 10
    assert got["joules"] >= 50 * 0.65
    assert got["sm_mhz_mean"] == 1500


def test_an_instance_tells_its_memory_and_leaves_out_what_is_the_whole_boards(library):
    got = facts(library, 1, memory=[40 * GIB], free=[20 * GIB], mig=[2])
    assert got["memory_peak_mib"] == 10 << 10
    assert not {"busy_mean", "watts_mean", "joules"} & set(got)


@pytest.mark.parametrize("hidden", ["", "-1", "GPU-no-such"])
def test_no_device_means_no_facts(library, hidden):
    assert facts(library, 1, CUDA_VISIBLE_DEVICES=hidden) == {}


def test_no_driver_means_no_facts_and_no_thread(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    watch, before = GpuWatch(), threading.active_count()
    with watch.watch("GPU-1"):
        assert threading.active_count() == before
    assert watch.facts() == {}


def test_watts_times_seconds_where_the_board_counts_no_energy(monkeypatch):
    class NVMLError(Exception):
        pass

    def refused(*_):
        raise NVMLError("not supported")

    open_handles = []
    nvml = types.ModuleType("pynvml")
    vars(nvml).update(
        NVMLError=NVMLError, NVML_CLOCK_SM=1, nvmlInit=lambda: open_handles.append(1),
        nvmlShutdown=open_handles.pop, nvmlDeviceGetHandleByUUID=lambda uuid: uuid,
        nvmlDeviceGetUtilizationRates=refused, nvmlDeviceGetMemoryInfo=refused,
        nvmlDeviceGetPowerUsage=lambda _: 10_000, nvmlDeviceGetClockInfo=refused,
        nvmlDeviceGetTotalEnergyConsumption=refused,
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    watch = GpuWatch()

    def fail():
        with watch.watch("GPU-1"):
            time.sleep(0.5)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    got = watch.facts()
    assert got["watts_mean"] == 10
    assert got["joules"] >= 5
    assert set(got) == {"watts_mean", "joules", "readings"}
    assert open_handles == []
