"""Work handed to the encoding threads: bounded, and its first failure is not lost."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from odc_stats_gpu.telemetry import stage

LIMIT = 96 << 20
"""Bytes that may wait."""


class Backlog:
    """Jobs on a pool; `add` waits when there are too many, `add` and `wait` raise failures."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool
        self._changed = threading.Condition()
        self._open = 0
        self._bytes = 0
        self._failure: BaseException | None = None

    def add(self, job: Callable[[], None], size: int = 0) -> None:
        """Queue a job that holds `size` bytes until it has run."""
        with self._changed:
            self._changed.wait_for(lambda: self._bytes <= LIMIT or self._failure is not None)
            if self._failure is not None:
                raise self._failure
            self._open += 1
            self._bytes += size
        future = self._pool.submit(self._run, job)
        future.add_done_callback(lambda done: self._done(done, size))

    def wait(self) -> None:
        """Until all is done; raises the first failure."""
        with self._changed:
            self._changed.wait_for(lambda: self._open == 0 or self._failure is not None)
            if self._failure is not None:
                raise self._failure

    def _run(self, job: Callable[[], None]) -> None:
        if self._failure is None:
            with stage("encode"):
                job()

    def _done(self, future: Future[None], size: int) -> None:
        failure = None if future.cancelled() else future.exception()
        with self._changed:
            self._open -= 1
            self._bytes -= size
            self._failure = self._failure or failure
            self._changed.notify_all()
