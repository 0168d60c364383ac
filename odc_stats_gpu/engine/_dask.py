"""Tiles on Dask: a LocalCluster or LocalCUDACluster of our own, or a cluster of somebody else."""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

from odc_stats_gpu.engine._cuda_cluster import Share
from odc_stats_gpu.engine._dask_cluster import Workers
from odc_stats_gpu.engine._dask_places import Place, Places
from odc_stats_gpu.engine._dask_worker import greet, work
from odc_stats_gpu.engine._env import pin_environment
from odc_stats_gpu.engine._job import (
    CancelToken,
    Guard,
    OnProgress,
    Prepared,
    RunRequest,
    TaskJob,
    TaskResult,
)
from odc_stats_gpu.engine._lifecycle import sweep_task
from odc_stats_gpu.engine._prepare import prepare, run_config
from odc_stats_gpu.errors import Cancelled, ConfigError
from odc_stats_gpu.model import RunConfig
from odc_stats_gpu.telemetry import log

_LOOK = 0.05
_START = 120.0
"""Seconds that a worker may take to come, or to come back."""
_ANSWER = 10.0
_ATTEMPTS = 2

Connect = Callable[[Prepared, CancelToken], tuple[Workers, Share | None]]
"""Gets workers for a validated run, and says what each may use; None: that is their own affair."""


class _Died(Exception):  # noqa: N818 - a fact, not an error of ours
    """The worker ended in the middle of the tile."""


class DaskExecutor:
    """One tile is one future on one worker, by name; Dask itself repeats and moves nothing.

    A tile whose worker dies is made once more, on another worker where there is one.
    """

    def __init__(
        self,
        connect: Connect,
        *,
        device: str = "",
        time_limit: float = 0,
        token: CancelToken | None = None,
        progress: OnProgress | None = None,
    ) -> None:
        """`connect` is called when the run has been validated; `time_limit` in s, 0 for none.

        `device`: what every worker must have, instead of what the configuration says.
        """
        self._connect, self._time_limit, self._device = connect, time_limit, device
        self._token = token or CancelToken()
        self._progress = progress or (lambda *_: None)
        self._topic = f"odc-stats-gpu-{uuid.uuid4().hex}"
        self._started = 0.0
        self._here: RunConfig | None = None
        self._there: RunConfig | None = None
        self._workers: Workers | None = None
        self._places = Places(self._token)
        self._threads: list[threading.Thread] = []
        self._active: set[str] = set()

    @property
    def slots(self) -> int:
        """As many tiles as there are workers."""
        return self._places.count

    def prepare(self, request: RunRequest) -> Prepared:
        """Validate here, then get workers: they are sent tasks, and never see the database.

        Raises ConfigError, also when workers don't come or have no device; Cancelled.
        """
        pin_environment()
        config = run_config(request)
        here = {**request.config, "device": "cpu"}  # no CUDA context beside those of the workers
        self._here = run_config(replace(request, config=here))
        prepared = prepare(replace(request, config=here), embed=True)
        self._token.check()
        workers, share = self._connect(prepared, self._token)
        self._workers = workers
        self._places.workers = workers
        self._there = config
        if self._device:
            self._there = config.model_copy(update={"device": self._device})
        if share is not None:
            self._there = self._there.model_copy(
                update={"threads": share.threads, "memory_limit": str(share.memory)}
            )
        workers.client.subscribe_topic(self._topic, self._hear)
        self._started = request.started
        devices = self._greet(workers)
        facts: dict[str, Any] = (
            {"threads_each": share.threads, "memory_limit_mib_each": share.memory >> 20}
            if share is not None
            else {}
        )
        log("dask", workers=self._places.refresh(),
            scheduler=workers.client.scheduler.address, **facts)  # fmt: skip
        return replace(prepared, device=", ".join(dict.fromkeys(devices)),
                       config=config.redacted())  # fmt: skip

    def submit(self, job: TaskJob, guard: Guard | None = None) -> Future[TaskResult]:
        """Send a tile to a worker; a thread watches it. Raises ConfigError for a guarded one."""
        if guard is not None:
            raise ConfigError("a Dask cluster takes no tasks from a queue", "leave out --cluster")
        future: Future[TaskResult] = Future()
        thread = threading.Thread(target=self._watch, args=(job, future), name=f"watch {job.tile}")
        self._threads = [t for t in self._threads if t.is_alive()] + [thread]
        thread.start()
        return future

    def expect(self, job: TaskJob) -> None:
        """Nothing is prepared: tasks from a queue aren't made here."""

    def kill(self, reason: str) -> None:
        """Stop every tile; the workers that made them are ended."""
        self._token.cancel(reason)

    def close(self) -> None:
        """End what is ours: workers, scheduler, threads, scratch folder."""
        if any(t.is_alive() for t in self._threads):
            self._token.cancel("closed")
        for thread in self._threads:
            thread.join()
        if self._workers is not None:
            self._workers.close()
            self._workers = None

    def _greet(self, workers: Workers) -> list[str]:
        """Names of the workers' devices; raises ConfigError when one can't have its own."""
        futures = {
            place: workers.client.submit(
                greet, self._there, key=f"greet-{uuid.uuid4().hex}", pure=False, retries=0,
                workers=[address], allow_other_workers=False,
            )
            for place, address in workers.alive().items()
        }  # fmt: skip
        names, reasons = [], []
        until = time.monotonic() + _START
        for place, future in futures.items():
            while not future.done():
                self._token.check()
                if time.monotonic() > until:
                    raise ConfigError(
                        f"Dask worker {place} doesn't answer", "look for what blocks it there"
                    )
                time.sleep(_LOOK)
            try:
                name, why = future.result(timeout=_ANSWER)
            except ConfigError as exc:
                raise ConfigError(f"Dask worker {place}: {exc.message}", exc.remedy) from None
            except Exception as exc:
                raise ConfigError(
                    f"Dask worker {place} can't make tiles: {_one_line(exc)}",
                    "is the same odc-stats-gpu installed there?",
                ) from exc
            names.append(name)
            reasons.append(why)
        for why in dict.fromkeys(filter(None, reasons)):
            log(why)
        return names

    def _hear(self, event: tuple[float, Any]) -> None:
        """A worker's log line or progress; runs in the client's thread."""
        kind, *rest = event[1]
        if kind == "log":
            said, level, fields = rest
            log(said, level=level, **fields)
        elif kind == "progress" and rest[0] in self._active:
            self._progress(*rest)

    def _watch(self, job: TaskJob, future: Future[TaskResult]) -> None:
        """Body of a thread: one tile from here to its end."""
        try:
            future.set_result(self._result(job))
        except BaseException as exc:  # noqa: BLE001 - it belongs to who waits for the future
            future.set_exception(exc)

    def _result(self, job: TaskJob) -> TaskResult:
        """The tile on one worker, and once more on another if that one dies."""
        began = time.monotonic()
        died: list[str] = []
        while True:
            place = self._places.take(avoid=died, seconds=_START)
            if place is None:
                error = "no Dask worker is left, and none came back"
                break
            self._active.add(job.tile)
            try:
                return self._attempt(job, place)
            except TimeoutError:
                self._places.bury(place)
                error = f"stopped after max_processing_time = {self._time_limit:g} s"
                break
            except _Died:
                self._places.bury(place)
                died.append(place.name)
                error = (
                    f"its worker process died {len(died)} times, on {' and '.join(died)}; out of "
                    "memory? lower --memory-limit or --threads"
                )
                if len(died) >= _ATTEMPTS:
                    break
                log("task is repeated: its worker process died", level="warning", tile=job.tile,
                    worker=place.name)  # fmt: skip
            finally:
                self._active.discard(job.tile)
                self._places.give(place)
        self._sweep(job)
        return TaskResult(
            job.tile, "failed", error=error, seconds=round(time.monotonic() - began, 3)
        )

    def _attempt(self, job: TaskJob, place: Place) -> TaskResult:
        """Raises _Died, TimeoutError and Cancelled; the worker is then ended."""
        client = self._workers.client if self._workers is not None else None
        if client is None:
            raise Cancelled("closed")
        began = time.monotonic()
        limit = began + self._time_limit if self._time_limit > 0 else None
        started, self._started = self._started, 0.0
        remote = client.submit(
            work, job, self._there, self._topic, started, pure=False, retries=0,
            key=f"{job.tile}-{uuid.uuid4().hex}", workers=[place.address],
            allow_other_workers=False,
        )  # fmt: skip
        look = time.monotonic() + 1
        absent = 0
        while not remote.done():
            if self._token.cancelled:
                self._stop(remote, place)
                self._sweep(job)
                raise Cancelled(self._token.reason)
            now = time.monotonic()
            if limit is not None and now > limit:
                self._stop(remote, place)
                raise TimeoutError
            if now > look:
                look = now + 1
                absent = 0 if self._places.has(place) else absent + 1
                if absent > 1:  # Dask waits for a worker of that address for ever
                    self._forget(remote)
                    raise _Died
            time.sleep(_LOOK)
        return self._answer(job, remote, began)

    def _answer(self, job: TaskJob, remote: Any, began: float) -> TaskResult:
        """What became of a finished future."""
        import distributed

        try:
            result: TaskResult = remote.result(timeout=_ANSWER)
            return result
        except (distributed.scheduler.KilledWorker, Cancelled, TimeoutError):
            self._token.check()
            self._forget(remote)
            raise _Died from None
        except distributed.CancelledError:
            self._token.check()
            error = "the connection to the Dask scheduler was lost"
        except Exception as exc:  # noqa: BLE001 - a task or result that can't be unpickled there
            self._token.check()
            error = _one_line(exc)
        return TaskResult(
            job.tile, "failed", error=error, seconds=round(time.monotonic() - began, 3)
        )

    def _stop(self, remote: Any, place: Place) -> None:
        """Cancelling a future doesn't stop its thread: the process is ended."""
        self._forget(remote)
        with contextlib.suppress(Exception):  # whoever is gone needs no stopping
            if self._workers is not None:
                if self._token.cancelled:
                    self._workers.retire()
                self._workers.stop(place.address)

    def _forget(self, remote: Any) -> None:
        with contextlib.suppress(Exception):  # the scheduler may be gone
            remote.cancel(force=True)

    def _sweep(self, job: TaskJob) -> None:
        """Remove what a killed worker left of the tile; here, where the store is the same."""
        with contextlib.suppress(Exception):  # the next attempt at the tile does it anyway
            if self._here is not None:
                sweep_task(job, self._here)


def _one_line(exc: BaseException) -> str:
    return f"{type(exc).__name__}: {' '.join(str(exc).split())[:300]}"
