"""Periods: what parses, how long they last, how they are written back."""

from datetime import datetime

import pytest

from odc_stats_gpu.errors import ConfigError
from odc_stats_gpu.model import TimeRange, add_months


@pytest.mark.parametrize(
    ("text", "short", "last"),
    [
        ("2019--P1Y", "2019--P1Y", "2019-12-31T23:59:59.999999"),
        ("2019-01--P1Y", "2019--P1Y", "2019-12-31T23:59:59.999999"),
        # the incumbent ends these a day early or late, on either side of a leap day
        ("2019-07--P1Y", "2019-07--P1Y", "2020-06-30T23:59:59.999999"),
        ("2020-07--P1Y", "2020-07--P1Y", "2021-06-30T23:59:59.999999"),
        ("2019-12--P3M", "2019-12--P3M", "2020-02-29T23:59:59.999999"),
        ("2020-01--P3M", "2020-01--P3M", "2020-03-31T23:59:59.999999"),
        ("2013-03-21--p10d", "2013-03-21--P10D", "2013-03-30T23:59:59.999999"),
        ("2013-03-21--P2W", "2013-03-21--P2W", "2013-04-03T23:59:59.999999"),
        ("2018--P3Y", "2018--P3Y", "2020-12-31T23:59:59.999999"),
    ],
)
def test_a_period_ends_at_its_last_microsecond(text, short, last):
    period = TimeRange.parse(text)
    assert period.short == short
    assert period.end == datetime.fromisoformat(last)
    assert TimeRange.parse(short) == period
    assert period.start in period
    assert period.end in period
    assert period.after not in period


@pytest.mark.parametrize(
    "text",
    ["2019", "2019--P1X", "2019-13--P1M", "2019--P0Y", "--P1Y", "9999--P2Y", "2019-02-30--P1D"],
)
def test_a_bad_period_is_named_with_a_remedy(text):
    with pytest.raises(ConfigError) as caught:
        TimeRange.parse(text)
    assert repr(text) in str(caught.value)
    assert "2019--P1Y" in caught.value.remedy


def test_months_are_clipped_to_the_calendar():
    assert add_months(datetime(2020, 1, 31), 1) == datetime(2020, 2, 29)
    assert add_months(datetime(2019, 11, 30), 3) == datetime(2020, 2, 29)
    assert add_months(datetime(2020, 2, 29), -12) == datetime(2019, 2, 28)
