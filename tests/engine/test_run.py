"""run_tasks: feeding, counting, stopping; and the device choice."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from concurrent.futures import Future

import pytest

from odc_stats_gpu.engine import CancelToken, TaskJob, TaskResult, run_tasks
from odc_stats_gpu.engine._device import CpuDevice, open_device
from odc_stats_gpu.errors import Cancelled, ConfigError


class Instant:
    """Ends every job as `outcome` says."""

    def __init__(self, slots=1, outcome=lambda _job: "done"):
        self.slots, self.outcome = slots, outcome
        self.killed, self.running, self.most = "", 0, 0

    def submit(self, job):
        future = Future()
        self.running += 1
        self.most = max(self.most, self.running)

        def work():
            time.sleep(0.02)
            self.running -= 1
            status = self.outcome(job)
            if isinstance(status, Exception):
                future.set_exception(status)
            else:
                future.set_result(TaskResult(job.tile, status))

        threading.Thread(target=work).start()
        return future

    def kill(self, reason):
        self.killed = reason


def jobs(count):
    return [TaskJob(f"2020--P1Y/{i:02d}/00", "x.db") for i in range(count)]


def test_every_job_is_counted_once():
    outcomes = {0: "done", 1: "skipped", 2: "failed", 3: "done"}
    seen = []
    executor = Instant(outcome=lambda job: outcomes[int(job.tile[10:12])])
    summary = run_tasks(jobs(4), executor, lambda job, _result: seen.append(job.tile))
    assert summary.line == "T:4, OK:2, S:1, E:1"
    assert summary.exit_code == 1
    assert seen == [j.tile for j in jobs(4)]


def test_jobs_are_asked_for_only_when_there_is_room():
    executor, asked = Instant(slots=2), []

    def source():
        for job in jobs(6):
            asked.append(executor.running)
            yield job

    summary = run_tasks(source(), executor, lambda *_: None)
    assert summary.done == 6
    assert executor.most == 2
    assert max(asked) < 2  # never leased ahead: a queue's lease would run out


def test_cancel_kills_and_leaves_the_rest():
    token, executor = CancelToken(), Instant()

    def on_result(_job, _result):
        token.cancel("received SIGTERM")

    summary = run_tasks(jobs(5), executor, on_result, token)
    assert summary.interrupted
    assert summary.exit_code == 3
    assert summary.total == 1
    assert executor.killed == "received SIGTERM"


def test_a_cancelled_tile_is_no_failure():
    executor = Instant(outcome=lambda _job: Cancelled("stop"))
    summary = run_tasks(jobs(2), executor, lambda *_: pytest.fail("no result to report"))
    assert summary.interrupted
    assert summary.failed == []


def test_a_part_of_a_module_that_stands_in_loads_it():
    """What the first read doesn't need is imported later, whoever asks for it and how."""
    code = (
        "import sys; from odc_stats_gpu.engine._preload import preload; preload(); "
        "assert 'botocore' not in sys.modules; from boto3.exceptions import Boto3Error"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_auto_without_a_gpu_is_the_cpu_and_says_why(monkeypatch):
    monkeypatch.setattr("odc_stats_gpu.engine._device.nvml_devices", lambda: (0, "no driver here"))
    device, why = open_device("auto")
    assert isinstance(device, CpuDevice)
    assert "no driver here" in why


def test_cuda_without_a_gpu_is_an_error_with_remedy(monkeypatch):
    monkeypatch.delenv("NUMBA_ENABLE_CUDASIM", raising=False)
    monkeypatch.setattr("odc_stats_gpu.engine._device.nvml_devices", lambda: (0, "no driver here"))
    with pytest.raises(ConfigError, match=r"no driver here .*--device cpu"):
        open_device("cuda")


def test_missing_cuda_kernels_are_named(monkeypatch):
    monkeypatch.setenv("NUMBA_ENABLE_CUDASIM", "1")
    monkeypatch.setattr("odc_stats_gpu.engine._device.missing_kernels", lambda: ["warp"])
    with pytest.raises(ConfigError, match="no CUDA version of warp"):
        open_device("cuda")
    monkeypatch.setattr("odc_stats_gpu.engine._device.missing_kernels", list)
    device, _ = open_device("cuda")
    assert device.name == "cuda simulator"
    assert open_device("auto")[0].name == "cpu"


def test_the_simulated_device_gives_arrays_that_select_cuda(monkeypatch):
    from odc_stats_gpu.kernels import SimulatedDeviceArray

    monkeypatch.setenv("NUMBA_ENABLE_CUDASIM", "1")
    monkeypatch.setattr("odc_stats_gpu.engine._device.missing_kernels", list)
    device, _ = open_device("cuda")
    assert isinstance(device.empty((2, 3), "int16"), SimulatedDeviceArray)
