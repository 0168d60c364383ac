"""A file that says "alive": for probes that look at its age."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from odc_stats_gpu.errors import ConfigError
from odc_stats_gpu.telemetry import beat

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
    first_beat(path)
    leave = threading.Event()

    def work() -> None:
        while not leave.wait(_EVERY):
            with suppress(OSError):  # a full disk must not end the run
                beat(Path(path))

    thread = threading.Thread(target=work, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        leave.set()
        thread.join()


def first_beat(path: str) -> None:
    """Write the file once, for an early word when that can't be done: raises ConfigError."""
    if not path:
        return
    try:
        beat(Path(path))
    except OSError as exc:
        raise ConfigError(
            f"can't write the heartbeat file {path}: {exc.strerror}", "choose another path"
        ) from None
