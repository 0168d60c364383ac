"""Prometheus metrics of a worker, and the `/metrics` endpoint that a PodMonitor scrapes.

The functions below may be called at any time: until `start_metrics` they do nothing, and
prometheus_client isn't even imported. They never raise and take plain values, so that a worker's
life can't depend on who watches it. Counters start at 0 for every label value that is known
beforehand: a rate would miss the first event of a series that appears with it.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, Self

from odc_stats_gpu.errors import ConfigError
from odc_stats_gpu.telemetry._log import log

if TYPE_CHECKING:
    from odc_stats_gpu.telemetry._metric_set import MetricSet

TileStatus = Literal["done", "skipped", "failed", "interrupted"]
LeaseEvent = Literal["received", "renewed", "lost", "released", "acknowledged", "handed_back",
                     "malformed"]  # fmt: skip
Sampler = Callable[[], None]

_REASONS = (
    ("timeout", r"max_processing_time|timed? ?out"),
    ("gpu", r"\bcuda|\bcupy|\bgpu\b|\bnvrtc|out of device memory"),
    ("memory", r"SIGKILL|out of memory|MemoryError|needs .* of memory"),
    ("crash", r"worker process|was killed by|exited with code"),
    ("disk", r"No space left|disk full|disk is full|quota"),
    ("store", r"AccessDenied|Forbidden|SlowDown|Precondition|throttl|can't (write|reach)"),
    ("store", r"(code:? |\()(403|412|429|50\d)\b"),
    ("taskdb", r"task database|no such task|no task|\.db\b"),
    ("input", r"can't read|can't open|not a TIFF|band |scene|dataset|measurement"),
)  # fmt: skip
REASONS = (*dict.fromkeys(name for name, _ in _REASONS), "other")
_live: MetricSet | None = None


class Stopper:
    """The running endpoint; `stop` (or leaving `with`) ends it and every thread of it."""

    def __init__(self, port: int, close: Callable[[], None]) -> None:
        self.port = port
        """Where it listens: the one asked for, or the one found for 0."""
        self._close = close

    def stop(self) -> None:
        """Answer no more; harmless the second time."""
        self._close()
        self._close = lambda: None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def start_metrics(
    port: int,
    *,
    address: str = "0.0.0.0",  # noqa: S104 - Prometheus scrapes from another host
    device: str = "",
    samplers: Sequence[tuple[float, Sampler]] = (),
) -> Stopper:
    """Serve `http://address:port/metrics` from now on; port 0 takes any free one.

    `samplers` are (seconds, function) pairs, called again and again in one thread of their own;
    what they raise is logged once. Raises ConfigError when the port can't be had.
    """
    global _live  # noqa: PLW0603 - one endpoint per process, as there is one registry
    if _live is not None:
        raise ConfigError("metrics are served already", "stop the first endpoint")
    from prometheus_client import disable_created_metrics, start_http_server

    from odc_stats_gpu.telemetry._metric_set import MetricSet

    disable_created_metrics()  # type: ignore[no-untyped-call]  # one more series per counter, and nobody asks for it
    found = MetricSet(device)
    try:
        server, thread = start_http_server(port, address, found.registry)
    except (OSError, OverflowError) as exc:
        raise ConfigError(
            f"can't serve metrics on {address}:{port}: {exc}", "choose another --metrics-port"
        ) from None
    _live = found
    leave = threading.Event()
    sampling = threading.Thread(
        target=_sample, args=(samplers, leave), name="metrics-samplers", daemon=True
    )
    if samplers:
        sampling.start()

    def close() -> None:
        global _live  # noqa: PLW0603 - see above
        _live = None
        leave.set()
        server.shutdown()
        server.server_close()
        thread.join(2)
        if samplers:
            sampling.join(2)  # one that hangs in a network call is a daemon: it can't hold us

    return Stopper(server.server_port, close)


def _sample(samplers: Sequence[tuple[float, Sampler]], leave: threading.Event) -> None:
    due = [0.0] * len(samplers)
    failed: set[int] = set()
    while True:
        for k, (every, sampler) in enumerate(samplers):
            if time.monotonic() < due[k]:
                continue
            due[k] = time.monotonic() + every
            try:
                sampler()
                failed.discard(k)
            except Exception as exc:  # noqa: BLE001 - watching must not disturb the watched
                if k not in failed:
                    log("a metric can't be read", level="warning", error=str(exc))
                failed.add(k)
        if leave.wait(max(0.05, min(due) - time.monotonic())):
            return


def task_started() -> None:
    """A tile is in hand: from its receipt to its acknowledgement, release or loss."""
    if _live is not None:
        _live.in_flight.inc()


def task_finished(
    status: TileStatus,
    seconds: float,
    *,
    stages: Mapping[str, float] | None = None,
    reason: str = "",
    bytes_read: int = 0,
    bytes_written: int = 0,
    peak_memory: int = 0,
    gpu: Mapping[str, float] | None = None,
) -> None:
    """A tile is out of our hands: wall `seconds`, seconds of work by stage, bytes.

    `reason` of a failure: one of REASONS, or the error's text, which is then sorted into them.
    `gpu`: what `GpuWatch.facts` says.
    """
    if _live is None:
        return
    m = _live
    m.in_flight.dec()
    m.tiles.labels(status).inc()
    m.task_seconds.labels(status).observe(seconds)
    m.last_task.set(time.time())
    for name, spent in (stages or {}).items():
        m.stage_seconds.labels(name).inc(max(0.0, spent))
    if status == "failed":
        m.failures.labels(failure_reason(reason)).inc()
    m.bytes_read.inc(max(0, bytes_read))
    m.bytes_written.inc(max(0, bytes_written))
    if peak_memory:
        m.peak_memory.set(peak_memory)
    gpu = gpu or {}
    m.gpu_joules.inc(max(0.0, gpu.get("joules", 0.0)))
    if "busy_mean" in gpu:
        m.task_gpu_busy.set(gpu["busy_mean"])
    if "memory_peak_mib" in gpu:
        m.task_gpu_memory.set(gpu["memory_peak_mib"] * (1 << 20))


def failure_reason(text: str) -> str:
    """One of REASONS: few enough to be a label, whatever errors say."""
    if text in REASONS:
        return text
    return next((n for n, p in _REASONS if re.search(p, text, re.IGNORECASE)), "other")


def block_done(count: int = 1) -> None:
    """Blocks of a tile are finished."""
    if _live is not None:
        _live.blocks.inc(count)


def lease_event(event: LeaseEvent) -> None:
    """Something happened to a message's lease."""
    if _live is not None:
        _live.lease_events.labels(event).inc()


def queue_depth(
    queue: str,
    *,
    visible: int,
    in_flight: int,
    delayed: int = 0,
    dead: int | None = None,
    oldest_age: float | None = None,
) -> None:
    """How the queue stands, as SQS says approximately; None where it doesn't tell."""
    if _live is None:
        return
    counts = {"visible": visible, "in_flight": in_flight, "delayed": delayed, "dead": dead}
    for state, count in counts.items():
        if count is not None:
            _live.queue.labels(queue, state).set(count)
    if oldest_age is not None:
        _live.queue_age.labels(queue).set(oldest_age)


def memory_used(resident: int) -> None:
    """Bytes resident in this process and its children."""
    if _live is not None:
        _live.memory.set(resident)


def gpu_reading(
    gpu: str,
    name: str,
    *,
    busy: float | None = None,
    memory_used: int | None = None,
    memory_total: int | None = None,
    watts: float | None = None,
    sm_clock_hz: float | None = None,
    memory_clock_hz: float | None = None,
    celsius: float | None = None,
) -> None:
    """One look at a device; `busy` is a fraction of 1; what the driver doesn't tell stays None."""
    if _live is None:
        return
    readings = (
        (_live.gpu_busy, busy), (_live.gpu_memory_used, memory_used),
        (_live.gpu_memory_total, memory_total), (_live.gpu_watts, watts),
        (_live.gpu_celsius, celsius),
    )  # fmt: skip
    for gauge, value in readings:
        if value is not None:
            gauge.labels(gpu, name).set(value)
    for domain, hertz in (("sm", sm_clock_hz), ("memory", memory_clock_hz)):
        if hertz is not None:
            _live.gpu_clock.labels(gpu, name, domain).set(hertz)
