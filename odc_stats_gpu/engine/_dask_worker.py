"""Inside a Dask worker: makes tiles, sends its log lines and progress to whoever asked for them.

`dask_setup` is Dask's preload hook, used in workers that we start; `work` and `greet` also run in
workers of a cluster that somebody else runs.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import logging
import os
import signal
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

from odc_stats_gpu.engine._env import pin_environment
from odc_stats_gpu.engine._job import CancelToken, TaskJob, TaskResult
from odc_stats_gpu.model import RunConfig
from odc_stats_gpu.telemetry import Level, capture_library_messages, log, set_sink

_PR_SET_PDEATHSIG = 1
_LAST_WORDS = 3.0
"""Seconds for removing temporary files after a SIGTERM."""

_LAST = "last-error"
_LENGTH = 500

_token = CancelToken()
"""Set by SIGTERM: there is no second tile after that."""
_busy = threading.Lock()
"""Held while a tile is made."""


def dask_setup(worker: Any) -> None:
    """Called by Dask in the main thread of a worker process of ours, before it gets any work."""
    talk = DaskMessages(Path(worker.local_directory).parents[1])
    for name in ("distributed", "dask_cuda", "tornado", "tornado.application", "asyncio"):
        logging.getLogger(name).handlers[:] = [talk]
        logging.getLogger(name).propagate = False
    os.dup2(2, 1)  # what a plugin prints must not mix with our own output
    os.setsid()  # Ctrl-C is for the parent; a kill reaches the whole group
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _terminate)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    pin_environment()


class DaskMessages(logging.Handler):
    """What Dask says, as debug lines of ours; errors of a worker also into a file of `folder`.

    A worker that fails to start can't tell us why in another way: its nanny hears that it failed.
    """

    def __init__(self, folder: Path | None = None) -> None:
        super().__init__(logging.WARNING)
        self._folder = folder

    def emit(self, record: logging.LogRecord) -> None:
        """Into the log and the file."""
        error = record.exc_info[1] if record.exc_info else None
        while error is not None and (deeper := error.__cause__ or error.__context__) is not None:
            error = deeper
        text = " ".join(record.getMessage().split())
        if error is not None:
            text = f"{text}: {type(error).__name__}: {' '.join(str(error).split())}"
        log(text[:_LENGTH], level="debug", logger=record.name)
        if self._folder is not None and record.levelno >= logging.ERROR:
            with contextlib.suppress(OSError):  # the folder is gone when the run ends
                (self._folder / _LAST).write_text(text[:_LENGTH])


def last_words(folder: str) -> str:
    """The last error that a worker left in that folder; empty without."""
    with contextlib.suppress(OSError):
        return (Path(folder) / _LAST).read_text()
    return ""


def _terminate(_number: int, _frame: FrameType | None) -> None:
    """Give up the tile, then leave; a tile in the middle of a kernel is not waited for."""
    _token.cancel("terminated")

    def leave() -> None:
        _busy.acquire(timeout=_LAST_WORDS)
        time.sleep(0.05)  # an answer may be on its way
        os._exit(0)

    threading.Thread(target=leave, daemon=True).start()


def greet(config: RunConfig) -> tuple[str, str]:
    """Name of this worker's device, and why it is no GPU (or nothing).

    Raises ConfigError when the device that was asked for can't be had.
    """
    from odc_stats_gpu.engine._session import session_for

    pin_environment()
    session = session_for(config)
    return session.device.name, session.why_cpu


def work(job: TaskJob, config: RunConfig, topic: str, started: float) -> TaskResult:
    """Make a tile; lines and progress go to `topic`. `started`: of the command, or 0."""
    from odc_stats_gpu.engine._lifecycle import process_task
    from odc_stats_gpu.ingest import on_first_read

    pin_environment()
    tell = _Speaker(topic)
    set_sink(tell.log)
    capture_library_messages()
    if started:
        on_first_read(lambda: log("first_read", seconds=round(time.time() - started, 3)))
    with _busy:
        return process_task(job, config, _token, tell.progress)


class _Speaker:
    """Sends messages to the run that gave the work, through Dask's scheduler."""

    def __init__(self, topic: str) -> None:
        from distributed import get_worker

        self._worker, self._topic = get_worker(), topic

    def log(self, event: str, level: Level, fields: dict[str, Any]) -> None:
        plain = json.loads(json.dumps(fields, default=str))  # numbers of NumPy, paths, errors
        self._worker.log_event(self._topic, ["log", event, level, plain])

    def progress(self, tile: str, done: int, total: int) -> None:
        self._worker.log_event(self._topic, ["progress", tile, int(done), int(total)])
