"""LMDB opens a file once per process; readers of the same file share one environment."""

from __future__ import annotations

import struct
import threading
from pathlib import Path
from typing import Any

import lmdb

from odc_stats_gpu.errors import ConfigError, DataError

_MAGIC = 0xBEEFC0DE  # LMDB's, after the 16-byte header of page 0
_guard = threading.Lock()
_open: dict[tuple[int, int], tuple[Any, int]] = {}  # (device, inode) -> environment, readers


def acquire(path: Path) -> Any:
    """The read-only environment of a file; raises ConfigError (absent) or DataError (no db)."""
    _check_file(path)
    with _guard:
        key = _identity(path)
        env, readers = _open.get(key, (None, 0))
        if env is None:
            env = _open_file(path)
        _open[key] = (env, readers + 1)
        return env


def release(env: Any) -> None:
    """Close the environment with its last reader."""
    with _guard:
        for key, (other, readers) in _open.items():
            if other is env:
                if readers > 1:
                    _open[key] = (env, readers - 1)
                else:
                    del _open[key]
                    env.close()
                return


def _identity(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return (stat.st_dev, stat.st_ino)


def _check_file(path: Path) -> None:
    """LMDB maps the file blindly, so what is obviously wrong is refused first."""
    try:
        with path.open("rb") as file:
            head = file.read(20)
    except FileNotFoundError:
        raise ConfigError(f"no such task database: {path}", "write one with save-tasks") from None
    except OSError as exc:
        raise ConfigError(
            f"can't open the task database {path}: {exc.strerror}", "check the path"
        ) from None
    if len(head) < 20 or struct.unpack("=I", head[16:20])[0] != _MAGIC:
        raise DataError(f"{path} is not a task database", "write one with save-tasks")


def _open_file(path: Path) -> Any:
    try:
        env = lmdb.open(
            str(path),
            subdir=False,
            readonly=True,
            create=False,
            lock=False,
            max_dbs=8,
            readahead=False,
        )
    except lmdb.Error as exc:
        raise DataError(
            f"{path} is not a task database: {exc}", "write one with save-tasks"
        ) from None
    need = (env.info()["last_pgno"] + 1) * env.stat()["psize"]
    if path.stat().st_size < need:  # reading past the end of the file would kill the process
        env.close()
        raise DataError(
            f"{path} is cut short: {path.stat().st_size} of {need} bytes",
            "copy or download it again",
        )
    return env
