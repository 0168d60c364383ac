"""The worker process: obeys the pipe, makes tiles, ends when its parent does."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from queue import SimpleQueue
from types import FrameType
from typing import Any, NoReturn

from odc_stats_gpu.engine._env import pin_environment, set_threads
from odc_stats_gpu.engine._job import CancelToken, RunRequest, TaskJob
from odc_stats_gpu.errors import Cancelled, OdcStatsError
from odc_stats_gpu.telemetry import Level, capture_library_messages, set_sink

_PR_SET_PDEATHSIG = 1
_LAST_WORDS = 3.0
"""Seconds for removing temporary files after the parent has died."""


def main(pipe_number: int, parent: int) -> NoReturn:
    """Serve until told to leave; ends by `os._exit`, so that no library can keep it alive."""
    _Worker(Connection(pipe_number), parent).serve()
    os._exit(0)


class _Worker:
    def __init__(self, pipe: Connection[Any, Any], parent: int) -> None:
        self._pipe, self._sending = pipe, threading.Lock()
        os.set_inheritable(pipe.fileno(), False)  # noqa: FBT003 - the standard library's signature
        self._inbox: SimpleQueue[tuple[Any, ...]] = SimpleQueue()
        self._token = CancelToken()
        self._request: RunRequest | None = None
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, self._terminate)
        _die_with(parent)
        set_sink(self._log)
        capture_library_messages()
        threading.Thread(target=self._listen, name="pipe", daemon=True).start()

    def serve(self) -> None:
        """Message after message."""
        pin_environment()
        try:
            from odc_stats_gpu.engine._preload import preload

            preload()
            while True:
                kind, *rest = self._inbox.get()
                if kind == "exit":
                    return
                self._obey(kind, rest)
        except Cancelled:
            return

    def _obey(self, kind: str, rest: list[Any]) -> None:
        if kind == "hello":
            self._greet(rest[0])
            return
        try:
            answer = self._answer(kind, rest)
        except Cancelled:
            raise
        except OdcStatsError as exc:
            self._send("raise", exc)
        except Exception as exc:  # noqa: BLE001 - a bug in here is the caller's to report
            error = RuntimeError(f"{type(exc).__name__}: {exc}")
            error.__cause__ = None
            self._send("raise", error)
        else:
            self._send("answer", answer)

    def _answer(self, kind: str, rest: list[Any]) -> Any:
        from odc_stats_gpu.engine._lifecycle import process_task, sweep_task
        from odc_stats_gpu.engine._prepare import prepare, run_config

        if self._request is None:
            raise RuntimeError("no hello")
        if kind == "prepare":
            return prepare(self._request)
        config = run_config(self._request)
        job: TaskJob = rest[0]
        if kind == "sweep":
            return sweep_task(job, config)
        confirm = self._confirm if job.guarded else None
        return process_task(job, config, self._token, self._progress, confirm)

    def _confirm(self) -> None:
        """Ask the supervisor whether the tile is still ours; no answer but "go" lets it pass."""
        self._send("confirm")
        kind, *_ = self._inbox.get()
        if kind != "go":
            raise Cancelled("told to leave before the tile was published")

    def _greet(self, request: RunRequest) -> None:
        from odc_stats_gpu.engine._preload import load_the_rest, unhide
        from odc_stats_gpu.ingest import on_first_read

        self._request = request
        threads = request.config.get("threads")
        set_threads(threads if isinstance(threads, int) and threads > 0 else 1 << 16)
        if "." in str(request.config.get("plugin", "")):  # not one of ours: it may use anything
            unhide()

        def first_read() -> None:
            if request.started:
                seconds = round(time.time() - request.started, 3)
                self._log("first_read", "info", {"seconds": seconds})
            load_the_rest()

        on_first_read(first_read)

    def _listen(self) -> None:
        """Body of the thread that waits for messages, and for the parent's end."""
        try:
            while True:
                message = self._pipe.recv()
                if message[0] == "expect":
                    threading.Thread(
                        target=self._plan_ahead, args=message[1:], name="plan ahead", daemon=True
                    ).start()
                else:
                    self._inbox.put(message)
        except (EOFError, OSError):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(_LAST_WORDS)
            os._exit(1)

    def _plan_ahead(self, job: TaskJob) -> None:
        """Plan the tile that may be next; whatever is wrong with it is said when it is made."""
        from odc_stats_gpu.engine._prepare import run_config
        from odc_stats_gpu.engine._session import session_for

        if self._request is not None:
            with suppress(Exception):
                session_for(run_config(self._request)).plan_ahead(job)

    def _terminate(self, _number: int, _frame: FrameType | None) -> None:
        """First SIGTERM: give up the tile. It interrupts waiting and Python code, not kernels."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        self._token.cancel("terminated")
        raise Cancelled("terminated")

    def _progress(self, tile: str, done: int, total: int) -> None:
        self._send("progress", tile, done, total)

    def _log(self, event: str, level: Level, fields: dict[str, Any]) -> None:
        plain = (str, int, float, bool, type(None), list, dict)
        self._send(
            "log", event, level,
            {k: v if isinstance(v, plain) else str(v) for k, v in fields.items()},
        )  # fmt: skip

    def _send(self, *message: Any) -> None:
        try:
            with self._sending:
                self._pipe.send(message)
        except OSError:  # the parent is gone; the listening thread ends us
            return


def _die_with(parent: int) -> None:
    """Ask the kernel for a SIGTERM at the parent's death; a closed pipe tells the same."""
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    except (OSError, AttributeError):  # not Linux
        return
    if os.getppid() != parent:  # it died before we could ask
        os._exit(1)
