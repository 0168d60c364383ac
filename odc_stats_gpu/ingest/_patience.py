"""Requests that may be repeated: what a hiccup is, and pauses that can be called off."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

_LOOK = 0.2
"""Seconds between two looks at whether the answer is still wanted."""
_thread = threading.local()


class HiccupError(Exception):
    """The server may answer the next time."""


class Answer(NamedTuple):
    """What a server said to one request."""

    status: int
    body: bytes
    headers: dict[str, str]
    """With lower-case names."""
    code: str = ""
    """Of an error, where the service has such: NoSuchBucket."""


@contextmanager
def called_off_by(check: Callable[[], None]) -> Iterator[None]:
    """Let `check` end the pauses of this thread between two attempts by raising."""
    before = getattr(_thread, "check", None)
    _thread.check = check
    try:
        yield
    finally:
        _thread.check = before


def pause(seconds: float) -> None:
    """Sleep, unless whoever waits for this thread calls it off."""
    check = getattr(_thread, "check", None) or (lambda: None)
    until = time.monotonic() + seconds
    while (rest := until - time.monotonic()) > 0:
        check()
        time.sleep(min(rest, _LOOK))
    check()


def brief(exc: BaseException) -> str:
    """The innermost reason in one line."""
    inner = getattr(exc, "reason", None)
    if isinstance(inner, BaseException):
        return brief(inner)
    return str(exc).splitlines()[0] if str(exc) else type(exc).__name__
