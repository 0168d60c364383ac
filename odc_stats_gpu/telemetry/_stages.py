"""Seconds by stage: read, decode, mask, warp, reduce, encode, write, ... summed over threads."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from odc_stats_gpu.telemetry._nvtx import open_ranges


class StageTimes:
    """Thread-safe totals; seconds of work, so overlapping stages may sum to more than the wall."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seconds: dict[str, float] = defaultdict(float)
        self._counts: dict[str, int] = defaultdict(int)

    def add(self, name: str, seconds: float, count: int = 1) -> None:
        """Add to one stage."""
        with self._lock:
            self._seconds[name] += seconds
            self._counts[name] += count

    def seconds(self) -> dict[str, float]:
        """Totals in order of first use, rounded to the millisecond."""
        with self._lock:
            return {k: round(v, 3) for k, v in self._seconds.items()}

    def counts(self) -> dict[str, int]:
        """How often each stage ran."""
        with self._lock:
            return dict(self._counts)


_current = StageTimes()


@contextmanager
def recording() -> Iterator[StageTimes]:
    """Collect the stages of this process from here on into a fresh StageTimes."""
    global _current  # noqa: PLW0603 - one tile at a time per process: worker threads must see it
    previous, _current = _current, StageTimes()
    try:
        yield _current
    finally:
        _current = previous


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Time a piece of work under a stage's name, and show it to a profiler that is attached."""
    ranges = open_ranges()
    if ranges is not None:
        ranges.push(name)
    start = time.perf_counter()
    try:
        yield
    finally:
        _current.add(name, time.perf_counter() - start)
        if ranges is not None:
            ranges.pop()
