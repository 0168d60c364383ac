"""Files that lie elsewhere: configurations are read, task databases are copied and kept."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from odc_stats_gpu.errors import ConfigError, OdcStatsError, StoreError

_PATIENCE = 60.0
_ROOM = 4 << 30
"""Bytes of databases that may lie around; those in use stay whatever their size."""
_UNUSED = 3600.0
"""Seconds without use after which a copy may go: nobody is just about to open it."""
_ATTEMPTS = 3


def read_url(url: str) -> bytes:
    """The whole file behind `s3://`, `http(s)://`, `file://` or any other address fsspec knows.

    Raises ConfigError when it is absent or can't be read.
    """
    try:
        return _read(url)
    except StoreError:
        raise
    except Exception as exc:
        raise ConfigError(
            f"can't read {_shown(url)}: {_reason(exc)}", "check address and permissions"
        ) from exc


def local_database(address: str) -> str:
    """Path of a local copy of `s3://...` or `http(s)://...`; a local path is returned as it is.

    A copy is named by address and version (ETag), so that databases of the same name don't mix, a
    replaced one is fetched anew and an unchanged one only asked after. It appears under its name
    only when complete: processes may share the folder. Copies that weren't used for an hour make
    room. Raises ConfigError when there is no such file, StoreError when it can't be fetched.
    """
    if address.startswith("file://") or "://" not in address:
        return address.removeprefix("file://")
    for attempt in range(_ATTEMPTS):
        try:
            remote = _look(address)
            copy = _folder() / f"{_digest(address)}-{_digest(remote.version)}.db"
            if not copy.exists():
                _fetch(remote, copy)
            os.utime(copy)
            return str(copy)
        except FileNotFoundError:  # another process made room at this very moment
            if attempt == _ATTEMPTS - 1:
                raise
        except OdcStatsError:
            raise
        except OSError as exc:
            raise StoreError(
                f"can't copy the task database {_shown(address)}: {_reason(exc)}",
                f"is there room in {tempfile.gettempdir()}?",
            ) from exc
    raise AssertionError  # the loop returns or raises


@dataclass(frozen=True, slots=True)
class _Remote:
    """A file elsewhere as it is now."""

    version: str
    """ETag, or whatever tells its contents from others."""
    copy_to: Callable[[Path], None]
    """Writes that very version into a file."""


def _look(address: str) -> _Remote:
    """Ask after a file without reading it; raises ConfigError or StoreError."""
    scheme = address.partition("://")[0].lower()
    try:
        if scheme == "s3":
            return _look_in_s3(address)
        return _look_in_web(address) if scheme in ("http", "https") else _look_elsewhere(address)
    except OdcStatsError:
        raise
    except HTTPError as exc:
        absent = exc.code in (404, 410)
        kind = ConfigError if absent else StoreError
        raise kind(f"can't read {_shown(address)}: {exc}", "check address and permissions") from exc
    except Exception as exc:
        raise StoreError(
            f"can't read {_shown(address)}: {_reason(exc)}", "check address and permissions"
        ) from exc


def _look_in_s3(address: str) -> _Remote:
    from odc_stats_gpu.output import open_store

    prefix, _, name = address.rpartition("/")
    if not name or prefix.endswith(("//", ":/")):
        raise ConfigError(f"{address} names no file", "write s3://bucket/prefix/x.db")
    store: Any = open_store(prefix, reading=True)
    version = store.etag(name)
    if version is None:
        raise ConfigError(f"no such task database: {address}", "was it moved or deleted?")
    return _Remote(version, lambda target: store.download(name, version, target))


def _look_in_web(address: str) -> _Remote:
    """By HEAD; a server that tells no version, or knows no HEAD, has to send the whole file."""
    version = ""
    try:
        with urlopen(Request(address, method="HEAD"), timeout=_PATIENCE) as head:  # noqa: S310 - the scheme is known
            told = head.headers
            version = told.get("ETag") or " ".join(
                filter(None, (told.get("Last-Modified"), told.get("Content-Length")))
            )
    except HTTPError as exc:
        if exc.code not in (403, 405, 501):  # a signed address is for GET alone
            raise
    if version:
        return _Remote(version, lambda target: _download(address, target))
    data = _read(address)
    return _Remote(hashlib.sha256(data).hexdigest(), lambda target: _write(target, data))


def _look_elsewhere(address: str) -> _Remote:
    from fsspec.core import url_to_fs

    files, path = url_to_fs(address)
    try:
        version = str(files.ukey(path))
    except FileNotFoundError as exc:
        raise ConfigError(f"no such task database: {address}", "check the address") from exc
    return _Remote(version, lambda target: files.get_file(path, str(target)))


def _download(address: str, target: Path) -> None:
    with urlopen(address, timeout=_PATIENCE) as answer, target.open("wb") as out:  # noqa: S310 - the scheme is known
        shutil.copyfileobj(answer, out, 1 << 20)
        size = answer.headers.get("Content-Length")
    if size is not None and target.stat().st_size != int(size):
        raise StoreError(
            f"{_shown(address)} broke off: {target.stat().st_size} of {size} bytes", "try again"
        )


def _write(target: Path, data: bytes) -> None:
    target.write_bytes(data)


def _fetch(remote: _Remote, copy: Path) -> None:
    """Download beside the final name, then rename."""
    part = copy.with_name(f".{copy.name}.{os.getpid()}.part")
    try:
        remote.copy_to(part)
        _make_room(copy)
        part.replace(copy)
    finally:
        part.unlink(missing_ok=True)


def _make_room(copy: Path) -> None:
    """Remove older versions of the same database, and the longest unused while there are too many.

    Whoever has one open keeps its contents.
    """
    now, same = time.time(), copy.name.partition("-")[0]
    found = []
    for path in copy.parent.iterdir():
        with suppress(FileNotFoundError):
            found.append((path.stat().st_mtime, path.stat().st_size, path))
    total = sum(s for _, s, _ in found)
    for used, its_size, path in sorted(found):
        old = path.name.startswith(same) or path.suffix == ".part" or total > _ROOM
        if old and now - used > _UNUSED:
            path.unlink(missing_ok=True)
            total -= its_size


def _folder() -> Path:
    """Where copies lie: a folder of this user alone."""
    folder = Path(tempfile.gettempdir()) / f"odc-stats-gpu-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise ConfigError(f"{folder} belongs to somebody else", "set TMPDIR to a folder of yours")
    return folder


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _shown(address: str) -> str:
    """Without the signature of a signed address: what is said ends in logs."""
    return address.partition("?")[0]


def _reason(exc: Exception) -> str:
    return " ".join(str(exc).split()) or type(exc).__name__


def _read(url: str) -> bytes:
    scheme = url.partition("://")[0].lower()
    if scheme == "s3":
        from odc_stats_gpu.output import open_store

        prefix, _, name = url.rpartition("/")
        return open_store(prefix, reading=True).read(name)
    if scheme in ("http", "https"):
        with urlopen(url, timeout=_PATIENCE) as answer:  # noqa: S310 - the scheme is known
            return bytes(answer.read())
    import fsspec

    with fsspec.open(url, "rb") as file:
        return bytes(file.read())
