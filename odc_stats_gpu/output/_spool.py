"""Scratch space of one tile: compressed tiles wait here until the COG's header can be written."""

from __future__ import annotations

import os
import tempfile
import threading
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from odc_stats_gpu.errors import StoreError

IN_MEMORY = 64 << 20
"""Bytes a spool, or a plane, keeps in memory before it goes to the scratch folder."""


class Span(NamedTuple):
    """A piece of the spool."""

    offset: int
    size: int


class Spool:
    """Append-only bytes, thread-safe; in memory while small, then in an unnamed scratch file."""

    def __init__(self, scratch: Path | None = None) -> None:
        self._lock = threading.Lock()
        self._scratch = scratch
        self._end = 0
        self._file: Any = None

    def append(self, data: bytes) -> Span:
        """Keep a piece; raises StoreError when the scratch folder is full."""
        try:
            with self._lock:
                if self._file is None:
                    folder = str(self._scratch) if self._scratch else None
                    self._file = tempfile.SpooledTemporaryFile(IN_MEMORY, dir=folder)  # noqa: SIM115 - close()
                self._file.seek(self._end)
                self._file.write(data)
                span = Span(self._end, len(data))
                self._end += len(data)
        except OSError as exc:
            raise scratch_error(self._scratch, exc) from exc
        return span

    def read(self, span: Span) -> bytes:
        """A piece as it was appended."""
        try:
            with self._lock:
                self._file.seek(span.offset)
                return bytes(self._file.read(span.size))
        except OSError as exc:
            raise scratch_error(self._scratch, exc) from exc

    def close(self) -> None:
        """Free the space."""
        with self._lock:
            if self._file is not None:
                self._file.close()


def plane(
    shape: tuple[int, ...], dtype: np.dtype[Any], scratch: Path | None = None
) -> np.ndarray[Any, Any]:
    """An array of zeros that lives in an unnamed scratch file when it is big."""
    size = int(np.prod(shape)) * dtype.itemsize
    if size <= IN_MEMORY:
        return np.zeros(shape, dtype)
    try:
        with tempfile.TemporaryFile(dir=scratch) as file:
            # reserve the space now: a full disk would kill the process at a later write
            os.posix_fallocate(file.fileno(), 0, size)
            return np.memmap(file, dtype, "r+", shape=shape)
    except OSError as exc:
        raise scratch_error(scratch, exc) from exc


def scratch_error(scratch: Path | None, exc: OSError) -> StoreError:
    """What to say when the scratch folder fails."""
    folder = scratch or tempfile.gettempdir()
    return StoreError(
        f"scratch folder {folder}: {exc.strerror or exc}", "free space there or set TMPDIR"
    )
