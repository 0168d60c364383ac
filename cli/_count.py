"""A count on a terminal: one line that is overwritten. Nothing is printed elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable


def named_counter() -> Callable[[str, int], None] | None:
    """For calls with what is counted and how many there are so far."""
    return _show if sys.stderr.isatty() else None


def counter(what: str) -> Callable[[int, int], None] | None:
    """For calls with how many are done, and how many there are."""
    if not sys.stderr.isatty():
        return None
    return lambda done, total: _show(f"{what} of {total}", done)


def _show(what: str, count: int) -> None:
    sys.stderr.write(f"\r{what}: {count}\x1b[K\r")
    sys.stderr.flush()
