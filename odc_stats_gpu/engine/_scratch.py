"""A temporary folder that goes with its process, at the latest when the next one comes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path

_PREFIX = "odc-stats-gpu-dask-"


class Scratch:
    """The folder in which Dask's workers have their working directories."""

    def __init__(self) -> None:
        parent = Path(tempfile.gettempdir())
        for old in parent.glob(f"{_PREFIX}{os.getuid()}-*"):
            _remove_if_abandoned(old)
        while True:
            self.folder = tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getuid()}-", dir=parent)
            lock = Path(self.folder) / ".lock"
            self._lock = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
            with contextlib.suppress(OSError):  # a file system without locks: we remove it anyway
                fcntl.flock(self._lock, fcntl.LOCK_EX)
            if lock.exists():  # nobody has taken it for abandoned meanwhile
                break
            os.close(self._lock)

    def remove(self) -> None:
        """Remove the folder; harmless the second time."""
        if self._lock >= 0:
            shutil.rmtree(self.folder, ignore_errors=True)
            os.close(self._lock)
            self._lock = -1


def _remove_if_abandoned(folder: Path) -> None:
    """The lock is held as long as the process that made the folder lives."""
    with contextlib.suppress(OSError):
        lock = os.open(folder / ".lock", os.O_RDWR)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(lock)
