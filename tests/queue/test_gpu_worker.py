"""A worker of the queue on a GPU that does not exist: what `/metrics` tells of it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import fakenvml
import yaml
from prometheus_client.parser import text_string_to_metric_families

from odc_stats_gpu.demo import write_archive
from odc_stats_gpu.queue import publish
from odc_stats_gpu.tasks import Eo3Source, TaskDb, save_tasks

CONFIG = {
    "plugin": "pq",
    "plugin_config": {"mask_band": "oa_fmask", "filters": {"clear_0_1": [["dilation", 1]]}},
    "product": {"name": "pq", "short_name": "pq", "version": "1"},
    "job_queue_max_lease": 60,
    "renew_safety_margin": 30,
}


def scrape(port):
    """Sample and labels to value; nothing as long as nobody listens."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            text = answer.read().decode()
    except (urllib.error.URLError, ConnectionError):
        return {}
    families = text_string_to_metric_families(text)
    return {(s.name, *sorted(s.labels.values())): s.value for f in families for s in f.samples}


def test_metrics_show_the_gpu_and_what_the_tile_asked_of_it(queues, tmp_path):
    archive = write_archive(tmp_path / "a", kind="landsat", tile_pixels=16, dates=2)
    save_tasks(Eo3Source(archive.folder), grid=archive.grid, output=tmp_path / "x.db")
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(CONFIG))
    with TaskDb.open(tmp_path / "x.db") as tasks:
        publish(str(tmp_path / "x.db"), queues[0], tasks.indexes()[:1])
    gpus = fakenvml.environment(
        fakenvml.build(tmp_path), 1, memory=[8 << 30], free=[5 << 30], busy="40,60", watts=75
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "odc_stats_gpu", "run", "--from-sqs", queues[0], "--device=cuda",
         f"--config={tmp_path / 'c.yaml'}", f"--location={tmp_path / 'out'}",
         "--idle-timeout=20", f"--metrics-port={port}"],
        env=os.environ | gpus, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        until, got = time.monotonic() + 200, {}
        while not got.get(("odc_stats_tiles_total", "done")):
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < until, got
            time.sleep(0.2)
            got = scrape(port)
    finally:
        process.terminate()
        process.communicate(timeout=60)
    board = ("0", "Imaginary GPU")
    assert got["odc_stats_gpu_busy_ratio", *board] in (0.4, 0.6)
    assert got["odc_stats_gpu_memory_used_bytes", *board] == 3 << 30
    assert got["odc_stats_gpu_power_watts", *board] == 75
    assert got["odc_stats_gpu_clock_hertz", *board, "sm"] == 1.5e9
    assert 0.4 <= got["odc_stats_task_gpu_busy_ratio",] <= 0.6
    assert got["odc_stats_task_gpu_memory_bytes",] == 3 << 30
    assert got["odc_stats_gpu_energy_joules_total",] > 0
