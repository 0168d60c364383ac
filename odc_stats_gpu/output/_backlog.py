"""Work handed to the encoding threads: bounded, and its first failure is not lost."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from odc_stats_gpu.telemetry import stage

LIMIT = 64
"""Jobs in wait; a job holds one tile of one band, at most 800x800 pixels by default."""


class Backlog:
    """Jobs on a pool; `add` waits when there are too many, `add` and `wait` raise failures."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool
        self._changed = threading.Condition()
        self._open = 0
        self._failure: BaseException | None = None

    def add(self, job: Callable[[], None]) -> None:
        """Queue a job."""
        with self._changed:
            self._changed.wait_for(lambda: self._open < LIMIT or self._failure is not None)
            if self._failure is not None:
                raise self._failure
            self._open += 1
        self._pool.submit(self._run, job).add_done_callback(self._done)

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

    def _done(self, future: Future[None]) -> None:
        failure = None if future.cancelled() else future.exception()
        with self._changed:
            self._open -= 1
            self._failure = self._failure or failure
            self._changed.notify_all()
