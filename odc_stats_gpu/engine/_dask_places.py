"""Which Dask workers are free: every one makes one tile at a time, whatever its threads."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass

from odc_stats_gpu.engine._dask_cluster import Workers
from odc_stats_gpu.engine._job import CancelToken

_LOOK = 0.05


@dataclass(frozen=True, slots=True)
class Place:
    """One worker process."""

    name: str
    """The same for the process that replaces a dead one: that of a GPU."""
    address: str


class Places:
    """The workers of a run, free and busy."""

    def __init__(self, token: CancelToken) -> None:
        self._token = token
        self.workers: Workers | None = None
        self._lock = threading.Lock()
        self._alive: dict[str, str] = {}
        self._busy: set[Place] = set()
        self._dead: set[str] = set()
        """Addresses that ended, until the scheduler has noticed."""
        self._read = 0.0

    @property
    def count(self) -> int:
        """Workers there are, at least 1."""
        with self._lock:
            return max(1, len(self._alive))

    def refresh(self) -> int:
        """Ask who is there, at most every half second; returns how many."""
        with self._lock:
            if self.workers is not None and time.monotonic() > self._read + 0.5:
                with contextlib.suppress(Exception):  # a scheduler that is gone: as it was
                    known = self.workers.alive()
                    self._dead &= set(known.values())
                    self._alive = {n: a for n, a in known.items() if a not in self._dead}
                self._read = time.monotonic()
            return len(self._alive)

    def has(self, place: Place) -> bool:
        """Whether that very process is still there."""
        self.refresh()
        with self._lock:
            return self._alive.get(place.name) == place.address

    def take(self, avoid: Collection[str], seconds: float) -> Place | None:
        """A free worker, not one of `avoid` as long as there are others; None when none comes.

        Raises Cancelled.
        """
        until = time.monotonic() + seconds
        while True:
            self._token.check()
            self.refresh()
            with self._lock:
                places = [Place(*item) for item in self._alive.items()]
                others = [p for p in places if p.name not in avoid] or places
                free = [p for p in others if p not in self._busy]
                if free:
                    self._busy.add(free[0])
                    return free[0]
            if places:
                until = time.monotonic() + seconds
            elif time.monotonic() > until or not self._coming():
                return None
            time.sleep(_LOOK)

    def bury(self, place: Place) -> None:
        """Nobody gets this process any more; the one that follows it has another address."""
        with self._lock:
            self._dead.add(place.address)
            if self._alive.get(place.name) == place.address:
                del self._alive[place.name]
            self._read = 0.0

    def _coming(self) -> bool:
        return self.workers is not None and self.workers.coming()

    def give(self, place: Place) -> None:
        """Free it again."""
        with self._lock:
            self._busy.discard(place)
