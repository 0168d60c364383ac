"""The thread that keeps leases alive, and says that we are."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Self

from odc_stats_gpu.queue._lease import Lease, boot_clock
from odc_stats_gpu.telemetry import beat, metrics

_TICK = 0.25
_BEAT = 5.0
_LEAVE = 1.0
"""Seconds that a renewal under way may delay our leaving."""


class Keeper:
    """Renews every held lease in time and writes the heartbeat, idle or busy, while entered."""

    def __init__(
        self,
        margin: float,
        heartbeat: str = "",
        on_lost: Callable[[Lease], None] = lambda _: None,
        clock: Callable[[], float] = boot_clock,
    ) -> None:
        """`margin`: remaining seconds at which to renew; half the lease at the latest."""
        self._margin = margin
        self._heartbeat = Path(heartbeat) if heartbeat else None
        self._on_lost = on_lost
        self._clock = clock
        self._next_beat = clock()
        self._held: list[Lease] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease-keeper", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(_LEAVE)

    def hold(self, lease: Lease) -> None:
        """Renew this lease from now on."""
        with self._lock:
            self._held.append(lease)

    def drop(self, lease: Lease) -> None:
        """Renew it no more; a loss is told, whoever notices it first."""
        with self._lock:
            if lease not in self._held:
                return
            self._held.remove(lease)
        if lease.lost and not lease.closed:
            self._on_lost(lease)

    @property
    def held(self) -> list[Lease]:
        """Leases under renewal."""
        with self._lock:
            return list(self._held)

    def tick(self) -> None:
        """What is due now: the heartbeat, renewals, word of lost leases."""
        now = self._clock()
        if self._heartbeat is not None and now >= self._next_beat:
            self._next_beat = now + _BEAT
            with suppress(OSError):  # a full disk must not cost the lease
                beat(self._heartbeat)
        for lease in self.held:
            due = lease.remaining < self._renew_at(lease) and not lease.patient
            if due and not lease.lost and lease.renew():
                metrics.lease_event("renewed")
            if lease.lost:
                self.drop(lease)

    def _run(self) -> None:
        while not self._stop.wait(_TICK):
            self.tick()

    def _renew_at(self, lease: Lease) -> float:
        """Remaining seconds at which to renew: the margin, and at least half the lease."""
        return max(lease.seconds / 2, min(self._margin, lease.seconds * 0.9))
