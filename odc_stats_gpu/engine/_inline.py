"""`--cluster none`: tiles are made in this process, for debugging and as the simplest executor."""

from __future__ import annotations

import time
from concurrent.futures import Future

from odc_stats_gpu.engine._job import (
    CancelToken,
    Guard,
    OnProgress,
    Prepared,
    RunRequest,
    TaskJob,
    TaskResult,
)
from odc_stats_gpu.engine._lifecycle import process_task
from odc_stats_gpu.engine._prepare import prepare, run_config
from odc_stats_gpu.errors import Cancelled
from odc_stats_gpu.ingest import on_first_read
from odc_stats_gpu.model import RunConfig
from odc_stats_gpu.telemetry import log


class InlineExecutor:
    """Runs a job inside `submit`; a future is always finished. No time limit, no isolation."""

    slots = 1

    def __init__(
        self, token: CancelToken | None = None, progress: OnProgress | None = None
    ) -> None:
        self._token = token or CancelToken()
        self._progress = progress or (lambda *_: None)
        self._config: RunConfig | None = None

    def prepare(self, request: RunRequest) -> Prepared:
        """Validate in this process."""
        self._token.interrupts = True
        self._config = run_config(request)
        on_first_read(lambda: log("first_read", seconds=round(time.time() - request.started, 3)))
        prepared = prepare(request)
        self._token.interrupts = not request.queue  # no answer of the queue may get lost
        return prepared

    def submit(self, job: TaskJob, guard: Guard | None = None) -> Future[TaskResult]:
        """Make the tile, then return."""
        if self._config is None:
            raise RuntimeError("prepare() comes before submit()")
        future: Future[TaskResult] = Future()

        def progress(tile: str, done: int, total: int) -> None:
            if guard is not None:
                guard()
            self._progress(tile, done, total)

        before, self._token.interrupts = self._token.interrupts, True
        try:
            future.set_result(process_task(job, self._config, self._token, progress, guard))
        except Cancelled as exc:
            future.set_exception(exc)
        finally:
            self._token.interrupts = before
        return future

    def expect(self, job: TaskJob) -> None:
        """Nothing is prepared: one thing after the other."""

    def kill(self, reason: str) -> None:
        """Set the flag that the next step of the tile looks at."""
        self._token.cancel(reason)

    def close(self) -> None:
        """Nothing to leave."""
