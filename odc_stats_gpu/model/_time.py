"""Time ranges as the Open Data Cube writes them: 2019--P1Y, 2020-01--P3M, 2013-03-21--P10D."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Self

from odc_stats_gpu.errors import ConfigError

_RANGE = re.compile(
    r"(\d{4})(?:-(\d{1,2})(?:-(\d{1,2}))?)?--P(\d+)([YMWD])", re.ASCII | re.IGNORECASE
)
_TICK = timedelta(microseconds=1)


def add_months(start: datetime, months: int) -> datetime:
    """Shift by whole calendar months; the day is clipped to the month's length."""
    year, month0 = divmod(start.year * 12 + start.month - 1 + months, 12)
    for day in range(start.day, 27, -1):
        try:
            return start.replace(year=year, month=month0 + 1, day=day)
        except ValueError:
            continue
    return start.replace(year=year, month=month0 + 1)


@dataclass(frozen=True, slots=True, order=True)
class TimeRange:
    """A period: first instant, count and unit. Naive datetimes are UTC."""

    start: datetime
    """First instant of the period."""
    count: int
    """Number of units, at least 1."""
    unit: str
    """Y, M, W or D."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `START--P<n><Y|M|W|D>`; raises ConfigError."""
        match = _RANGE.fullmatch(text.strip())
        remedy = "write a start and a length, for example 2019--P1Y or 2020-06--P3M"
        if match is None:
            raise ConfigError(f"can't read the time range {text!r}", remedy)
        year, month, day, count, unit = match.groups()
        try:
            start = datetime(int(year), int(month or 1), int(day or 1))
        except ValueError as exc:
            raise ConfigError(f"can't read the time range {text!r}: {exc}", remedy) from None
        if int(count) < 1:
            raise ConfigError(f"the time range {text!r} is empty", remedy)
        out = cls(start, int(count), unit.upper())
        try:
            _ = out.end
        except (OverflowError, ValueError):
            raise ConfigError(f"the time range {text!r} ends after year 9999", remedy) from None
        return out

    @classmethod
    def year(cls, year: int) -> Self:
        """One calendar year."""
        return cls.parse(f"{year:04d}--P1Y")

    @property
    def after(self) -> datetime:
        """First instant after the period."""
        if self.unit in "YM":
            return add_months(self.start, self.count * (12 if self.unit == "Y" else 1))
        return self.start + timedelta(days=self.count * (7 if self.unit == "W" else 1))

    @property
    def end(self) -> datetime:
        """Last instant of the period, to the microsecond."""
        return self.after - _TICK

    @property
    def center(self) -> datetime:
        """Middle of the period."""
        return self.start + (self.after - self.start) / 2

    @property
    def short(self) -> str:
        """The shortest text that parses back to this range: folder name, task key, uuid tag."""
        start = self.start
        if self.unit == "Y" and (start.month, start.day) == (1, 1):
            head = f"{start:%Y}"
        elif self.unit in "YM" and start.day == 1:
            head = f"{start:%Y-%m}"
        else:
            head = f"{start:%Y-%m-%d}"
        return f"{head}--P{self.count}{self.unit}"

    def __contains__(self, when: datetime) -> bool:
        """Whether an instant lies inside."""
        return self.start <= when < self.after

    def __str__(self) -> str:
        """Same as `short`."""
        return self.short
