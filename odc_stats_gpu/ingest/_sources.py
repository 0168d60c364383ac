"""Where the bytes of a file come from, and the parsed headers of files that were read before."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

from odc_stats_gpu.errors import DataError
from odc_stats_gpu.ingest._ranges import Remote, close_remotes
from odc_stats_gpu.ingest._tiff import Fetch, TiffError, TiffHeader, Unsupported, parse_tiff

_MAX_KNOWN = 4096
_lock = threading.Lock()
_headers: OrderedDict[str, tuple[tuple[int, ...], TiffHeader | None]] = OrderedDict()
_remotes: OrderedDict[str, Remote] = OrderedDict()


class LocalFile:
    """A file of this machine, opened for every read: that costs 15 microseconds, and no limit."""

    def __init__(self, uri: str, path: str) -> None:
        self.uri, self.path = uri, path

    @property
    def size(self) -> int:
        """Bytes."""
        return Path(self.path).stat().st_size

    @property
    def mark(self) -> tuple[int, ...]:
        """Changes when the file is replaced or written to."""
        stat = Path(self.path).stat()
        return (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)

    @contextmanager
    def opened(self, wanted: Iterable[tuple[int, int]] = ()) -> Iterator[Fetch]:
        """A way to read bytes while the block lasts; `wanted` is of interest to remote files."""
        del wanted
        fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield lambda offset, length: os.pread(fd, length, offset)
        finally:
            os.close(fd)


def source_of(uri: str) -> LocalFile | Remote | None:
    """The bytes behind an address; None for addresses that only GDAL understands.

    Raises:
        DataError: a remote object that isn't there or can't be read.
    """
    path = local_path(uri)
    if path is not None:
        return LocalFile(uri, path)
    if not uri.startswith(("s3://", "http://", "https://")):
        return None
    with _lock:
        known = _remotes.get(uri)
    if known is None or known.stale:
        known = Remote(uri)
        with _lock:
            _remotes[uri] = known
            if len(_remotes) > _MAX_KNOWN:
                _remotes.popitem(last=False)
    return known


def header_of(source: LocalFile | Remote) -> TiffHeader | None:
    """The parsed header, from memory while the file is the same; None: a file for GDAL.

    Raises:
        TiffError: broken.
        OSError: from the system.
        DataError: from a server.
    """
    mark = source.mark
    with _lock:
        known = _headers.get(source.uri)
    if known is not None and known[0] == mark:
        return known[1]
    header: TiffHeader | None
    with source.opened() as fetch:
        try:
            header = parse_tiff(fetch, source.size)
        except Unsupported:
            header = None
    if isinstance(source, Remote):
        source.forget()
    with _lock:
        _headers[source.uri] = (mark, header)
        if len(_headers) > _MAX_KNOWN:
            _headers.popitem(last=False)
    return header


def local_path(uri: str) -> str | None:
    """Path of a file on this machine; None for everything else."""
    if uri.startswith("file://"):
        path = "/" + uri.removeprefix("file://").removeprefix("localhost").lstrip("/")
        if "%" not in path or Path(path).exists():
            return path
        # Documents write both forms, and a literal name may be joined to an escaped folder.
        folder, _, name = path.rpartition("/")
        mixed = f"{unquote(folder)}/{name}"
        return mixed if Path(mixed).exists() else unquote(path)
    return None if "://" in uri or uri.startswith("/vsi") else uri


def refused(uri: str, exc: OSError) -> DataError:
    """A file that can't be opened or read, in the words of the system."""
    if isinstance(exc, FileNotFoundError):
        return DataError(
            f"no such file: {uri}", "restore it or save the tasks again without that dataset"
        )
    reason = exc.strerror or str(exc)
    return DataError(f"can't read {uri}: {reason}", f"check {Path(local_path(uri) or uri).parent}")


def damaged(uri: str, exc: TiffError) -> DataError:
    """A file whose bytes make no sense."""
    return DataError(f"can't read {uri}: {exc}", "restore the file from the archive")


def close_sources() -> None:
    """Forget headers and close connections."""
    with _lock:
        _headers.clear()
        _remotes.clear()
    close_remotes()
