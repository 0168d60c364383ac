"""Where tiles are made: in this process, in a supervised worker, on Dask. One small protocol."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Protocol

from odc_stats_gpu.engine._job import Guard, Prepared, RunRequest, TaskJob, TaskResult


class Executor(Protocol):
    """Runs one tile per future. Nothing survives `close`: no thread, no process."""

    @property
    def slots(self) -> int:
        """Tiles that can be in work at the same time."""

    def prepare(self, request: RunRequest) -> Prepared:
        """Validate everything and name the jobs; raises ConfigError or DataError."""

    def submit(self, job: TaskJob, guard: Guard | None = None) -> Future[TaskResult]:
        """Make one tile. The future fails with Cancelled when the executor is killed meanwhile.

        `guard` is called all along and before anything is published; it stops this one tile by
        raising Cancelled.
        """

    def expect(self, job: TaskJob) -> None:
        """A hint that this job may come next: what can be prepared is; it may be ignored."""

    def kill(self, reason: str) -> None:
        """Stop what is running within seconds; it publishes nothing. No more jobs are taken."""

    def close(self) -> None:
        """Leave nothing behind; within 10 s, also in the middle of a job."""
