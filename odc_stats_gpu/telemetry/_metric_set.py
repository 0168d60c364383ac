"""Every metric there is: names, labels and buckets. Dashboards and alerts are tested against it."""

from __future__ import annotations

import platform
from typing import get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)

from odc_stats_gpu.telemetry._metrics import REASONS, LeaseEvent, TileStatus

STAGES = ("task", "exists", "plan", "read", "decode", "upload", "mask", "fuse", "warp", "reduce",
          "fetch", "encode", "write", "commit")  # fmt: skip
_BUCKETS = (1, 2, 5, 10, 20, 30, 60, 90, 120, 180, 300, 600, 900, 1800, 3600, 7200)
"""Seconds: a skipped tile takes one, a full year of a large tile on a CPU an hour."""


class MetricSet:
    """One registry of its own with all metrics in it; label values known beforehand stand at 0."""

    def __init__(self, device: str = "") -> None:
        self.registry = r = CollectorRegistry()
        ProcessCollector(registry=r)
        PlatformCollector(registry=r)
        p = "odc_stats"
        self.tiles = Counter(f"{p}_tiles", "Tiles by how they ended", ["status"], registry=r)
        self.failures = Counter(f"{p}_failures", "Failed tiles by reason", ["reason"], registry=r)
        self.task_seconds = Histogram(
            f"{p}_task_seconds", "Wall seconds of a tile", ["status"], registry=r, buckets=_BUCKETS
        )
        self.stage_seconds = Counter(
            f"{p}_stage_seconds", "Seconds of work by stage, summed over threads", ["stage"],
            registry=r,
        )  # fmt: skip
        self.in_flight = Gauge(f"{p}_tasks_in_flight", "Tiles in hand", registry=r)
        self.last_task = Gauge(
            f"{p}_last_task_timestamp_seconds", "When a tile last ended; 0 before", registry=r
        )
        self.blocks = Counter(f"{p}_blocks", "Blocks finished", registry=r)
        self.bytes_read = Counter(f"{p}_read_bytes", "Bytes of scenes read", registry=r)
        self.bytes_written = Counter(f"{p}_written_bytes", "Bytes of tiles written", registry=r)
        self.peak_memory = Gauge(
            f"{p}_peak_memory_bytes", "Highest resident memory of the last tile", registry=r
        )
        self.memory = Gauge(
            f"{p}_memory_bytes", "Resident memory of the worker and its children", registry=r
        )
        self.lease_events = Counter(
            f"{p}_lease_events", "What happened to messages", ["event"], registry=r
        )
        self.queue = Gauge(
            f"{p}_queue_messages", "Messages, approximately", ["queue", "state"], registry=r
        )
        self.queue_age = Gauge(
            f"{p}_queue_oldest_age_seconds", "Age of the oldest message", ["queue"], registry=r
        )
        g, of = f"{p}_gpu", ["gpu", "name"]
        self.gpu_busy = Gauge(f"{g}_busy_ratio", "Share of time with a kernel", of, registry=r)
        self.gpu_memory_used = Gauge(f"{g}_memory_used_bytes", "Device memory", of, registry=r)
        self.gpu_memory_total = Gauge(f"{g}_memory_total_bytes", "Device memory", of, registry=r)
        self.gpu_watts = Gauge(f"{g}_power_watts", "Power drawn", of, registry=r)
        self.gpu_celsius = Gauge(f"{g}_temperature_celsius", "Temperature", of, registry=r)
        self.gpu_clock = Gauge(
            f"{g}_clock_hertz", "Clock by domain: sm, memory", [*of, "domain"], registry=r
        )
        self.gpu_joules = Counter(
            f"{g}_energy_joules", "Energy of the GPU while tiles were made", registry=r
        )
        self.task_gpu_busy = Gauge(
            f"{p}_task_gpu_busy_ratio", "Share of the last tile's time with a kernel", registry=r
        )
        self.task_gpu_memory = Gauge(
            f"{p}_task_gpu_memory_bytes", "Peak device memory of the last tile", registry=r
        )
        self._start_at_zero()
        self._say_what_we_are(device)

    def _start_at_zero(self) -> None:
        for status in get_args(TileStatus):
            self.tiles.labels(status)
            self.task_seconds.labels(status)
        for reason in REASONS:
            self.failures.labels(reason)
        for event in get_args(LeaseEvent):
            self.lease_events.labels(event)
        for name in STAGES:
            self.stage_seconds.labels(name)

    def _say_what_we_are(self, device: str) -> None:
        from odc_stats_gpu import __version__

        Gauge(
            "odc_stats_build_info", "Always 1; the labels tell", ["version", "python", "device"],
            registry=self.registry,
        ).labels(__version__, platform.python_version(), device).set(1)  # fmt: skip
