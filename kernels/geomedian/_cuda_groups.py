"""The lanes that share a pixel: sums, extremes and votes among them; nothing to do where it is one.

Small things go by shuffles. The sums of a pass, dozens per lane, are turned in shared memory instead,
between barriers of the block: on architectures before 9.0 the compiler keeps a way for every shuffle
to be met by a warp that has fallen apart, and those ways would double the registers.
"""

from __future__ import annotations

from types import ModuleType

import numpy as np
from numba import cuda

from odc_stats_gpu.kernels._cuda import (
    FULL,
    WARP,
    device,
    fixed,
    peek,
    peek_float,
    poke,
    poke_float,
    toolbox,
)
from odc_stats_gpu.kernels.geomedian._cuda_plan import rows_turned


def groups(lanes: int, size: int) -> ModuleType:
    """Return device functions over groups of `lanes` neighbours, a power of two up to 32.

    `size` is the length of the vector that `add_up` adds up.
    """
    return _alone(size) if lanes == 1 else _together(lanes, size)


def _alone(size: int) -> ModuleType:
    @device
    def total(value):  # type: ignore[no-untyped-def]
        return value

    @device
    def place(valid, lane):  # type: ignore[no-untyped-def]
        return 0, 1 if valid else 0

    @device
    def meet():  # type: ignore[no-untyped-def]
        pass

    @device
    def nearest(distance, copies, place, memory, stage, lane):  # type: ignore[no-untyped-def]
        return distance, copies, place

    @device
    def add_up(sums, memory, home, stage, lane):  # type: ignore[no-untyped-def]
        for k in range(size):
            poke_float(memory, home, k * WARP, sums[k])

    return toolbox(
        total=total, least=total, most=total, anyone=total, block_anyone=total, place=place,
        meet=meet, block_meet=meet, nearest=nearest, add_up=add_up,
    )  # fmt: skip


def _together(lanes: int, size: int) -> ModuleType:
    STEPS = lanes.bit_length() - 1
    OTHERS = lanes - 1
    MASK = (1 << lanes) - 1
    SHARE = WARP // lanes
    ROWS = rows_turned(lanes)
    PITCH = WARP + 1  # so that lanes that read neighbouring rows touch different banks
    ZERO = np.float32(0)
    FAR = np.float32(1e38)
    YES, NO = np.int32(1), np.int32(0)

    @device
    def total(value):  # type: ignore[no-untyped-def]
        """Sum over the group"""
        for k in range(STEPS):
            value += cuda.shfl_xor_sync(FULL, value, 1 << k)
        return value

    @device
    def least(value):  # type: ignore[no-untyped-def]
        for k in range(STEPS):
            value = min(value, cuda.shfl_xor_sync(FULL, value, 1 << k))
        return value

    @device
    def most(value):  # type: ignore[no-untyped-def]
        for k in range(STEPS):
            value = max(value, cuda.shfl_xor_sync(FULL, value, 1 << k))
        return value

    @device
    def anyone(condition):  # type: ignore[no-untyped-def]
        """Whether the condition holds in any lane of the warp"""
        return cuda.any_sync(FULL, condition)

    @device
    def block_anyone(condition):  # type: ignore[no-untyped-def]
        """Whether the condition holds in any thread of the block"""
        return cuda.syncthreads_or(YES if condition else NO) != 0

    @device
    def place(valid, lane):  # type: ignore[no-untyped-def]
        """Count the valid ones of the group before this lane, and all"""
        votes = (cuda.ballot_sync(FULL, valid) & FULL) >> (lane & ~OTHERS)
        before_me = (1 << (lane & OTHERS)) - 1
        return cuda.popc(np.uint32(votes & before_me)), cuda.popc(np.uint32(votes & MASK))

    @device
    def meet():  # type: ignore[no-untyped-def]
        """What any lane of the warp wrote before, all see after"""
        cuda.syncwarp()

    @device
    def block_meet():  # type: ignore[no-untyped-def]
        cuda.syncthreads()

    @device
    def nearest(distance, copies, place, memory, stage, lane):  # type: ignore[no-untyped-def]
        """Return the group's least distance, how often it occurs, and the first place of it"""
        at = np.int32(stage + lane)
        poke_float(memory, at, 0, distance)
        poke_float(memory, at, PITCH, copies)
        poke(memory, at, 2 * PITCH, place)
        cuda.syncthreads()
        at = np.int32(at - (lane & OTHERS))
        distance, copies = FAR, ZERO
        for _ in range(lanes):
            other = peek_float(memory, at, 0)
            if other == distance:
                copies += peek_float(memory, at, PITCH)
                place = min(place, peek(memory, at, 2 * PITCH))
            if other < distance:
                distance = other
                copies = peek_float(memory, at, PITCH)
                place = peek(memory, at, 2 * PITCH)
            at = np.int32(at + 1)
        cuda.syncthreads()
        return distance, copies, place

    @device
    def add_up(sums, memory, home, stage, lane):  # type: ignore[no-untyped-def]
        """Add the vectors of all lanes up; their sum to memory, a few rows at a time"""
        own = lane & OTHERS
        here = np.int32(stage + lane)
        turned = np.int32(stage + own * PITCH + lane - own)
        to = np.int32(home + own * SHARE)
        for first in fixed(0, size, ROWS):
            for k in range(min(ROWS, size - first)):
                poke_float(memory, here, k * PITCH, sums[first + k])
            cuda.syncthreads()
            for k in fixed(0, ROWS, lanes):  # rows behind the last are added up in vain
                value = peek_float(memory, turned, k * PITCH)
                for j in range(1, lanes):
                    value += peek_float(memory, turned, k * PITCH + j)
                poke_float(memory, to, (first + k) * SHARE, value)
            cuda.syncthreads()

    return toolbox(
        total=total, least=least, most=most, anyone=anyone, block_anyone=block_anyone, place=place,
        meet=meet, block_meet=block_meet, nearest=nearest, add_up=add_up,
    )  # fmt: skip
