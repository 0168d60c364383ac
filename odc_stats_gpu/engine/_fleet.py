"""One worker of a fleet: take a task from the queue, make its tile, say how it went."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass

from odc_stats_gpu.engine._executor import Executor
from odc_stats_gpu.engine._job import CancelToken, RunSummary, TaskJob, TaskResult
from odc_stats_gpu.errors import Cancelled
from odc_stats_gpu.queue import Delivery, Keeper, Lease, deliveries
from odc_stats_gpu.telemetry import bind_log, log, metrics

_LOOK = 0.1
_HAND_BACK = 3.0
"""Seconds that an interrupted task may take to be sent again; then its lease is let go."""


@dataclass(frozen=True, slots=True)
class QueueTerms:
    """How a worker deals with its queue."""

    url: str
    lease_seconds: int
    renew_margin: float
    idle_timeout: float | None = None
    """Seconds without anything visible after which the worker leaves; None: lease + 60."""
    max_tasks: int | None = None
    """Leave after so many."""
    filedb: str = ""
    """Database of messages that hold a bare tile id."""
    heartbeat: str = ""


def work_queue(
    terms: QueueTerms,
    executor: Executor,
    on_result: Callable[[TaskJob, TaskResult], None],
    token: CancelToken,
) -> RunSummary:
    """Work until the queue stays empty, `max_tasks` are done or `token` is set.

    A message is deleted only after its STAC item was read back; a failed task is released with a
    growing delay; a task whose lease is lost stops and publishes nothing; what is in work when
    `token` is set goes back to the queue at once.
    """
    summary, started = RunSummary(), time.monotonic()

    def lost(lease: Lease) -> None:
        metrics.lease_event("lost")
        log("lease lost", level="warning", message_id=lease.message["MessageId"])

    def malformed(text: str) -> None:
        metrics.lease_event("malformed")
        log("malformed message released", level="warning", reason=text)

    with Keeper(terms.renew_margin, terms.heartbeat, lost) as keeper:
        source = deliveries(
            terms.url, keeper, lease_seconds=terms.lease_seconds, idle_timeout=terms.idle_timeout,
            filedb=terms.filedb, stop=token.event, on_malformed=malformed,
            on_trouble=lambda text: log(text, level="warning"),
        )  # fmt: skip
        for delivery in source:
            message = delivery.lease.message["MessageId"]
            metrics.lease_event("received")
            with bind_log(
                task=str(delivery.message.index), message_id=message,
                attempt=delivery.lease.receives,
            ):  # fmt: skip
                _serve(delivery, executor, summary, on_result, token)
            keeper.drop(delivery.lease)
            if token.cancelled or (terms.max_tasks and summary.total >= terms.max_tasks):
                break
        source.close()  # type: ignore[attr-defined] # a generator
    summary.interrupted = token.cancelled
    summary.seconds = round(time.monotonic() - started, 3)
    return summary


def _serve(
    delivery: Delivery,
    executor: Executor,
    summary: RunSummary,
    on_result: Callable[[TaskJob, TaskResult], None],
    token: CancelToken,
) -> None:
    """Make one tile and settle its message."""
    lease = delivery.lease
    job = TaskJob(str(delivery.message.index), delivery.message.filedb, guarded=True)
    metrics.task_started()
    began = time.monotonic()
    future = executor.submit(job, lease.check)
    while not future.done() and not token.cancelled:
        wait([future], timeout=_LOOK)
    result = _result(future) if future.done() else None
    if result is None:
        metrics.task_finished("interrupted", time.monotonic() - began)
        if token.cancelled:
            executor.kill(token.reason)
            _hand_back(lease)
        else:  # the lease is lost: somebody else has the task now
            lease.release()
        return
    summary.add(result)
    metrics.task_finished(
        result.status, result.seconds, stages=result.stages, reason=result.error,
        peak_memory=result.peak_memory,
    )  # fmt: skip
    on_result(job, result)
    if result.status == "failed":
        delay = lease.back_off()
        metrics.lease_event("released")
        log("task released", delay=round(delay, 1))
        return
    _acknowledge(lease)


def _result(future: Future[TaskResult]) -> TaskResult | None:
    """What the executor says; None when the work was called off."""
    try:
        return future.result()
    except Cancelled:
        return None


def _acknowledge(lease: Lease) -> None:
    """Delete the message; if that can't be done it comes back, and finds the tile finished."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        lease.acknowledge()
        metrics.lease_event("acknowledged")
    except (BotoCoreError, ClientError) as exc:
        log(f"can't delete the message: {exc}", level="warning")


def _hand_back(lease: Lease) -> None:
    """Send the task again without a mark; when SQS is slow, let the lease run out instead."""
    helper = threading.Thread(target=lease.hand_back, name="hand back", daemon=True)
    helper.start()
    helper.join(_HAND_BACK)
    if helper.is_alive():
        log("handing the task back takes too long: its lease runs out", level="warning")
    else:
        metrics.lease_event("handed_back")
