"""The block plan keeps its promises for any tile and any budget above the floor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from odc_stats_gpu.engine._limits import Limits
from odc_stats_gpu.engine._memory import BASE, need, parse_block_size, plan_blocks
from odc_stats_gpu.errors import ConfigError
from odc_stats_gpu.model import OutputBand
from odc_stats_gpu.output import writer_bytes

BANDS = [OutputBand(f"b{i}", "int16", -999) for i in range(6)]


@dataclass(frozen=True)
class Stack:
    """Sizes of a stack of 6 int16 bands."""

    dates: int
    alignment: int = 64

    def stack_bytes(self, shape):
        return 12 * self.dates * shape[0] * shape[1]

    def transient_bytes(self, shape, threads):
        return threads * 60 * (shape[0] + 20) * (shape[1] + 20)


def limits(memory):
    return Limits(memory, "--memory-limit", 2)


def test_a_small_tile_is_one_block():
    plan = plan_blocks((800, 800), Stack(32), BANDS, limits(4 << 30), 2)
    assert plan.block == (800, 800)
    assert len(plan.blocks) == 1


def test_a_large_tile_is_cut_although_it_fits():
    plan = plan_blocks((3200, 3200), Stack(40), BANDS, limits(64 << 30), 2)
    assert len(plan.blocks) > 1  # so that reading, computing and encoding overlap


sides = st.integers(1, 4000)


@given(sides, sides, st.integers(1, 300), st.integers(1, 64), st.sampled_from([1, 16, 64, 512]))
def test_blocks_cover_the_tile_once_and_fit(rows, cols, dates, budget, alignment):
    sizes, memory = Stack(dates, alignment), BASE + (budget << 26)
    if need((rows, cols), (min(16, rows), min(16, cols)), sizes, BANDS, 2) > memory:
        with pytest.raises(ConfigError, match="needs at least"):
            plan_blocks((rows, cols), sizes, BANDS, limits(memory), 2)
        return
    plan = plan_blocks((rows, cols), sizes, BANDS, limits(memory), 2)
    covered = np.zeros((rows, cols), np.uint8)
    for block in plan.blocks:
        covered[block.slices] += 1
        assert block.shape[0] <= plan.block[0]
        assert block.shape[1] <= plan.block[1]
    assert (covered == 1).all()
    assert plan.bytes <= memory


def test_more_memory_never_gives_smaller_blocks():
    areas = []
    for gib in (1, 2, 4, 8, 16):
        try:
            plan = plan_blocks((3200, 3200), Stack(90), BANDS, limits(gib << 30), 2)
        except ConfigError:
            continue
        areas.append(plan.block[0] * plan.block[1])
    assert areas == sorted(areas)
    assert len(areas) > 2


def test_two_stacks_and_the_writer_are_counted():
    block, tile = (256, 256), (1024, 1024)
    floor = BASE + 2 * Stack(40).stack_bytes(block) + writer_bytes(tile, BANDS, block)
    assert need(tile, block, Stack(40), BANDS, 2) > floor


def test_too_little_memory_names_the_floor():
    with pytest.raises(ConfigError, match=r"100 MiB \(--memory-limit\).*at least \d+ MiB"):
        plan_blocks((800, 800), Stack(32), BANDS, limits(100 << 20), 2)


@pytest.mark.parametrize(("text", "shape"), [("256", (256, 256)), ("100x800", (100, 800))])
def test_block_size_overrides_the_plan(text, shape):
    assert parse_block_size(text) == shape
    plan = plan_blocks((800, 800), Stack(32), BANDS, limits(1 << 20), 2, text)
    assert plan.block == shape


@pytest.mark.parametrize("text", ["x", "0", "-5", "1x2x3", "2.5"])
def test_wrong_block_size(text):
    with pytest.raises(ConfigError, match="256"):
        parse_block_size(text)
