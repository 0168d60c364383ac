"""Periods of each frequency, checked day by day against the calendar."""

from datetime import datetime, timedelta

import pytest

from odc_stats_gpu.errors import ConfigError
from odc_stats_gpu.model import TimeRange
from odc_stats_gpu.tasks import FREQUENCIES
from odc_stats_gpu.tasks._frequency import binner

DAYS = [datetime(2018, 11, 1, 12) + timedelta(days=n) for n in range(900)]


@pytest.mark.parametrize(
    ("frequency", "when", "periods"),
    [
        ("annual", "2019-12-31T23:59:59", ["2019--P1Y"]),
        ("annual-fy", "2020-06-30T23:59:59", ["2019-07--P1Y"]),
        ("annual-fy", "2020-07-01T00:00:00", ["2020-07--P1Y"]),
        ("semiannual", "2019-06-30T00:00:00", ["2019-01--P6M"]),
        ("semiannual", "2019-07-01T00:00:00", ["2019-07--P6M"]),
        ("seasonal", "2020-02-29T23:00:00", ["2019-12--P3M"]),
        ("seasonal", "2019-12-01T00:00:00", ["2019-12--P3M"]),
        ("seasonal", "2019-11-30T23:59:59", ["2019-09--P3M"]),
        ("quarterly", "2019-12-01T00:00:00", ["2019-10--P3M"]),
        ("quartely", "2019-03-31T00:00:00", ["2019-01--P3M"]),
        ("monthly", "2020-02-29T23:59:59", ["2020-02--P1M"]),
        ("nov-mar", "2020-03-31T23:59:59", ["2019-11--P5M"]),
        ("nov-mar", "2020-04-01T00:00:00", []),
        ("nov-mar", "2019-10-31T00:00:00", []),
        ("apr-oct", "2020-10-31T23:59:59", ["2020-04--P7M"]),
        ("apr-oct", "2020-01-01T00:00:00", []),
    ],
)
def test_named_seasons(frequency, when, periods):
    assert list(binner(frequency, None)(datetime.fromisoformat(when))) == periods


@pytest.mark.parametrize("frequency", [f for f in FREQUENCIES if f != "all"])
def test_a_day_lies_in_each_of_its_periods_and_only_there(frequency):
    within = TimeRange.parse("2016-02--P6Y")
    rule = binner(frequency, within)
    periods = {p: TimeRange.parse(p) for day in DAYS for p in rule(day)}
    for day in DAYS:
        assert set(rule(day)) == {p for p, span in periods.items() if day in span}


def test_windows_that_roll_stay_inside_the_range():
    rule = binner("rolling-3months", TimeRange.parse("2019--P1Y"))
    assert list(rule(datetime(2019, 1, 15))) == ["2019-01--P3M"]
    assert list(rule(datetime(2019, 6, 15))) == ["2019-04--P3M", "2019-05--P3M", "2019-06--P3M"]
    assert list(rule(datetime(2019, 12, 15))) == ["2019-10--P3M"]
    years = binner("rolling-3years", TimeRange.parse("2015--P5Y"))
    assert list(years(datetime(2017, 5, 1))) == ["2015--P3Y", "2016--P3Y", "2017--P3Y"]


def test_3month_seasons_start_with_the_range():
    rule = binner("3month-seasons", TimeRange.parse("2019-02--P1Y"))
    assert list(rule(datetime(2019, 2, 1))) == ["2019-02--P3M"]
    assert list(rule(datetime(2020, 1, 31))) == ["2019-11--P3M"]


def test_all_is_the_range_itself():
    assert list(binner("all", TimeRange.parse("2019-03-21--P10D"))(datetime(2019, 3, 22))) == [
        "2019-03-21--P10D"
    ]


@pytest.mark.parametrize("frequency", ["3month-seasons", "rolling-3months", "rolling-3years"])
def test_some_frequencies_need_a_range(frequency):
    with pytest.raises(ConfigError, match="--temporal-range"):
        binner(frequency, None)


def test_an_unknown_frequency_lists_the_known():
    with pytest.raises(ConfigError, match="annual, annual-fy"):
        binner("yearly", None)
    with pytest.raises(ConfigError, match="36 months"):
        binner("rolling-3years", TimeRange.parse("2019--P1Y"))
