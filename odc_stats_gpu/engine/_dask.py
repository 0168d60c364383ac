"""Tiles on a Dask cluster: a LocalCluster of our own, or one that somebody else runs."""

from __future__ import annotations

import contextlib
import threading
import time
from concurrent.futures import Future
from typing import Any

from odc_stats_gpu.engine._env import ENVIRONMENT, pin_environment
from odc_stats_gpu.engine._job import (
    CancelToken,
    Guard,
    Prepared,
    RunRequest,
    TaskJob,
    TaskResult,
)
from odc_stats_gpu.engine._lifecycle import process_task, sweep_task
from odc_stats_gpu.engine._prepare import prepare, run_config
from odc_stats_gpu.errors import Cancelled, ConfigError
from odc_stats_gpu.model import RunConfig
from odc_stats_gpu.telemetry import log

_CONNECT = "10s"
_LOOK = 0.1
_GRACE = 4.0
"""Seconds that a killed tile may take to end; then its worker is restarted."""


class DaskExecutor:
    """One tile is one future on one worker, never retried; a time limit restarts the worker."""

    def __init__(
        self,
        request: RunRequest,
        *,
        scheduler: str = "",
        time_limit: float = 0,
        token: CancelToken | None = None,
    ) -> None:
        """Connect to `scheduler`, or start a LocalCluster when the run has been validated."""
        try:
            import distributed
        except ImportError:
            raise ConfigError(
                "--cluster dask and --scheduler need Dask", "pip install 'odc-stats-gpu[dask]'"
            ) from None
        self._dask = distributed
        self._request, self._scheduler, self._time_limit = request, scheduler, time_limit
        self._token = token or CancelToken()
        self._config: RunConfig | None = None
        self._cluster: Any = None
        self._client: Any = None
        self._threads: list[threading.Thread] = []
        self.slots = 1

    def prepare(self, request: RunRequest) -> Prepared:
        """Validate here, then connect: workers elsewhere get the tasks, not the database."""
        pin_environment()
        self._config = run_config(request)
        prepared = prepare(request, embed=True)
        self._connect(prepared)
        return prepared

    def submit(self, job: TaskJob, guard: Guard | None = None) -> Future[TaskResult]:
        """Send a tile to the cluster; a thread watches it. Raises ConfigError for a guarded one."""
        if guard is not None:
            raise ConfigError("a Dask cluster takes no tasks from a queue", "leave out --cluster")
        future: Future[TaskResult] = Future()
        thread = threading.Thread(target=self._watch, args=(job, future), name=f"watch {job.tile}")
        self._threads = [t for t in self._threads if t.is_alive()] + [thread]
        thread.start()
        return future

    def kill(self, reason: str) -> None:
        """Stop watching; workers in the middle of a tile are restarted on `close`."""
        self._token.cancel(reason)

    def close(self) -> None:
        """Close the client, and the cluster if it is ours."""
        if any(t.is_alive() for t in self._threads):
            self._token.cancel("closed")
        for thread in self._threads:
            thread.join()
        for thing in (self._client, self._cluster):
            if thing is not None:
                with contextlib.suppress(Exception):  # a cluster that is gone has no more to say
                    thing.close(timeout=5)
        self._client = self._cluster = None

    def _connect(self, prepared: Prepared) -> None:
        distributed = self._dask
        if self._scheduler:
            try:
                self._client = distributed.Client(self._scheduler, timeout=_CONNECT)
            except (OSError, TimeoutError, ValueError) as exc:
                raise ConfigError(
                    f"no Dask scheduler at {self._scheduler}: {' '.join(str(exc).split())}",
                    "check the address, for example tcp://host:8786",
                ) from None
        else:
            import dask

            # a tile that kills its worker is not given to the next one
            with dask.config.set({"distributed.scheduler.allowed-failures": 0}):
                self._cluster = distributed.LocalCluster(
                    n_workers=1, threads_per_worker=1, processes=True, memory_limit=0,
                    dashboard_address=None, env=dict(ENVIRONMENT), silence_logs=40,
                )  # fmt: skip
            self._client = distributed.Client(self._cluster)
        self._client.wait_for_workers(1, timeout=60)  # a cluster can come up without any
        workers = len(self._client.scheduler_info(n_workers=-1)["workers"])
        self.slots = max(workers, 1)
        log("dask", workers=workers, scheduler=self._client.scheduler.address,
            threads=prepared.threads)  # fmt: skip

    def _watch(self, job: TaskJob, future: Future[TaskResult]) -> None:
        """Body of a thread: wait for one tile, stop it when its time is up."""
        started = time.monotonic()
        try:
            future.set_result(self._result(job, started))
        except BaseException as exc:  # noqa: BLE001 - it belongs to who waits for the future
            future.set_exception(exc)

    def _result(self, job: TaskJob, started: float) -> TaskResult:
        remote = self._client.submit(
            _work, job, self._config, pure=False, retries=0, key=f"{job.tile}-{time.time_ns()}"
        )
        while not remote.done():
            if self._token.cancelled:
                self._stop(remote)
                self._sweep(job)
                raise Cancelled(self._token.reason)
            if self._time_limit > 0 and time.monotonic() > started + self._time_limit:
                self._stop(remote)
                self._sweep(job)
                error = f"stopped after max_processing_time = {self._time_limit:g} s"
                break
            time.sleep(_LOOK)
        else:
            try:
                result: TaskResult = remote.result(timeout=30)
                return result
            except Exception as exc:  # noqa: BLE001 - KilledWorker, CancelledError, lost connections
                error = f"{type(exc).__name__}: {' '.join(str(exc).split())[:300]}"
                self._sweep(job)
        seconds = round(time.monotonic() - started, 3)
        return TaskResult(job.tile, "failed", error=error, seconds=seconds)

    def _stop(self, remote: Any) -> None:
        """Cancelling a future doesn't stop its thread: the worker that runs it is restarted."""
        with contextlib.suppress(Exception):  # whoever is gone needs no stopping
            busy = self._client.processing()
            where = [w for w, keys in busy.items() if remote.key in keys]
            remote.cancel(force=True)
            if where:
                self._client.restart_workers(where, timeout=_GRACE, raise_for_error=False)

    def _sweep(self, job: TaskJob) -> None:
        """Remove what a killed worker left; here, where the store is the same."""
        with contextlib.suppress(Exception):  # the next attempt at the tile does it anyway
            if self._config is not None:
                sweep_task(job, self._config)


def _work(job: TaskJob, config: RunConfig) -> TaskResult:
    """Runs in the Dask worker."""
    pin_environment()
    return process_task(job, config)
