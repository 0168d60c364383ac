"""From a scene's local time to the periods it belongs to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from odc_stats_gpu.errors import ConfigError
from odc_stats_gpu.model import TimeRange, add_months

WHOLE_ARCHIVE = ""
"""Stands for the period from the first to the last year, known only when all scenes were seen."""

Binner = Callable[[datetime], Sequence[str]]
"""Local time -> task periods, possibly none or several."""


@lru_cache(maxsize=1024)
def _period(start: datetime, months: int) -> str:
    count, unit = (months // 12, "Y") if months % 12 == 0 else (months, "M")
    return TimeRange(start, count, unit).short


@dataclass(frozen=True, slots=True)
class _Seasons:
    """Periods of fixed length that start in the same months every year."""

    anchors: tuple[int, ...]
    """Months in which a period starts, ascending."""
    months: int

    def period(self, start: datetime) -> str:
        return _period(start, self.months)

    def bins(self, when: datetime) -> Sequence[str]:
        """The latest start not after `when`, unless the period has ended by then."""
        before = [m for m in self.anchors if m <= when.month]
        start = (
            datetime(when.year, before[-1], 1)
            if before
            else datetime(when.year - 1, self.anchors[-1], 1)
        )
        return (self.period(start),) if when < add_months(start, self.months) else ()


def _every(step: int, first: int = 1) -> tuple[int, ...]:
    return tuple(sorted((first - 1 + k) % 12 + 1 for k in range(0, 12, step)))


_CALENDAR: dict[str, _Seasons] = {
    "annual": _Seasons((1,), 12),
    "annual-fy": _Seasons((7,), 12),
    "semiannual": _Seasons(_every(6), 6),
    "seasonal": _Seasons(_every(3, 12), 3),
    "quarterly": _Seasons(_every(3), 3),
    "quartely": _Seasons(_every(3), 3),  # the incumbent's spelling, found in configurations
    "nov-mar": _Seasons((11,), 5),
    "apr-oct": _Seasons((4,), 7),
    "monthly": _Seasons(_every(1), 1),
}
_ROLLING = {"rolling-3months": (3, 1), "rolling-3years": (36, 12)}  # months: length, step

FREQUENCIES = (*_CALENDAR, "3month-seasons", *_ROLLING, "all")
"""Values of `--frequency`."""


def binner(frequency: str, within: TimeRange | None) -> Binner:
    """The rule of a frequency; `within` is the temporal range, which some need.

    Raises ConfigError for an unknown frequency or a missing range.
    """
    if frequency in _CALENDAR:
        return _CALENDAR[frequency].bins
    if frequency == "all":
        period = (within.short if within else WHOLE_ARCHIVE,)
        return lambda _when: period
    if frequency not in FREQUENCIES:
        raise ConfigError(f"unknown frequency {frequency!r}", f"one of {', '.join(FREQUENCIES)}")
    if within is None:
        raise ConfigError(
            f"the frequency {frequency!r} needs a range of time", "give --temporal-range or --year"
        )
    if frequency == "3month-seasons":
        return _Seasons(_every(3, within.start.month), 3).bins
    return _rolling(*_ROLLING[frequency], within)


def _rolling(months: int, step: int, within: TimeRange) -> Binner:
    """Windows of `months` every `step` months, those that lie wholly inside the range."""
    seasons, windows = _Seasons((1,), months), []
    start = within.start
    while (end := add_months(start, months)) <= within.after:
        windows.append((start, end, seasons.period(start)))
        start = add_months(start, step)
    if not windows:
        raise ConfigError(
            f"no window of {months} months fits into {within.short}",
            "give a longer --temporal-range",
        )
    return lambda when: [name for first, after, name in windows if first <= when < after]


def whole_archive(first: datetime, last: datetime) -> str:
    """The calendar years from the first to the last scene as one period."""
    return TimeRange(datetime(first.year, 1, 1), last.year - first.year + 1, "Y").short
