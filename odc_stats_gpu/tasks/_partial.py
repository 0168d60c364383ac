"""Files that appear together: written into a temporary folder beside, renamed at the end."""

from __future__ import annotations

import fcntl
import glob
import os
import shutil
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from odc_stats_gpu.errors import ConfigError, StoreError
from odc_stats_gpu.telemetry import fault_point


class PartialFiles:
    """Files that become visible with `commit`, `main` last; leaving without it removes them all.

    A lock held on the temporary folder tells a running process from a killed one, whose leftovers
    the next attempt at the same file removes.
    """

    def __init__(self, main: Path) -> None:
        self._main = main
        self._folder = main.with_name(f".{main.name}.{os.getpid()}.partial")
        self._names = [main.name]
        try:
            self._sweep()
            self._folder.mkdir()
            self._fd = os.open(self._folder, os.O_RDONLY)
        except OSError as exc:
            raise ConfigError(
                f"can't write {main}: {exc.strerror}",
                "name a file in an existing folder that you may write",
            ) from None
        with suppress(OSError):  # a file system without locks: leftovers stay until removed by hand
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    @property
    def main(self) -> Path:
        """Where to write the main file now."""
        return self._folder / self._main.name

    def write(self, name: str, text: str) -> None:
        """Write one of the other files; it will stand beside the main one."""
        try:
            with (self._folder / name).open("w", encoding="utf8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        except OSError as exc:
            raise StoreError(
                f"can't write {name}: {exc.strerror}", "check the free space"
            ) from None
        self._names.append(name)

    def commit(self) -> list[Path]:
        """Rename all, the main file last; returns their paths, the main one first."""
        fault_point("tasks_commit")
        main, *others = self._names
        try:
            for name in [*others, main]:
                (self._folder / name).replace(self._main.with_name(name))
            folder = os.open(self._main.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as exc:
            raise StoreError(
                f"can't write {self._main}: {exc.strerror}", "check the folder"
            ) from None
        return [self._main.with_name(name) for name in self._names]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        os.close(self._fd)

    def _sweep(self) -> None:
        """Remove what killed attempts left: nobody holds the lock of their folder."""
        for left in self._main.parent.glob(f".{glob.escape(self._main.name)}.*.partial"):
            fd = os.open(left, os.O_RDONLY)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left, ignore_errors=True)
            except OSError:
                continue  # another process is at work on the same file
            finally:
                os.close(fd)
