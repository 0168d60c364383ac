"""Processes by their numbers: those that live, and their certain end."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable
from typing import Any

_LOOK = 0.05
_GRACE = 4.0
"""Seconds that the system may take to end a killed process."""


def living(pids: Iterable[int]) -> list[Any]:
    """Those that live; a number that the system gives away again is not mistaken for one."""
    import psutil

    found = []
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            found.append(psutil.Process(pid))
    return found


def end(process: Any, grace: float) -> None:
    """Ask the process to leave, wait, kill its group; return when it is gone."""
    import psutil

    with contextlib.suppress(psutil.Error, ProcessLookupError):
        if grace and process.is_running():
            process.send_signal(signal.SIGTERM)
            if _gone(process, grace):
                return
        if process.is_running():
            if os.getpgid(process.pid) == process.pid:
                os.killpg(process.pid, signal.SIGKILL)
            process.kill()
            _gone(process, _GRACE)


def _gone(process: Any, seconds: float) -> bool:
    """Whether it ended in that time; Dask's own threads collect its exit code, not we."""
    import psutil

    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(_LOOK)
    return False
