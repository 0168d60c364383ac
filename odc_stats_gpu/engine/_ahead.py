"""The next message of a worker, taken while a tile is in work."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future

from odc_stats_gpu.engine._executor import Executor
from odc_stats_gpu.engine._job import TaskJob
from odc_stats_gpu.queue import (
    Consumer,
    Delivery,
    Keeper,
    Start,
    hand_back,
    in_background,
    settled,
)
from odc_stats_gpu.telemetry import log

_WORTH = 2.0
"""Seconds that a tile must have been in work: a skipped one is over before."""
_LAST = 3.0
"""Seconds that taking a message still has when told to leave."""


def job_of(delivery: Delivery) -> TaskJob:
    """The job that a message asks for."""
    return TaskJob(str(delivery.message.index), delivery.message.filedb, guarded=True)


class Ahead:
    """At most one further message: its lease is kept, its database fetched and its plan made.

    Off unless `enabled`: whatever ends the whole worker counts against this message, too.
    """

    def __init__(
        self,
        consumer: Consumer,
        keeper: Keeper,
        executor: Executor,
        stop: threading.Event,
        *,
        enabled: bool,
        start: Start = in_background,
    ) -> None:
        """`start` runs the calls of the queue."""
        self._consumer, self._keeper, self._executor = consumer, keeper, executor
        self._stop, self._enabled, self._start = stop, enabled, start
        self._look: Future[Delivery | None] | None = None
        self._due = 0.0
        self._giving: Future[bool] | None = None

    def following(self, source: Iterator[Delivery]) -> Iterator[Delivery]:
        """Deliveries of `source`, each followed by the one that was taken meanwhile."""
        for first in source:
            delivery: Delivery | None = first
            while delivery is not None:
                self._due = time.monotonic() + _WORTH
                yield delivery
                delivery = self.take()

    def look(self) -> None:
        """Take the next message, once per tile; returns at once."""
        if self._enabled and self._look is None and time.monotonic() >= self._due:
            self._look = self._start(self._reserve)

    def give_back(self) -> None:
        """Begin to hand back what was taken; returns at once, `wait` waits."""
        if self._look is not None and self._giving is None:
            self._giving = in_background(lambda look=self._look: self._return(look))  # type: ignore[misc]

    def wait(self) -> None:
        """Let the handing back end; it takes seconds at most."""
        self.give_back()
        if self._giving is not None and not self._giving.result():
            log("handing the next task back takes too long: its lease runs out", level="warning")

    def _reserve(self) -> Delivery | None:
        delivery = self._consumer.ask_ahead()
        if delivery is not None:
            self._keeper.hold(delivery.lease)
            self._executor.expect(job_of(delivery))
            log("next task taken", message_id=delivery.id, next=str(delivery.message.index))
        return delivery

    def take(self) -> Delivery | None:
        """What was taken meanwhile, if it is still ours."""
        if self._look is None or not settled(self._look, self._stop, 0) or self._stop.is_set():
            return None
        look, self._look = self._look, None
        delivery = look.result()
        return None if delivery is None or delivery.lease.lost else delivery

    def _return(self, look: Future[Delivery | None]) -> bool:
        if not settled(look, self._stop, _LAST):
            look.add_done_callback(self._return_late)
            return False
        delivery = look.result()
        return delivery is None or hand_back(delivery.lease, self._start)

    def _return_late(self, look: Future[Delivery | None]) -> None:
        delivery = look.result()
        if delivery is not None:
            hand_back(delivery.lease, self._start)
