"""The record of the GPU hour, in the simulator: whatever happens, it tells what is known."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

REPOSITORY = Path(__file__).parents[2]


def start(out, *options):
    return subprocess.Popen(
        [sys.executable, "-m", "bench.gpu", "--simulate", "--quick", "--out", str(out), *options],
        cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={key: value for key, value in os.environ.items() if key != "OUT"},
    )  # fmt: skip


def record(out):
    """The parts, if the record is there yet, and the Markdown."""
    for path in out.glob("simulated-*.json"):
        return json.loads(path.read_text())["parts"], path.with_suffix(".md").read_text()
    return {}, ""


SIGTERM = pytest.param(signal.SIGTERM, marks=pytest.mark.slow)


@pytest.mark.parametrize("number", [signal.SIGKILL, SIGTERM])
def test_a_kill_leaves_what_was_found(tmp_path, number):
    run = start(tmp_path, "--only", "kernels", "cpu")
    until = time.monotonic() + 120
    while not record(tmp_path)[0].get("kernels", {}).get("result"):
        assert time.monotonic() < until
        time.sleep(0.2)
    children = psutil.Process(run.pid).children(recursive=True)
    run.send_signal(number)
    run.communicate(timeout=60)
    _, alive = psutil.wait_procs(children, timeout=20)
    assert alive == []
    parts, text = record(tmp_path)
    assert [part["status"] for part in parts.values()] == ["ok", "unfinished", "not begun"]
    assert parts["kernels"]["result"]["cases"][0]["agrees_with_cpu"]
    assert "| Kernels | unfinished |" in text
    assert len(list(tmp_path.iterdir())) == 2


def test_without_time_or_packages_parts_say_so(tmp_path):
    run = start(tmp_path, "--budget", "12", "--only", "ceilings", "profile", "cpu")
    said, _ = run.communicate(timeout=120)
    parts, text = record(tmp_path)
    assert parts["machine"]["status"] == parts["ceilings"]["status"] == "ok"
    assert parts["profile"]["status"] in {"skipped", "failed"}
    assert run.returncode == int(any(p["status"] == "failed" for p in parts.values()))
    assert all(p["status"] == "ok" or p["error"] for p in parts.values())
    assert text in said
