"""Files that lie elsewhere: configurations are read, task databases are copied."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from urllib.request import urlopen

from odc_stats_gpu.errors import ConfigError, StoreError

_PATIENCE = 60.0


def read_url(url: str) -> bytes:
    """The whole file behind `s3://`, `http(s)://`, `file://` or any other address fsspec knows.

    Raises ConfigError when it is absent or can't be read.
    """
    try:
        return _read(url)
    except StoreError:
        raise
    except Exception as exc:
        reason = " ".join(str(exc).split()) or type(exc).__name__
        raise ConfigError(f"can't read {url}: {reason}", "check address and permissions") from exc


def local_database(address: str) -> str:
    """Path of a local copy of `s3://...` or `http(s)://...`; a local path is returned as it is.

    A copy is named by address and content, so that databases of the same name don't mix, and
    appears under its name only when complete, so that processes may share the folder.
    Raises ConfigError when there is no such file, StoreError when it can't be fetched.
    """
    if address.startswith("file://") or "://" not in address:
        return address.removeprefix("file://")
    data = read_url(address)
    digest = hashlib.sha256(address.encode() + hashlib.sha256(data).digest()).hexdigest()[:24]
    folder = Path(tempfile.gettempdir()) / f"odc-stats-gpu-{os.getuid()}"
    copy = folder / f"{digest}.db"
    if not copy.exists():
        folder.mkdir(mode=0o700, exist_ok=True)
        part = folder / f".{digest}.{os.getpid()}.part"
        try:
            part.write_bytes(data)
            part.replace(copy)
        finally:
            part.unlink(missing_ok=True)
    return str(copy)


def _read(url: str) -> bytes:
    scheme = url.partition("://")[0].lower()
    if scheme == "s3":
        from odc_stats_gpu.output import open_store

        prefix, _, name = url.rpartition("/")
        return open_store(prefix).read(name)
    if scheme in ("http", "https"):
        with urlopen(url, timeout=_PATIENCE) as answer:  # noqa: S310 - the scheme is known
            return bytes(answer.read())
    import fsspec

    with fsspec.open(url, "rb") as file:
        return bytes(file.read())
