"""Morphology on CUDA: erosion or dilation by a disk of any radius, a tile of the mask per block.

Distances along the columns first, then the disk's outline along the rows, as on the CPU, both in
shared memory. A block makes 64 x 32 pixels; it looks at the columns around them in strips of 128,
one strip for radii up to 32.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numba import cuda, types, uint16

from odc_stats_gpu.kernels._cuda_launch import (
    Listed,
    exact,
    kernel,
    launch,
    memory_of,
    over,
    packed,
)
from odc_stats_gpu.kernels.morphology._stages import as_planes, padding, stages

# mypy: allow-untyped-defs
# Kernels are typed by the compiler.

STRIP = 128
"""Threads of a block, and columns whose distances are in shared memory at a time."""
WIDE, TALL = 64, 32
"""Pixels of a block; a thread makes every second row of a column."""
MOST = 65534
"""Greatest distance told apart; higher images exist in theory."""


def clean_mask(mask: Any, ops: Iterable[tuple[str, float]]) -> Any:
    """Apply operations to a mask; see `odc_stats_gpu.kernels.clean_mask`."""
    memory = memory_of(mask)
    mask = memory.array(mask)
    planes = as_planes(mask)
    chain = stages(ops)
    if not chain or not planes.size:
        return mask.copy()
    pad = padding(chain)
    count, rows, cols = planes.shape
    canvas = (count, rows + 2 * pad, cols + 2 * pad)
    work, offset = planes.view(np.uint8), 0
    for number, stage in enumerate(chain):
        last = number == len(chain) - 1
        margin = 0 if last else pad
        made = memory.empty((count, rows, cols) if last else canvas, np.uint8)
        heights = np.minimum(stage.heights, MOST).astype(np.uint16)
        launch(
            _apply,
            over(made.shape, (WIDE, TALL)),
            (STRIP,),
            work,
            np.int32(margin - offset),
            memory.array(heights),
            np.int32(not stage.dilates),
            made,
        )
        work, offset = made, margin
    return work.view(np.bool_).reshape(mask.shape)


@exact
def step(mask, plane, row, col, erodes, before, far):
    """Distance of a pixel, from that of the one before it."""
    value = np.int32(0)
    if row >= 0 and row < mask.shape[1] and col >= 0 and col < mask.shape[2]:
        value = np.int32(mask[plane, np.uint64(row), np.uint64(col)])
    return np.int32(0) if value != erodes else min(np.int32(before + 1), far)


def apply(mask, shift, heights, erodes, out):
    """Dilate planes of 0 and 1, or erode them by dilating what is not set, the outside included.

    mask and out are (plane, row, column); pixel (r, c) of out lies over (r - shift, c - shift) of
    mask, outside of which nothing is set. heights: half heights of the disk's columns from its
    centre to its rim.
    """
    distance = cuda.shared.array((TALL, STRIP), uint16)
    me = np.int32(cuda.threadIdx.x)
    plane = np.uint64(cuda.blockIdx.z)
    reach = np.int32(heights.size - 1)
    far = np.int32(min(np.int32(heights[0]), np.int32(MOST)) + 1)
    top = np.int32(cuda.blockIdx.y * TALL) - shift
    left = np.int32(cuda.blockIdx.x * WIDE) - shift
    rows = np.int32(mask.shape[1])
    mine, half = me % np.int32(WIDE), me // np.int32(WIDE)
    # one row outside of the mask stands for all
    begin = max(-far, min(np.int32(0), -top - 1))
    end = min(TALL + far, max(np.int32(TALL), rows - top + 1))
    tall = min(TALL, out.shape[1] - cuda.blockIdx.y * TALL)
    found = np.uint32(0)  # bit k: row k of this thread's column is in reach of a pixel that spreads
    for start in range(-reach, WIDE + reach, STRIP):
        # distances of a column up to the nearest pixel that spreads; outside it is a 0 that does
        # so when eroding
        col = left + start + me
        at = far
        for k in range(begin, tall):
            at = step(mask, plane, top + k, col, erodes, at, far)
            if k >= 0:
                distance[np.uint64(k), np.uint64(me)] = at
        at = far
        for k in range(end - 1, -1, -1):
            at = step(mask, plane, top + k, col, erodes, at, far)
            if k < tall and at < np.int32(distance[np.uint64(k), np.uint64(me)]):
                distance[np.uint64(k), np.uint64(me)] = at
        cuda.syncthreads()
        first = max(mine - reach, np.int32(start))
        beyond = min(mine + reach + 1, np.int32(start + STRIP))
        for k in range(half, tall, STRIP // WIDE):
            for x in range(first, beyond):
                height = heights[np.uint64(abs(x - mine))]
                if distance[np.uint64(k), np.uint64(x - start)] <= height:
                    found |= np.uint32(1) << np.uint32(k)
                    break
        cuda.syncthreads()
    c = cuda.blockIdx.x * WIDE + mine
    if c < out.shape[2]:
        for k in range(half, tall, STRIP // WIDE):
            spread = np.int32((found >> np.uint32(k)) & np.uint32(1))
            row = np.uint64(cuda.blockIdx.y * TALL + k)
            out[plane, row, np.uint64(c)] = np.uint8(spread ^ erodes)


_apply = kernel(apply)

KERNELS: tuple[Listed, ...] = (
    (
        "clean_mask",
        apply,
        (packed("uint8", 3), types.int32, packed("uint16"), types.int32, packed("uint8", 3)),
    ),
)
