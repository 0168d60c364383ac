"""How large a block may be so that everything in flight fits the memory of host and device."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from odc_stats_gpu.engine._cuda_device import LANES, STAGING
from odc_stats_gpu.engine._limits import DeviceMemory, Limits, show_bytes
from odc_stats_gpu.errors import ConfigError
from odc_stats_gpu.model import Block, OutputBand
from odc_stats_gpu.output import writer_bytes

BASE = 384 << 20
"""Bytes that the two processes take before any pixel: interpreter, GDAL, Numba's machine code."""
DECODER = 4 << 20
"""Bytes of a thread that decodes: blocks of a file, as they are stored and as pixels."""
CUDA_ON_HOST = 1 << 30
"""Bytes of host memory that CUDA's libraries and a context take."""
GEOMEDIAN_SCRATCH = 256 << 20
"""Device memory for observations that fit on no chip (`kernels/geomedian/_cuda_plan.py`)."""
ROUNDING = 16
"""Bytes per pixel that turning one band of floats into pixels takes for a moment."""
POOL_SHARE = 0.9
"""Of device memory: the rest is lost in a pool between arrays of different sizes."""
SMALLEST = 16
"""Rows and columns of the smallest block worth trying."""
_COMFORT = 1 << 30
"""A tile whose stack is larger is cut even if it fits: reading, computing and encoding overlap."""


class DeviceTooSmallError(ConfigError):
    """Not even the smallest block fits the device."""


class Sizes(Protocol):
    """What `ingest.TilePlan` knows of memory."""

    @property
    def alignment(self) -> int:
        """Block edges should be multiples of this."""

    def stack_bytes(self, shape: tuple[int, int]) -> int:
        """Bytes of the stack of a block."""

    def transient_bytes(self, shape: tuple[int, int], threads: int) -> int:
        """Bytes that a block's scenes need besides its stack, where the stack is."""

    def decoding_bytes(self, shape: tuple[int, int], threads: int) -> int:
        """Bytes of host memory that reading a block takes when its stack is on a device."""


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
    device_bytes: int = 0
    """Predicted peak on the GPU; 0 without one."""
    device: DeviceMemory | None = None
    """What that had to fit into."""

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
        text = (
            f"{count} block{'s' if count > 1 else ''} of {self.block[0]}x{self.block[1]}, "
            f"predicted memory {show_bytes(self.bytes)} of {show_bytes(self.limit)}"
        )
        if self.device is not None:
            there = f"{show_bytes(self.device_bytes)} of {show_bytes(self.device.bytes)}"
            text += f", on the device {there} ({self.device.source})"
        return text

    def halved(self, step: int) -> tuple[int, int] | None:
        """Rows and columns of blocks half that size; None when there are no smaller ones."""
        h, w = self.block
        longer = max(h, w)
        if longer <= SMALLEST:
            return None
        half = math.ceil(longer / 2 / step) * step
        half = half if half < longer else max(SMALLEST, longer // 2)
        return (half, w) if h >= w else (h, half)


def plan_blocks(
    tile: tuple[int, int],
    sizes: Sizes,
    bands: Sequence[OutputBand],
    limits: Limits,
    threads: int,
    block_size: str = "",
    device: DeviceMemory | None = None,
    stored: int = 0,
) -> BlockPlan:
    """The whole tile when it fits and is small, else the largest aligned block that fits.

    With `device` the stack is there: both memories have to suffice. `stored`: side of the blocks
    in which the sources are stored, in pixels of the tile; larger blocks are multiples of it.
    A `block_size` (N or HxW) is taken as given: the user may know better than the prediction.

    Raises:
        ConfigError: not even the smallest block fits the host; names what it needs.
        DeviceTooSmallError: likewise of the device.
    """

    def cut(block: tuple[int, int]) -> BlockPlan:
        here = need(tile, block, sizes, bands, threads, on_device=device is not None)
        if device is None:
            return BlockPlan(tile, block, here, limits.memory)
        there = device.context + need_on_device(tile, block, sizes, bands, threads)
        return BlockPlan(tile, block, here, limits.memory, there, device)

    if block_size:
        h, w = parse_block_size(block_size)
        return cut((min(h, tile[0]), min(w, tile[1])))
    step = max(sizes.alignment, 1)
    plan = None
    for block in _shapes(tile, step, max(stored, step)):
        if block == tile and sizes.stack_bytes(tile) > _COMFORT and max(tile) > step:
            continue
        plan = cut(block)
        if plan.bytes <= limits.memory and (
            device is None or plan.device_bytes <= POOL_SHARE * device.bytes
        ):
            return plan
    assert plan is not None  # noqa: S101 - the smallest block is always tried
    if plan.bytes > limits.memory:
        raise ConfigError(
            f"a memory limit of {show_bytes(limits.memory)} ({limits.memory_from}) is too little",
            f"this tile needs at least {_mebibytes(plan.bytes)}: raise --memory-limit or lower"
            " --threads",
        )
    assert device is not None  # noqa: S101 - else the plan would have fitted
    floor = _mebibytes(plan.device_bytes / POOL_SHARE)
    raise DeviceTooSmallError(
        f"device memory of {show_bytes(device.bytes)} ({device.source}) is too little",
        f"this tile needs at least {floor}: take a larger GPU, lower --threads or use --device cpu",
    )


def _mebibytes(count: float) -> str:
    """Rounded up, so that this much, given as a limit, is enough."""
    return f"{math.ceil(count / 2**20)} MiB"


def need(
    tile: tuple[int, int],
    block: tuple[int, int],
    sizes: Sizes,
    bands: Sequence[OutputBand],
    threads: int,
    *,
    on_device: bool = False,
) -> int:
    """Peak bytes of the host: a block being read, one computed, one encoded, the writer, the base.

    With a device only what is read and what comes back is here, on its way through pinned memory.
    """
    out, reduce = _results(block, bands)
    writer = writer_bytes(tile, bands, block) + threads * DECODER
    if on_device:
        reading = sizes.decoding_bytes(block, threads)
        shapes = math.prod(2 if n % side else 1 for n, side in zip(tile, block, strict=True))
        # the pool of pinned memory keeps buffers of every size that was ever fetched
        return BASE + CUDA_ON_HOST + STAGING + reading + shapes * out + writer
    stack, reading = sizes.stack_bytes(block), sizes.transient_bytes(block, threads)
    if block == tile:  # nothing overlaps: one thing after the other
        return BASE + max(stack + reading, stack + reduce, out + writer)
    return BASE + 2 * stack + reading + reduce + out + writer


def need_on_device(
    tile: tuple[int, int],
    block: tuple[int, int],
    sizes: Sizes,
    bands: Sequence[OutputBand],
    threads: int,
) -> int:
    """Peak bytes of arrays on the GPU; no lane gets memory that another one has freed.

    While a lane's next block is read, the results of its last one may still be on their way back.
    """
    out, reduce = _results(block, bands)
    reading = sizes.transient_bytes(block, threads)
    lane = sizes.stack_bytes(block) + max(out + reading, reduce + GEOMEDIAN_SCRATCH)
    return lane if block == tile else LANES * lane


def _results(block: tuple[int, int], bands: Sequence[OutputBand]) -> tuple[int, int]:
    """Bytes of a block's results, and of those with the float32 that they are rounded from."""
    pixels = block[0] * block[1]
    out = pixels * sum(np.dtype(b.dtype).itemsize for b in bands)
    return out, out + pixels * (4 * len(bands) + ROUNDING)


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


def _shapes(tile: tuple[int, int], step: int, stored: int) -> Iterator[tuple[int, int]]:
    """The tile, then ever smaller blocks that cut it evenly into multiples of `stored`, `step`."""
    sides = [*range(math.ceil(max(tile) / stored) * stored, stored - 1, -stored)]
    sides += range(math.ceil(sides[-1] / step) * step - step, step - 1, -step)
    while sides[-1] > SMALLEST:
        sides.append(max(sides[-1] // 2, SMALLEST))
    seen = {tile}
    yield tile
    for side in (side for side in sides if side >= SMALLEST):
        unit = stored if side >= stored else step if side >= step else 1
        block = (_even(tile[0], side, unit), _even(tile[1], side, unit))
        if block not in seen:
            seen.add(block)
            yield block


def _even(length: int, side: int, step: int) -> int:
    """A multiple of `step` up to `side` that cuts `length` into as few, most equal pieces."""
    count = math.ceil(length / side)
    return min(math.ceil(length / count / step) * step, length)
