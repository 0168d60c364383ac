"""How a stack is laid out on a CUDA device: lanes per pixel, shared memory, blocks. Pure arithmetic."""

from __future__ import annotations

import math
from dataclasses import dataclass

WARP = 32
WANTED_WARPS = 8
"""resident warps of a multiprocessor, two per scheduler, that hide the latency of a pass"""
VALID, PASSES = 0.55, 5
"""share of dates, and passes of the slowest of a warp's pixels, that estimates assume"""
LEAST_WARPS = 4
"""resident warps below which observations are kept in device memory instead"""
BLOCK_BYTES = 48 << 10
"""shared memory that any block may ask for"""
BLOCK_RESERVE = 1 << 10
"""shared memory that the driver takes for itself per block"""
BLOCK_WARPS = 4
OFF_CHIP_BLOCKS = 4
"""blocks per multiprocessor and launch where observations are in device memory"""
SCRATCH_BYTES = 256 << 20
"""device memory for observations that fit on no chip"""


@dataclass(frozen=True, kw_only=True)
class Multiprocessors:
    """What the plan needs to know of a device."""

    count: int
    shared_bytes: int
    """shared memory of one"""
    blocks: int
    """resident blocks of one"""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How to launch the kernel."""

    lanes: int
    """per pixel"""
    on_chip: bool
    """whether a pixel's observations stay in shared memory"""
    warps: int
    """per block"""
    blocks: int
    """that make all pixels"""
    grid: int
    """blocks per launch: all, but if observations are in device memory, what has room there"""
    shared_bytes: int
    """dynamic shared memory per block"""
    scratch_words: int
    """int32 words of device memory"""

    @property
    def threads(self) -> int:
        """Per block."""
        return self.warps * WARP


def words_per_observation(P: int, kind: str) -> int:
    """32-bit words of a lane's observation: room for the bands or for three distances, odd."""
    return max(3, P if kind == "float32" else -(-P // 2)) | 1


def sums_per_pixel(P: int) -> int:
    """float32 sums of a pass: a symmetric matrix, a vector, four more."""
    return P * (P + 1) // 2 + P + 4


def rows_turned(lanes: int) -> int:
    """Rows of 32 sums that lanes exchange at a time."""
    return 1 if lanes == 1 else max(16, lanes)


def padded_sums(P: int, lanes: int) -> int:
    """The sums of a pass, filled up to whole exchanges."""
    return -(-sums_per_pixel(P) // rows_turned(lanes)) * rows_turned(lanes)


def numbers_per_pixel(P: int, lanes: int) -> int:
    """float32 numbers of a pixel that stay in shared memory: sums, four vectors, six more."""
    return padded_sums(P, lanes) + 4 * P + 6


def numbers_per_warp(P: int, lanes: int) -> int:
    """float32 numbers of a warp that stay in shared memory."""
    exchange = 0 if lanes == 1 else rows_turned(lanes) * (WARP + 1)
    return numbers_per_pixel(P, lanes) * (WARP // lanes) + exchange


def words_per_warp(P: int, kind: str, dates: int, lanes: int) -> int:
    """32-bit words that hold the observations of a warp's pixels."""
    return -(-dates // lanes) * WARP * words_per_observation(P, kind)


def bytes_per_warp(P: int, kind: str, dates: int, lanes: int) -> int:
    """Shared memory of a warp whose observations are on chip."""
    return 4 * (words_per_warp(P, kind, dates, lanes) + numbers_per_warp(P, lanes))


def plan(
    P: int, kind: str, dates: int, pixels: int, device: Multiprocessors, lanes: int | None = None
) -> Plan:
    """Choose lanes and blocks for `dates` dates of P bands of `kind`; `lanes` overrides the choice.

    More lanes per pixel need less memory per warp, but repeat the algebra of a pixel and add the sums
    of its lanes up. The estimated instructions decide, stretched where too few warps are resident.
    """
    choices = []
    for count in (lanes,) if lanes else (1, 2, 4, 8, 16, 32):
        warps, resident = _block(bytes_per_warp(P, kind, dates, count), device)
        if resident >= LEAST_WARPS:
            stretch = max(1.0, WANTED_WARPS / resident)
            choices.append((instructions(P, dates, count) * stretch, count, warps))
    if not choices:
        return off_chip(P, kind, dates, pixels, device, lanes or WARP)
    _, count, warps = min(choices)
    while warps > 1 and warps * WARP >= 2 * count * pixels:
        warps //= 2
    blocks = -(-pixels // (warps * WARP // count))
    return Plan(
        lanes=count,
        on_chip=True,
        warps=warps,
        blocks=blocks,
        grid=blocks,
        shared_bytes=warps * bytes_per_warp(P, kind, dates, count),
        scratch_words=0,
    )


def instructions(P: int, dates: int, lanes: int) -> float:
    """Estimate the instructions that all lanes of a pixel need; `bench/kernel_costs.py` counts them."""
    own = math.ceil(VALID * dates / lanes)
    newton = own * (7 * P + P * (P + 1) / 2 + 17) + P**3 / 2 + 30 * P + 150
    reading = math.ceil(dates / lanes) * (40 + 7 * P)
    return lanes * (PASSES * newton + own * (230 + 14 * P) + reading)


def off_chip(
    P: int, kind: str, dates: int, pixels: int, device: Multiprocessors, lanes: int
) -> Plan:
    """Plan with the observations in device memory, read again through the caches."""
    block_words = BLOCK_WARPS * words_per_warp(P, kind, dates, lanes)
    blocks = -(-pixels // (BLOCK_WARPS * WARP // lanes))
    grid = min(
        blocks,
        device.count * OFF_CHIP_BLOCKS,
        max(1, SCRATCH_BYTES // 4 // max(1, block_words)),
    )
    return Plan(
        lanes=lanes,
        on_chip=False,
        warps=BLOCK_WARPS,
        blocks=blocks,
        grid=grid,
        shared_bytes=4 * BLOCK_WARPS * numbers_per_warp(P, lanes),
        scratch_words=grid * block_words,
    )


def _block(warp_bytes: int, device: Multiprocessors) -> tuple[int, int]:
    """Warps per block, and warps per multiprocessor, that shared memory allows."""
    best = (1, 0)
    for warps in (1, 2, BLOCK_WARPS):
        size = warps * warp_bytes
        if size <= BLOCK_BYTES:
            blocks = min(device.shared_bytes // (size + BLOCK_RESERVE), device.blocks)
            if blocks * warps >= best[1]:
                best = (warps, blocks * warps)
    return best
