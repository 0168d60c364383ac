"""The block plan keeps its promises for any tile and any budget above the floor."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from odc_stats_gpu.engine._cuda_cluster import HOST_FLOOR
from odc_stats_gpu.engine._cuda_device import CUDA_CONTEXT, STAGING
from odc_stats_gpu.engine._limits import DeviceMemory, Limits
from odc_stats_gpu.engine._memory import (
    BASE,
    CUDA_ON_HOST,
    POOL_SHARE,
    DeviceTooSmallError,
    need,
    need_on_device,
    parse_block_size,
    plan_blocks,
)
from odc_stats_gpu.errors import ConfigError
from odc_stats_gpu.model import OutputBand
from odc_stats_gpu.output import writer_bytes

BANDS = [OutputBand(f"b{i}", "int16", -999) for i in range(6)]
GIB = 1 << 30


@dataclass(frozen=True)
class Stack:
    """Sizes of a stack of 6 int16 bands."""

    dates: int
    alignment: int = 64

    def stack_bytes(self, shape):
        return 12 * self.dates * shape[0] * shape[1]

    def transient_bytes(self, shape, threads):
        return threads * 60 * (shape[0] + 20) * (shape[1] + 20)

    def decoding_bytes(self, shape, threads):
        return threads * 4 * (shape[0] + 20) * (shape[1] + 20)


def limits(memory):
    return Limits(memory, "--memory-limit", 2)


def gpu(memory):
    return DeviceMemory(memory, "--device-memory", CUDA_CONTEXT)


def test_a_small_tile_is_one_block():
    plan = plan_blocks((800, 800), Stack(32), BANDS, limits(4 << 30), 2)
    assert plan.block == (800, 800)
    assert len(plan.blocks) == 1


def test_a_large_tile_is_cut_although_it_fits():
    plan = plan_blocks((3200, 3200), Stack(40), BANDS, limits(64 << 30), 2)
    assert len(plan.blocks) > 1  # so that reading, computing and encoding overlap


sides = st.integers(1, 4000)
megabytes = st.integers(1, 1 << 14)
alignments = st.sampled_from([1, 16, 64, 512])
stored = st.sampled_from([0, 128, 512, 1024])


def fitting(tile, sizes, host, device, stored):
    try:
        return plan_blocks(tile, sizes, BANDS, limits(host), 2, device=device, stored=stored)
    except ConfigError as exc:
        return exc


@given(sides, sides, st.integers(1, 300), megabytes, megabytes, alignments, stored)
def test_blocks_cover_the_tile_once_and_fit(rows, cols, dates, host, device, alignment, stored):
    tile, sizes = (rows, cols), Stack(dates, alignment)
    smallest = min(16, rows), min(16, cols)
    assume(smallest == tile or max(tile) > 32)  # whole, a tile hardly larger may need less
    for memory in (None, gpu(device << 20)):
        floor = need(tile, smallest, sizes, BANDS, 2, on_device=memory is not None)
        there = CUDA_CONTEXT + need_on_device(tile, smallest, sizes, BANDS, 2) if memory else 0
        plan = fitting(tile, sizes, host << 20, memory, stored)
        if floor > host << 20 or (memory and there > POOL_SHARE * memory.bytes):
            assert isinstance(plan, ConfigError)
            assert "needs at least" in str(plan)
            assert isinstance(plan, DeviceTooSmallError) == (floor <= host << 20)
            continue
        covered = np.zeros(tile, np.uint8)
        for block in plan.blocks:
            covered[block.slices] += 1
            assert block.shape[0] <= plan.block[0]
            assert block.shape[1] <= plan.block[1]
        assert (covered == 1).all()
        assert plan.bytes <= host << 20
        if memory:
            assert plan.device_bytes <= POOL_SHARE * memory.bytes
        for length, side in zip(tile, plan.block, strict=True):
            assert side == length or side <= alignment or side % alignment == 0


@given(sides, sides, st.integers(1, 300), st.lists(megabytes, min_size=2, max_size=2), stored)
def test_more_memory_never_gives_smaller_blocks(rows, cols, dates, budgets, stored):
    """Neither that of the host nor that of the device."""
    few, many = (mib << 20 for mib in sorted(budgets))
    tile, sizes, plenty = (rows, cols), Stack(dates), 64 * GIB
    pairs = [
        (fitting(tile, sizes, few, None, stored), fitting(tile, sizes, many, None, stored)),
        (fitting(tile, sizes, few, gpu(GIB), stored), fitting(tile, sizes, many, gpu(GIB), stored)),
        (
            fitting(tile, sizes, plenty, gpu(few), stored),
            fitting(tile, sizes, plenty, gpu(many), stored),
        ),
    ]
    for less, more in pairs:
        if isinstance(less, ConfigError):
            continue
        assert not isinstance(more, ConfigError)
        assert more.block[0] >= less.block[0]
        assert more.block[1] >= less.block[1]


def test_blocks_lie_on_those_of_the_files_while_they_are_larger():
    def block(mib, stored):
        memory = gpu(mib << 20)
        return plan_blocks((3200, 3200), Stack(90), BANDS, limits(64 * GIB), 2,
                           device=memory, stored=stored).block  # fmt: skip

    assert block(6000, 0) == (1088, 1088)
    assert block(6000, 512) == (1024, 1024)
    assert block(1500, 512) == block(1500, 0) < (512, 512)


def test_two_stacks_and_the_writer_are_counted():
    block, tile = (256, 256), (1024, 1024)
    floor = BASE + 2 * Stack(40).stack_bytes(block) + writer_bytes(tile, BANDS, block)
    assert need(tile, block, Stack(40), BANDS, 2) > floor


def test_with_a_device_the_host_holds_what_passes_through():
    block, tile = (256, 256), (1024, 1024)
    here = need(tile, block, Stack(4000), BANDS, 2, on_device=True)
    assert here == need(tile, block, Stack(1), BANDS, 2, on_device=True)
    assert here > BASE + CUDA_ON_HOST + STAGING + writer_bytes(tile, BANDS, block)
    # buffers of four shapes of blocks instead of one
    ragged = need((1025, 1030), block, Stack(1), BANDS, 2, on_device=True)
    assert ragged - here > 3 * 256 * 256 * 12


def test_too_little_memory_names_the_floor():
    with pytest.raises(ConfigError, match=r"100 MiB \(--memory-limit\).*at least \d+ MiB"):
        plan_blocks((800, 800), Stack(32), BANDS, limits(100 << 20), 2)


def test_too_small_a_gpu_names_the_smallest_that_does():
    tile, sizes = (3200, 3200), Stack(900)

    def plan(mib):
        return plan_blocks(tile, sizes, BANDS, limits(64 * GIB), 2, device=gpu(mib << 20))

    with pytest.raises(DeviceTooSmallError, match=r"700 MiB \(--device-memory\)") as caught:
        plan(700)
    text = str(caught.value)
    assert "larger GPU, lower --threads or use --device cpu" in text
    floor = int(re.search(r"needs at least (\d+) MiB", text)[1])
    assert max(plan(floor).block) <= 32
    with pytest.raises(DeviceTooSmallError):
        plan(floor - 1)


@pytest.mark.parametrize(("text", "shape"), [("256", (256, 256)), ("100x800", (100, 800))])
def test_block_size_overrides_the_plan(text, shape):
    assert parse_block_size(text) == shape
    plan = plan_blocks((800, 800), Stack(32), BANDS, limits(1 << 20), 2, text)
    assert plan.block == shape


@pytest.mark.parametrize("text", ["x", "0", "-5", "1x2x3", "2.5"])
def test_wrong_block_size(text):
    with pytest.raises(ConfigError, match="256"):
        parse_block_size(text)


def test_half_of_a_block_is_half_of_its_pixels_and_aligned():
    plan = plan_blocks((3200, 3200), Stack(32), BANDS, limits(64 * GIB), 2, "1216x1216")
    seen = []
    while (smaller := plan.halved(64)) is not None:
        seen.append(smaller)
        plan = plan_blocks(
            (3200, 3200), Stack(32), BANDS, limits(64 * GIB), 2, "{}x{}".format(*smaller)
        )
    assert seen[:4] == [(640, 1216), (640, 640), (320, 640), (320, 320)]
    assert seen[-1] == (16, 16)
    for (h, w), (rows, cols) in itertools.pairwise([(1216, 1216), *seen]):
        assert rows * cols < h * w
        assert rows * cols <= h * w / 2 + 64 * max(h, w)  # up to the next multiple


LARGE = [
    # device GiB, host GiB, threads: T4, L4, H100
    (16, 8, 4),
    (16, 16, 8),
    (16, 60, 16),
    (24, 48, 16),
    (80, 32, 16),
    (80, 240, 32),
]


@pytest.mark.parametrize(("device", "host", "threads"), LARGE)
def test_a_large_tile_streams_through_any_card(large_plan, large_tile, device, host, threads):
    task, plugin = large_tile
    bands = plugin.output_bands(task.products)
    plan = plan_blocks(
        (9600, 9600), large_plan, bands, limits(host * GIB), threads, device=gpu(device * GIB)
    )
    h, w = plan.block
    # 10 bands of 150 dates in 16 bits, two stacks on the device at a time
    assert large_plan.stack_bytes(plan.block) == 3000 * h * w
    assert 2 * 3000 * h * w + CUDA_CONTEXT < plan.device_bytes <= 0.9 * device * GIB
    assert plan.bytes <= host * GIB
    assert h % 64 == w % 64 == 0
    assert len(plan.blocks) == -(-9600 // h) * -(-9600 // w)
    # half of the card at least does useful work: the next larger blocks wouldn't have fitted
    assert plan.device_bytes > 0.6 * device * GIB
    assert len(plan.blocks) in {16: (49, 64), 24: (36, 49), 80: (9, 16)}[device]


def test_the_floor_of_a_gpu_worker_carries_a_large_tile(large_plan, large_tile):
    task, plugin = large_tile
    bands = plugin.output_bands(task.products)
    plan = plan_blocks(
        (9600, 9600), large_plan, bands, limits(HOST_FLOOR), 16, device=gpu(16 * GIB)
    )
    assert plan.bytes <= HOST_FLOOR
    with pytest.raises(ConfigError, match="too little"):  # no more than it needs
        plan_blocks(
            (9600, 9600), large_plan, bands, limits(HOST_FLOOR - GIB), 16, device=gpu(16 * GIB)
        )


def test_a_large_tile_streams_through_a_cpu(large_plan, large_tile):
    task, plugin = large_tile
    bands = plugin.output_bands(task.products)
    for gib in (4, 8, 60):
        plan = plan_blocks((9600, 9600), large_plan, bands, limits(gib * GIB), 4)
        assert 6000 * plan.block[0] * plan.block[1] < plan.bytes <= gib * GIB
        assert plan.block[0] % 64 == 0
