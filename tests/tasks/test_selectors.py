"""Every way to name tasks on the command line."""

import pytest

from odc_stats_gpu.errors import ConfigError
from odc_stats_gpu.model import TileIndex
from odc_stats_gpu.tasks import select

TASKS = sorted(
    TileIndex(f"{year}--P1Y", x, y) for year in (2018, 2019) for x in (-3, 0, 41) for y in (-4, 13)
)


@pytest.mark.parametrize(
    "text",
    [
        "2019--P1Y/41/13",
        "2019--P1Y,41,13",
        "x+041/y+013/2019--P1Y",
        "x41/y13/2019--P1Y",
        "41/13/2019--P1Y",
        "41,13,2019--P1Y",
        "2019--p1y/x41/y13",
        "2019--P1Y/+0041/+0013",
        "2019-01--P1Y/41/13",
    ],
)
def test_triplets_in_all_orders(text):
    assert select(TASKS, [text]) == [TileIndex("2019--P1Y", 41, 13)]


def test_negative_tiles():
    want = [TileIndex("2018--P1Y", -3, -4)]
    assert select(TASKS, ["2018--P1Y/-3/-4"]) == select(TASKS, ["x-003/y-004/2018--P1Y"]) == want


@pytest.mark.parametrize(
    "text", ["0:10", "-10:", ":3", "::2", "::-1", "2:-2", "100:200", ":", "-3:-1"]
)
def test_slices_are_pythons(text):
    parts = [int(p) if p else None for p in text.split(":")]
    assert select(TASKS, [text]) == TASKS[slice(*parts)]


def test_order_and_duplicates_stay_as_given():
    assert select(TASKS, ["5", "0:2", "5"]) == [TASKS[5], TASKS[0], TASKS[1], TASKS[5]]
    assert select(TASKS, []) == TASKS


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("-1", "0 to 11"),
        ("12", "0 to 11"),
        ("abc", "abc"),
        ("1:2:3:4", "1:2:3:4"),
        ("1:x", "1:x"),
        ("::0", "::0"),
        ("2019--P1Y/1/1", "no task matches"),
        ("2019/41/13", "2019/41/13"),
        ("1,2", "1,2"),
        ("2019--P1Y/41/13/5", "2019--P1Y/41/13/5"),
    ],
)
def test_a_wrong_selector_is_named_with_the_allowed_forms(text, says):
    with pytest.raises(ConfigError) as caught:
        select(TASKS, [text])
    assert says in str(caught.value)
    assert "period/x/y" in str(caught.value)
