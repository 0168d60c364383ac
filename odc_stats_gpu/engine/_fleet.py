"""One worker of a fleet: take a task from the queue, make its tile, say how it went."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass

from odc_stats_gpu.engine._ahead import Ahead, job_of
from odc_stats_gpu.engine._executor import Executor
from odc_stats_gpu.engine._job import CancelToken, RunSummary, TaskJob, TaskResult
from odc_stats_gpu.errors import Cancelled
from odc_stats_gpu.queue import (
    Consumer,
    Delivery,
    Keeper,
    Lease,
    Start,
    deliveries,
    hand_back,
    in_background,
    settled,
    sqs_errors,
)
from odc_stats_gpu.telemetry import bind_log, log, metrics

_LOOK = 0.1
_STOPPING = 1.0
"""Seconds that interrupted work may take to stop before its message is given back."""
_LAST = 3.0
"""Seconds that a call of the queue still has when told to leave."""


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
    prefetch: bool = False
    """Take and prepare the next message while a tile is in work."""


def work_queue(
    terms: QueueTerms,
    executor: Executor,
    on_result: Callable[[TaskJob, TaskResult], None],
    token: CancelToken,
) -> RunSummary:
    """Work until the queue stays empty, `max_tasks` are done or `token` is set.

    A message is deleted only after its STAC item was read back; a failed task is released with a
    growing delay; a task whose lease is lost stops and publishes nothing; what is in work when
    `token` is set goes back to the queue at once. Raises ConfigError when there is no such queue,
    StoreError when it hasn't answered for the idle time-out.
    """
    summary, started = RunSummary(), time.monotonic()

    def lost(lease: Lease) -> None:
        metrics.lease_event("lost")
        log("lease lost", level="warning", message_id=lease.message["MessageId"])

    def malformed(text: str) -> None:
        metrics.lease_event("malformed")
        log("malformed message released", level="warning", reason=text)

    consumer = Consumer(
        terms.url, lease_seconds=terms.lease_seconds, idle_timeout=terms.idle_timeout,
        filedb=terms.filedb, on_malformed=malformed,
        on_trouble=lambda text: log(text, level="warning"),
    )  # fmt: skip
    hand = Hand(executor, summary, on_result, token)
    with Keeper(terms.renew_margin, terms.heartbeat, lost) as keeper:
        ahead = Ahead(consumer, keeper, executor, token.event, enabled=terms.prefetch)
        for delivery in ahead.following(deliveries(consumer, keeper, token.event)):
            with bind_log(
                task=str(delivery.message.index), message_id=delivery.id,
                attempt=delivery.lease.receives,
            ):  # fmt: skip
                future = hand.take(delivery)
                while not hand.settle():
                    wait([future], timeout=_LOOK)
                    if token.cancelled:
                        ahead.give_back()  # at the same time as what is in work
                    elif not terms.max_tasks or summary.total + 1 < terms.max_tasks:
                        ahead.look()
                keeper.drop(delivery.lease)
            if token.cancelled or (terms.max_tasks and summary.total >= terms.max_tasks):
                break
        ahead.wait()
    summary.interrupted = token.cancelled
    summary.seconds = round(time.monotonic() - started, 3)
    return summary


class Hand:
    """The tile that a worker holds, from the receipt of its message to the end of its lease."""

    def __init__(
        self,
        executor: Executor,
        summary: RunSummary,
        on_result: Callable[[TaskJob, TaskResult], None],
        token: CancelToken,
        start: Start = in_background,
    ) -> None:
        """`start` runs the calls of the queue, none of which may keep us from leaving."""
        self._executor, self._summary, self._on_result = executor, summary, on_result
        self._token, self._start = token, start
        self._lease: Lease
        self._job: TaskJob
        self._work: Future[TaskResult]
        self._began = 0.0

    def take(self, delivery: Delivery) -> Future[TaskResult]:
        """Begin a tile; call `settle` until it says that it is over."""
        metrics.lease_event("received")
        metrics.task_started()
        self._lease, self._began = delivery.lease, time.monotonic()
        self._job = job_of(delivery)
        self._work = self._executor.submit(self._job, delivery.lease.check)
        return self._work

    def settle(self) -> bool:
        """Acknowledge, release or hand back the message when its work is over or called off."""
        if not self._work.done() and not self._token.cancelled:
            return False
        if not self._work.done():
            self._executor.kill(self._token.reason)
            wait([self._work], timeout=_STOPPING)
        result = self._result()
        if result is not None:
            self._report(result)
        else:
            metrics.task_finished("interrupted", time.monotonic() - self._began)
            if self._token.cancelled:
                self._hand_back()
        return True

    def _result(self) -> TaskResult | None:
        """What the executor says; None when the work was called off."""
        if not self._work.done():
            return None
        try:
            return self._work.result()
        except Cancelled:
            return None
        except Exception as exc:  # noqa: BLE001 - whatever it is, it costs one attempt at one tile
            error = " ".join(f"{type(exc).__name__}: {exc}".split())
            seconds = round(time.monotonic() - self._began, 3)
            return TaskResult(self._job.tile, "failed", error=error, seconds=seconds)

    def _report(self, result: TaskResult) -> None:
        self._summary.add(result)
        metrics.task_finished(
            result.status, result.seconds, stages=result.stages, reason=result.error,
            peak_memory=result.peak_memory, gpu=result.gpu,
        )  # fmt: skip
        self._on_result(self._job, result)
        if result.status != "failed":
            self._acknowledge()
            return
        releasing = self._start(self._lease.back_off)
        if settled(releasing, self._token.event, _LAST):
            metrics.lease_event("released")
            log("task released", delay=round(releasing.result(), 1))

    def _acknowledge(self) -> None:
        """Delete the message; if that can't be done it comes back, and finds the tile finished."""
        deleting = self._start(self._lease.acknowledge)
        if not settled(deleting, self._token.event, _LAST):
            log("deleting the message takes too long: it may come back", level="warning")
            return
        try:
            deleting.result()
            metrics.lease_event("acknowledged")
        except sqs_errors() as exc:
            log(f"can't delete the message: {exc}", level="warning")

    def _hand_back(self) -> None:
        if self._lease.lost:
            return  # there is nothing to give: somebody else has it
        if hand_back(self._lease, self._start):
            metrics.lease_event("handed_back")
            log("task handed back")
        else:
            log("handing the task back takes too long: its lease runs out", level="warning")
