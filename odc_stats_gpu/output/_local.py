"""The local store: every file appears whole, by rename, or not at all."""

from __future__ import annotations

import contextlib
import errno
import filecmp
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from odc_stats_gpu.errors import Cancelled, ConfigError, StoreError
from odc_stats_gpu.output._store import ANY, PART_SUFFIX, ChangedError, Data
from odc_stats_gpu.telemetry import fault_point

_STALE = 3600.0
"""Seconds after which a temporary file of another machine counts as abandoned."""
_CHUNK = 1 << 20
_REMEDIES = {
    errno.ENOSPC: "free some space or choose another --location",
    errno.EDQUOT: "the quota is used up: free some space or choose another --location",
    errno.EACCES: "give this user write permission or choose another --location",
    errno.EPERM: "give this user write permission or choose another --location",
    errno.EROFS: "the file system is read-only: choose another --location",
    errno.ENOTDIR: "a part of the path is a file: choose another --location",
    errno.EEXIST: "a part of the path is a file: choose another --location",
}
_ABSENT = (errno.ENOENT, errno.ENOTDIR)
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


class LocalStore:
    """Files below one folder."""

    def __init__(self, root: Path) -> None:
        self.root = Path(os.path.normpath(root))
        self.location = f"file://{self.root}"

    def uri(self, path: str = "") -> str:
        """Full address of a path."""
        return f"file://{self.root / path}" if path else self.location

    def exists(self, path: str) -> bool:
        """Whether a file is there; only ENOENT and ENOTDIR mean that it is not."""
        try:
            (self.root / path).stat()
        except OSError as exc:
            if exc.errno in _ABSENT:
                return False
            raise _error("look at", self.root / path, exc) from exc
        return True

    def read(self, path: str) -> bytes:
        """The whole file."""
        try:
            return (self.root / path).read_bytes()
        except OSError as exc:
            raise _error("read", self.root / path, exc) from exc

    def versions(self, paths: Sequence[str]) -> dict[str, str]:
        """Inode, size and time of those that exist."""
        found = {path: self._version(path) for path in paths}
        return {path: version for path, version in found.items() if version is not None}

    def _version(self, path: str) -> str | None:
        try:
            stat = (self.root / path).stat()
        except OSError as exc:
            if exc.errno in _ABSENT:
                return None
            raise _error("look at", self.root / path, exc) from exc
        return f"{stat.st_ino}-{stat.st_size}-{stat.st_mtime_ns}"

    def put(
        self,
        path: str,
        data: Data,
        content_type: str,  # noqa: ARG002 - files have none
        *,
        expect: str | None = ANY,
        stop: threading.Event | None = None,
    ) -> str:
        """Write under a hidden name in the same folder, fsync, rename."""
        final = self.root / path
        part = final.parent / f".{final.name}.{_who()}.{uuid.uuid4().hex[:8]}{PART_SUFFIX}"
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            try:
                with part.open("xb") as out:
                    for chunk in _chunks(data):
                        if stop is not None and stop.is_set():
                            raise Cancelled("told to stop")
                        out.write(chunk)
                    out.flush()
                    os.fsync(out.fileno())
                fault_point("file_written")
                self._place(part, path, expect)
            except BaseException:
                with contextlib.suppress(OSError):
                    part.unlink(missing_ok=True)
                raise
            _fsync_folder(final.parent)
            return self._version(path) or ""
        except OSError as exc:
            raise _error("write", final, exc) from exc

    def _place(self, part: Path, path: str, expect: str | None) -> None:
        """Give a whole file its name, if what bears that name is what was expected."""
        final = self.root / path
        if expect is None:
            try:
                os.link(part, final)  # fails, atomically, when the name is taken
            except FileExistsError:
                self._refuse(part, final)
            except OSError as exc:
                if exc.errno not in _NO_LINKS:
                    raise
                if final.exists():
                    self._refuse(part, final)
                else:
                    part.replace(final)
            fault_point("file_named")
            part.unlink(missing_ok=True)
            return
        if expect != ANY and self._version(path) != expect:
            self._refuse(part, final)
            part.unlink(missing_ok=True)
            return
        part.replace(final)

    def _refuse(self, part: Path, final: Path) -> None:
        """Raise ChangedError, unless the other file says the same."""
        with contextlib.suppress(FileNotFoundError):
            if filecmp.cmp(part, final, shallow=False):
                return
        raise ChangedError(
            f"{final} was written by somebody else meanwhile",
            "another worker is at this tile: it is left to that one",
        )

    def delete(self, path: str) -> None:
        """Remove a file; one that is absent is fine."""
        try:
            (self.root / path).unlink(missing_ok=True)
        except OSError as exc:
            if exc.errno not in _ABSENT:
                raise _error("delete", self.root / path, exc) from exc

    def list(self, prefix: str = "") -> Iterator[str]:
        """Paths starting with that text, sorted, hidden temporaries included."""
        head = self.root / prefix
        start = head if not prefix or prefix.endswith("/") or head.is_dir() else head.parent
        text = "" if start == head else prefix
        yield from self._walk(start, text)

    def _walk(self, folder: Path, prefix: str) -> Iterator[str]:
        try:
            with os.scandir(folder) as found:
                entries = sorted(found, key=lambda e: e.name)
        except OSError as exc:
            if exc.errno in _ABSENT:
                return
            raise _error("list", folder, exc) from exc
        for entry in entries:
            path = Path(entry.path).relative_to(self.root).as_posix()
            if entry.is_dir():
                if path.startswith(prefix):
                    yield from self._walk(Path(entry.path), "")
            elif path.startswith(prefix):
                yield path

    def sweep(self, prefix: str, *, alone: bool = False) -> None:  # noqa: ARG002 - names tell who lives
        """Remove temporaries of dead processes for files starting with `prefix`."""
        head = self.root / prefix
        try:
            parts = [
                p
                for p in head.parent.iterdir()
                if p.name.startswith(f".{head.name}") and p.name.endswith(PART_SUFFIX)
            ]
            for part in parts:
                if _abandoned(part):
                    part.unlink(missing_ok=True)
        except OSError as exc:
            if exc.errno not in _ABSENT:
                raise _error("clean", head.parent, exc) from exc

    def check_writable(self) -> None:
        """Make the folder and a file in it, and remove the file again."""
        probe = self.root / f".write-test.{_who()}.{uuid.uuid4().hex[:8]}{PART_SUFFIX}"
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as exc:
            remedy = _REMEDIES.get(exc.errno or 0, "choose another --location")
            raise ConfigError(
                f"can't write to {self.location}: {exc.strerror or exc}", remedy
            ) from exc


def _chunks(data: Data) -> Iterator[bytes]:
    if isinstance(data, bytes):
        yield data
    elif isinstance(data, Path):
        with data.open("rb") as src:
            while chunk := src.read(_CHUNK):
                yield chunk
    else:
        yield from data


def _fsync_folder(folder: Path) -> None:
    """Make the rename itself survive a power cut, where the file system can."""
    with contextlib.suppress(OSError):
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


@cache
def _host() -> str:
    return "".join(c if c.isalnum() else "-" for c in socket.gethostname())[:40] or "host"


def _who() -> str:
    """This process: host, pid and start time, so that a recycled pid is not taken for us."""
    return f"{_host()}.{os.getpid()}.{_started(os.getpid())}"


def _started(pid: int) -> int:
    """What tells a process from a later one of that pid; 0 when there is none."""
    if sys.platform == "linux":  # ticks since boot: psutil's time jumps with the wall clock
        with contextlib.suppress(OSError, IndexError, ValueError):
            return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
        return 0
    import psutil

    try:
        return int(psutil.Process(pid).create_time())
    except psutil.Error:
        return 0


def _abandoned(part: Path) -> bool:
    """Whether the process that was writing a temporary file is gone."""
    fields = part.name.removesuffix(PART_SUFFIX).split(".")[-4:]
    try:
        host, pid, started = fields[0], int(fields[1]), int(fields[2])
    except (IndexError, ValueError):
        return True
    if host == _host():
        return _started(pid) != started
    try:
        return time.time() - part.stat().st_mtime > _STALE
    except FileNotFoundError:
        return False


def _error(verb: str, path: Path, exc: OSError) -> StoreError:
    if exc.errno in _ABSENT:
        return StoreError(f"can't {verb} {path}: no such file", "check the location")
    remedy = _REMEDIES.get(exc.errno or 0, "check the disk or mount")
    return StoreError(f"can't {verb} {path}: {exc.strerror or exc}", remedy)
