"""A file that says "alive": for probes that look at its age."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from odc_stats_gpu.errors import ConfigError

_EVERY = 5.0
"""Seconds between two beats."""


@contextmanager
def heartbeat(path: str) -> Iterator[None]:
    """Write the time (UTC) into `path` every few seconds while entered; nothing for an empty path.

    Raises ConfigError when the file can't be written at the start.
    """
    if not path:
        yield
        return
    try:
        _beat(Path(path))
    except OSError as exc:
        raise ConfigError(
            f"can't write the heartbeat file {path}: {exc.strerror}", "choose another path"
        ) from None
    leave = threading.Event()

    def work() -> None:
        while not leave.wait(_EVERY):
            with suppress(OSError):  # a full disk must not end the run
                _beat(Path(path))

    thread = threading.Thread(target=work, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        leave.set()
        thread.join()


def _beat(path: Path) -> None:
    """Atomic: a reader sees the old time or the new one."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_text(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}\n")
    part.replace(path)
