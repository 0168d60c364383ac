"""How large a block may be so that everything in flight fits the memory limit."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from odc_stats_gpu.engine._limits import Limits, show_bytes
from odc_stats_gpu.errors import ConfigError
from odc_stats_gpu.model import Block, OutputBand
from odc_stats_gpu.output import writer_bytes

BASE = 384 << 20
"""Bytes that the two processes take before any pixel: interpreter, GDAL, Numba's machine code."""
SMALLEST = 16
"""Rows and columns of the smallest block worth trying."""
_COMFORT = 1 << 30
"""A tile whose stack is larger is cut even if it fits: reading, computing and encoding overlap."""


class Sizes(Protocol):
    """What `ingest.TilePlan` knows of memory."""

    @property
    def alignment(self) -> int:
        """Block edges should be multiples of this."""

    def stack_bytes(self, shape: tuple[int, int]) -> int:
        """Bytes of the stack of a block."""

    def transient_bytes(self, shape: tuple[int, int], threads: int) -> int:
        """Bytes that reading a block needs besides its stack."""


@dataclass(frozen=True, slots=True)
class BlockPlan:
    """How a tile is cut and what that takes."""

    tile: tuple[int, int]
    """Rows, columns."""
    block: tuple[int, int]
    """Rows and columns of a block; those at the right and lower edge may be smaller."""
    bytes: int
    """Predicted peak of all processes together."""
    limit: int
    """What it had to fit into."""

    @property
    def blocks(self) -> list[Block]:
        """Row by row."""
        (rows, cols), (h, w) = self.tile, self.block
        return [
            Block(y, min(y + h, rows), x, min(x + w, cols))
            for y in range(0, rows, h)
            for x in range(0, cols, w)
        ]

    def __str__(self) -> str:
        """For the dry run."""
        count = math.ceil(self.tile[0] / self.block[0]) * math.ceil(self.tile[1] / self.block[1])
        return (
            f"{count} block{'s' if count > 1 else ''} of {self.block[0]}x{self.block[1]}, "
            f"predicted memory {show_bytes(self.bytes)} of {show_bytes(self.limit)}"
        )


def plan_blocks(
    tile: tuple[int, int],
    sizes: Sizes,
    bands: Sequence[OutputBand],
    limits: Limits,
    threads: int,
    block_size: str = "",
) -> BlockPlan:
    """The whole tile when it fits and is small, else the largest aligned block that fits.

    Raises ConfigError naming the floor when not even the smallest block fits. A `block_size`
    (N or HxW) is taken as given: the user may know better than the prediction.
    """
    if block_size:
        h, w = parse_block_size(block_size)
        block = (min(h, tile[0]), min(w, tile[1]))
        return BlockPlan(tile, block, need(tile, block, sizes, bands, threads), limits.memory)
    smallest = 0
    for block in _shapes(tile, max(sizes.alignment, 1)):
        if block == tile and sizes.stack_bytes(tile) > _COMFORT and max(tile) > sizes.alignment:
            continue
        smallest = need(tile, block, sizes, bands, threads)
        if smallest <= limits.memory:
            return BlockPlan(tile, block, smallest, limits.memory)
    raise ConfigError(
        f"a memory limit of {show_bytes(limits.memory)} ({limits.memory_from}) is too little",
        f"this tile needs at least {show_bytes(smallest)}: raise --memory-limit or lower --threads",
    )


def need(
    tile: tuple[int, int],
    block: tuple[int, int],
    sizes: Sizes,
    bands: Sequence[OutputBand],
    threads: int,
) -> int:
    """Peak bytes: a block being read, one computed, one encoded, the writer, the base."""
    stack, reading = sizes.stack_bytes(block), sizes.transient_bytes(block, threads)
    pixels = block[0] * block[1]
    out = pixels * sum(np.dtype(b.dtype).itemsize for b in bands)
    reduce = out + 4 * pixels * len(bands)  # results in float32 before they are rounded
    writer = writer_bytes(tile, bands, block)
    if block == tile:  # nothing overlaps: one thing after the other
        return BASE + max(stack + reading, stack + reduce, out + writer)
    return BASE + 2 * stack + reading + reduce + out + writer


def parse_block_size(text: str) -> tuple[int, int]:
    """Rows and columns of `256` or `256x512`; raises ConfigError."""
    try:
        parts = [int(p) for p in text.lower().split("x")]
        if len(parts) not in (1, 2) or min(parts) < 1:
            raise ValueError(text)
    except ValueError:
        raise ConfigError(
            f"can't read the block size {text!r}", "write N or HxW in pixels, for example 256"
        ) from None
    return (parts[0], parts[-1])


def _shapes(tile: tuple[int, int], step: int) -> Iterator[tuple[int, int]]:
    """The tile, then ever smaller aligned blocks that cut it evenly."""
    yield tile
    seen = {tile}
    side = math.ceil(max(tile) / step) * step
    while side > step:
        side -= step
        block = (_even(tile[0], side, step), _even(tile[1], side, step))
        if block not in seen:
            seen.add(block)
            yield block
    while side > SMALLEST:
        side //= 2
        yield (min(side, tile[0]), min(side, tile[1]))


def _even(length: int, side: int, step: int) -> int:
    """A multiple of `step` up to `side` that cuts `length` into as few, most equal pieces."""
    count = math.ceil(length / side)
    return min(math.ceil(length / count / step) * step, length)
