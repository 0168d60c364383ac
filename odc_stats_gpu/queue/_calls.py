"""Requests that can't keep us: each runs in a thread of its own and is left alone when it hangs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")
_LOOK = 0.1  # seconds between two looks at `stop`


def in_background(work: Callable[[], T]) -> Future[T]:
    """Start `work` in a daemon thread: it doesn't outlive the process."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as exc:  # noqa: BLE001 - it belongs to who waits
            future.set_exception(exc)

    threading.Thread(target=run, name="request", daemon=True).start()
    return future


def settled(future: Future[T], stop: threading.Event, grace: float) -> bool:
    """Wait for the end of a request; once `stop` is set it has `grace` seconds left.

    False when it was given up: it may still have its effect later.
    """
    done = threading.Event()
    future.add_done_callback(lambda _: done.set())
    while not done.wait(_LOOK):
        if stop.is_set():
            return done.wait(grace)
    return True
