"""The default executor: one supervised process. Whatever happens in there costs one tile."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import replace
from multiprocessing.connection import wait
from typing import Any, NoReturn

from odc_stats_gpu.engine._job import (
    CancelToken,
    Guard,
    OnProgress,
    Prepared,
    RunRequest,
    TaskJob,
    TaskResult,
)
from odc_stats_gpu.engine._process import WorkerProcess
from odc_stats_gpu.errors import Cancelled, ConfigError, DataError, OdcStatsError
from odc_stats_gpu.telemetry import log

_LOOK = 0.1
"""Seconds between two looks at the cancel token and the clock."""
_START = 120.0
"""Seconds after which a worker that doesn't answer is given up; a cold disk can be slow."""
_SWEEP = 30.0
_GRACE = 4.0
"""Seconds between SIGTERM and SIGKILL: enough to remove temporary files."""


class _Died(Exception):  # noqa: N818 - a fact, not an error of ours
    """The process ended in the middle."""


class WorkerExecutor:
    """Tiles one after another in a process of their own; it is replaced when it dies or hangs."""

    slots = 1

    def __init__(
        self,
        request: RunRequest,
        *,
        time_limit: float = 0,
        token: CancelToken | None = None,
        progress: OnProgress | None = None,
        process: WorkerProcess | None = None,
    ) -> None:
        """`time_limit` in seconds per tile, 0 for none; `process` one that was started earlier."""
        self._request, self._time_limit = request, time_limit
        self._token = token or CancelToken()
        self._progress = progress or (lambda *_: None)
        self._process: WorkerProcess | None = process
        self._greeted = self._prepared = False
        self._waiting: deque[tuple[TaskJob, Future[TaskResult], Guard | None]] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._expected: TaskJob | None = None
        self._thread: threading.Thread | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the worker, if there is one."""
        return self._process.pid if self._process is not None else None

    def prepare(self, request: RunRequest) -> Prepared:
        """Validate in the worker: this process stays small and is free to listen."""
        self._request, self._greeted = request, False
        try:
            prepared = self._ask(("prepare",), time.monotonic() + _START)
        except _Died as exc:
            raise DataError(
                f"the worker process {exc} while it read the task database",
                "look at the database and the memory limit",
            ) from None
        if not isinstance(prepared, Prepared):
            raise TypeError(f"the worker answered {type(prepared)}")
        self._prepared = True
        return prepared

    def submit(self, job: TaskJob, guard: Guard | None = None) -> Future[TaskResult]:
        """Queue a tile."""
        future: Future[TaskResult] = Future()
        with self._changed:
            if self._closing:
                raise RuntimeError("the executor is closed")
            self._waiting.append((job, future, guard))
            self._changed.notify()
            if self._thread is None:
                self._thread = threading.Thread(target=self._supervise, name="supervisor")
                self._thread.start()
        return future

    def expect(self, job: TaskJob) -> None:
        """The worker plans this tile beside the one in work."""
        self._expected = job

    def kill(self, reason: str) -> None:
        """Stop the tile in work; its temporary files are removed."""
        self._token.cancel(reason)

    def close(self) -> None:
        """End the worker and the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread is not None:
            if self._waiting:
                self._token.cancel("closed")
            self._thread.join()
        if self._process is not None:
            process, self._process = self._process, None
            if self._token.cancelled:
                process.stop(_GRACE)
            else:
                process.leave()

    def _supervise(self) -> None:
        """Body of the thread: job after job until closed."""
        while True:
            with self._changed:
                while not self._waiting and not self._closing:
                    self._changed.wait()
                if not self._waiting:
                    return
                job, future, guard = self._waiting[0]
            try:
                future.set_result(self._make(job, guard))
            except BaseException as exc:  # noqa: BLE001 - it belongs to who waits for the future
                future.set_exception(exc)
            with self._changed:
                self._waiting.popleft()

    def _make(self, job: TaskJob, guard: Guard | None) -> TaskResult:
        """One tile in the worker; a death or a time-out becomes a failed result."""
        started = time.monotonic()
        limit = started + self._time_limit if self._time_limit > 0 else None
        try:
            result = self._ask(("job", job), limit, guard)
        except _Died as exc:
            memory = (
                "; out of memory? lower --memory-limit or --threads" if "KILL" in str(exc) else ""
            )
            error = f"the worker process {exc}{memory}"
        except TimeoutError:
            error = f"stopped after max_processing_time = {self._time_limit:g} s"
        else:
            if isinstance(result, TaskResult):
                return result
            error = f"the worker answered {type(result).__name__}"
        self._sweep(job)
        self._token.check()  # a signal to all our processes: the tile didn't fail, it was stopped
        return TaskResult(
            job.tile, "failed", error=error, seconds=round(time.monotonic() - started, 3)
        )

    def _sweep(self, job: TaskJob) -> None:
        """Let a new worker remove what the dead one left of the tile."""
        # whatever goes wrong here, what is told is what went wrong before
        with contextlib.suppress(_Died, TimeoutError, OdcStatsError, RuntimeError):
            self._ask(("sweep", job), time.monotonic() + _SWEEP)

    def _ask(
        self, message: tuple[Any, ...], limit: float | None, guard: Guard | None = None
    ) -> Any:
        """Send, then serve the worker's messages until it answers.

        Raises _Died, TimeoutError and Cancelled (the worker is killed), or what the worker raised.
        """
        process = self._ready()
        try:
            process.pipe.send(message)
            while True:
                self._token.check()
                if guard is not None:
                    guard()
                if limit is not None and time.monotonic() > limit:
                    raise TimeoutError
                if self._expected is not None and message[0] == "job":
                    expected, self._expected = self._expected, None
                    if expected != message[1]:  # else its turn has come before we could tell
                        process.pipe.send(("expect", expected))
                if not wait([process.pipe], _LOOK):
                    continue
                kind, *rest = process.pipe.recv()
                if kind == "answer":
                    return rest[0]
                if kind == "raise":
                    raise rest[0]
                if kind == "confirm":
                    self._token.check()
                    if guard is not None:
                        guard()
                    process.pipe.send(("go",))
                    continue
                self._hear(kind, rest)
        except (EOFError, ConnectionError) as exc:
            self._died(process, exc)
        except (TimeoutError, Cancelled):
            self._process = None
            process.stop(_GRACE)
            raise

    def _died(self, process: WorkerProcess, exc: BaseException) -> NoReturn:
        self._process = None
        raise _Died(process.end()) from exc

    def _ready(self) -> WorkerProcess:
        """A process that knows the request; a new one when the last is gone."""
        self._token.check()
        if self._process is not None and not self._process.alive:
            self._process.stop(0)
            self._process = None
        if self._process is None:
            self._process, self._greeted = WorkerProcess(), False
            if self._prepared:  # the next first read is not the command's
                self._request = replace(self._request, started=0.0)
        if not self._greeted:
            try:
                self._process.pipe.send(("hello", self._request))
            except OSError as exc:
                self._died(self._process, exc)
            self._greeted = True
        return self._process

    def _hear(self, kind: str, rest: list[Any]) -> None:
        if kind == "log":
            event, level, fields = rest
            log(event, level=level, **fields)
        elif kind == "progress":
            self._progress(*rest)
        else:
            raise ConfigError(f"the worker said {kind!r}", "is it of the same version?")
