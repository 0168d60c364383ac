"""/metrics as Prometheus sees it, and what it costs when nobody looks."""

from __future__ import annotations

import io
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
import types
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from odc_stats_gpu.errors import ConfigError
from odc_stats_gpu.telemetry import _log as log_room
from odc_stats_gpu.telemetry import (
    bind_log,
    configure_logging,
    gpu_sampler,
    log,
    metrics,
    sample_memory,
    set_sink,
    start_metrics,
)


def scrape(endpoint):
    """Sample and labels to value."""
    with urllib.request.urlopen(f"http://127.0.0.1:{endpoint.port}/metrics") as answer:
        text = answer.read().decode()
    return {
        (s.name, *sorted(s.labels.values())): s.value
        for f in text_string_to_metric_families(text) for s in f.samples
    }  # fmt: skip


@pytest.fixture
def endpoint():
    with start_metrics(0, address="127.0.0.1", device="cpu") as running:
        yield running


@pytest.fixture
def lines():
    """What is logged, as (event, level, fields)."""
    said = []
    before = log_room._sink
    set_sink(lambda *line: said.append(line))
    yield said
    set_sink(before)


def test_without_an_endpoint_nothing_is_imported_and_nothing_happens():
    code = """
import sys
from odc_stats_gpu.telemetry import metrics
metrics.task_started()
metrics.task_finished("failed", 1.0, stages={"read": 1.0}, reason="x", bytes_read=1)
metrics.lease_event("lost"); metrics.block_done(); metrics.memory_used(1)
metrics.queue_depth("q", visible=1, in_flight=1)
metrics.gpu_reading("0", "x", busy=1.0)
sys.exit(any(m in sys.modules for m in ("prometheus_client", "psutil", "pynvml", "http.server")))
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_tiles_are_counted_by_how_they_end(endpoint):
    for _ in range(3):
        metrics.task_started()
    metrics.task_finished("done", 12, stages={"read": 3.5, "own_stage": 1}, bytes_read=10,
                          bytes_written=20, peak_memory=30)  # fmt: skip
    metrics.task_finished("failed", 700, reason="can't read s3://x/y.tif")
    got = scrape(endpoint)
    assert got["odc_stats_tiles_total", "done"] == 1
    assert got["odc_stats_tiles_total", "failed"] == 1
    assert got["odc_stats_tasks_in_flight",] == 1
    assert got["odc_stats_failures_total", "input"] == 1
    assert got["odc_stats_stage_seconds_total", "read"] == 3.5
    assert got["odc_stats_stage_seconds_total", "own_stage"] == 1
    assert got["odc_stats_read_bytes_total",] == 10
    assert got["odc_stats_written_bytes_total",] == 20
    assert got["odc_stats_peak_memory_bytes",] == 30
    assert got["odc_stats_task_seconds_sum", "done"] == 12
    assert got["odc_stats_task_seconds_bucket", "10.0", "done"] == 0
    assert got["odc_stats_task_seconds_bucket", "20.0", "done"] == 1
    assert got["odc_stats_last_task_timestamp_seconds",] > 1.6e9


def test_counters_stand_at_zero_before_the_first_event(endpoint):
    """increase() and rate() miss an event with which its series appears."""
    got = scrape(endpoint)
    for event in ("received", "renewed", "lost", "released", "acknowledged", "handed_back"):
        assert got["odc_stats_lease_events_total", event] == 0
    for status in ("done", "skipped", "failed", "interrupted"):
        assert got["odc_stats_tiles_total", status] == 0
    for reason in metrics.REASONS:
        assert got["odc_stats_failures_total", reason] == 0
    metrics.lease_event("handed_back")
    assert scrape(endpoint)["odc_stats_lease_events_total", "handed_back"] == 1


def test_every_stage_of_the_engine_is_known():
    from odc_stats_gpu import telemetry
    from odc_stats_gpu.telemetry._metric_set import STAGES

    package = Path(telemetry.__file__).parent.parent
    found = set()
    for room in ("engine", "ingest", "plugins", "output"):
        for path in (package / room).glob("*.py"):
            found |= set(re.findall(r'\bstage\("(\w+)"\)', path.read_text()))
    assert found
    assert found <= set(STAGES)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("stopped after max_processing_time = 30 s", "timeout"),
        ("the worker process was killed by SIGKILL; out of memory? lower --memory-limit", "memory"),
        ("the worker process was killed by SIGSEGV", "crash"),
        ("the worker process exited with code 1", "crash"),
        ("OutOfMemoryError: CUDA out of memory", "gpu"),
        ("can't write /out/x.tif: No space left on device", "disk"),
        ("An error occurred (SlowDown) when calling the PutObject operation", "store"),
        ("can't read s3://b/k.tif: HTTP response code: 503", "store"),
        ("band red of x.tif is not a TIFF", "input"),
        ("KeyError: 'surprise'", "other"),
        ("gpu", "gpu"),
        ("", "other"),
    ],
)
def test_reasons_are_few(text, reason):
    assert metrics.failure_reason(text) == reason


def test_queue_and_gpu_tell_only_what_is_known(endpoint):
    metrics.queue_depth("q", visible=4, in_flight=2)
    metrics.gpu_reading("0", "L4", busy=0.25, memory_used=3)
    got = scrape(endpoint)
    assert got["odc_stats_queue_messages", "q", "visible"] == 4
    assert ("odc_stats_queue_messages", "dead", "q") not in got
    assert not [k for k in got if k[0] == "odc_stats_queue_oldest_age_seconds"]
    assert got["odc_stats_gpu_busy_ratio", "0", "L4"] == 0.25
    assert not [k for k in got if k[0] == "odc_stats_gpu_power_watts"]


def test_what_is_running_is_told(endpoint):
    from odc_stats_gpu import __version__

    (labels,) = [k[1:] for k in scrape(endpoint) if k[0] == "odc_stats_build_info"]
    assert {"cpu", __version__} <= set(labels)


def test_stop_ends_threads_and_frees_the_port():
    before = set(threading.enumerate())
    running = start_metrics(0, address="127.0.0.1", samplers=[(0.05, sample_memory)])
    assert set(threading.enumerate()) - before
    with socket.create_connection(("127.0.0.1", running.port)):
        running.stop()
    running.stop()
    until = time.monotonic() + 20  # the thread of a connection ends when it has seen the client go
    while set(threading.enumerate()) - before and time.monotonic() < until:
        time.sleep(0.01)
    assert not set(threading.enumerate()) - before
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"http://127.0.0.1:{running.port}/metrics", timeout=2)
    with start_metrics(running.port, address="127.0.0.1") as again:
        assert scrape(again)["odc_stats_tiles_total", "done"] == 0


def test_a_port_that_is_taken_is_told_with_a_remedy(endpoint):
    with pytest.raises(ConfigError, match="served already"):
        start_metrics(0)
    endpoint.stop()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigError, match="--metrics-port"):
            start_metrics(taken.getsockname()[1], address="127.0.0.1")
    with pytest.raises(ConfigError, match="--metrics-port"):
        start_metrics(99999, address="127.0.0.1")
    with start_metrics(0, address="127.0.0.1"):
        pass


def test_samplers_that_fail_are_told_once_and_stop_nothing(lines):
    calls, enough = [], threading.Event()

    def broken():
        calls.append(1)
        if len(calls) >= 3:
            enough.set()
        raise OSError("no answer")

    with start_metrics(0, address="127.0.0.1", samplers=[(0.05, broken), (60, sample_memory)]) as e:
        assert enough.wait(10)
        assert scrape(e)["odc_stats_memory_bytes",] > 10e6
    assert [(level, f["error"]) for _, level, f in lines] == [("warning", "no answer")]


def fake_nvml(monkeypatch, *, count=1):
    class NVMLError(Exception):
        pass

    def refused(*_):
        raise NVMLError("not supported")

    nvml = types.ModuleType("pynvml")
    vars(nvml).update(
        NVMLError=NVMLError, NVML_CLOCK_SM=1, NVML_CLOCK_MEM=2, NVML_TEMPERATURE_GPU=0,
        nvmlInit=lambda: None, nvmlShutdown=lambda: None, nvmlDeviceGetCount=lambda: count,
        nvmlDeviceGetHandleByIndex=lambda k: k, nvmlDeviceGetName=lambda _: b"NVIDIA L4",
        nvmlDeviceGetUtilizationRates=lambda _: types.SimpleNamespace(gpu=42, memory=7),
        nvmlDeviceGetMemoryInfo=lambda _: types.SimpleNamespace(used=3 << 30, total=24 << 30),
        nvmlDeviceGetPowerUsage=lambda _: 70_500, nvmlDeviceGetTemperature=refused,
        nvmlDeviceGetClockInfo=lambda _, domain: 2040 if domain == 1 else 6251,
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    return nvml


def test_gpu_is_read_in_base_units_and_refusals_are_left_out(endpoint, monkeypatch):
    fake_nvml(monkeypatch)
    gpu_sampler()()
    got = scrape(endpoint)
    name = ("0", "NVIDIA L4")
    assert got[("odc_stats_gpu_busy_ratio", *name)] == 0.42
    assert got[("odc_stats_gpu_memory_used_bytes", *name)] == 3 << 30
    assert got[("odc_stats_gpu_power_watts", *name)] == 70.5
    assert got[("odc_stats_gpu_clock_hertz", *name, "sm")] == 2.04e9
    assert got[("odc_stats_gpu_clock_hertz", *name, "memory")] == 6.251e9
    assert not [k for k in got if "celsius" in k[0]]


def test_no_driver_and_no_device_mean_no_sampler(monkeypatch):
    nvml = fake_nvml(monkeypatch, count=0)
    assert gpu_sampler() is None

    def no_driver():
        raise nvml.NVMLError("driver not loaded")

    nvml.nvmlInit = no_driver
    assert gpu_sampler() is None
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert gpu_sampler() is None


def test_json_lines_carry_what_is_bound(lines):
    out = io.StringIO()
    configure_logging("json", stream=out)
    with bind_log(task="2019--P1Y/03/04", message_id="m-1", attempt=2):
        log("read", stage="read", seconds=1.5)
        with bind_log(attempt=3):
            log("again", task="explicit wins")
    log("after")
    first, again, after = (json.loads(x) for x in out.getvalue().splitlines())
    assert first["event"] == "read"
    assert (first["task"], first["message_id"], first["attempt"]) == ("2019--P1Y/03/04", "m-1", 2)
    assert (first["stage"], first["seconds"], first["level"]) == ("read", 1.5, "info")
    assert (again["task"], again["attempt"]) == ("explicit wins", 3)
    assert not {"task", "message_id", "attempt"} & set(after)
    assert {"timestamp"} <= set(after)


def test_job_is_in_every_line_where_the_manifest_names_it():
    code = """
from odc_stats_gpu.telemetry import configure_logging, log
configure_logging("json"); log("x", seconds=1)
"""
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | {"ODC_STATS_JOB": "gm-ls"},
                          capture_output=True, text=True, check=True)  # fmt: skip
    assert json.loads(done.stderr)["job"] == "gm-ls"
