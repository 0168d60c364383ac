"""Giving interrupted work back in time, whatever the queue's mood."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from odc_stats_gpu.queue._calls import in_background, settled
from odc_stats_gpu.queue._lease import Lease

COPY_WITHIN = 3.0
"""Seconds for sending a copy and deleting the original; then the message is plainly released."""
_RELEASE_WITHIN = 1.5
Start = Callable[[Callable[[], Any]], Future[Any]]


def hand_back(lease: Lease, start: Start = in_background) -> bool:
    """Return interrupted work as a copy without a mark; when that is slow, as it is.

    False when neither was confirmed in time: the message comes back at the end of its lease.
    """
    now = threading.Event()
    now.set()
    copying = start(lease.hand_back)
    if settled(copying, now, COPY_WITHIN) and copying.exception() is None:
        return True
    return settled(start(lease.release), now, _RELEASE_WITHIN)
