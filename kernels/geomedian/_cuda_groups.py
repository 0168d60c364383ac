"""The lanes that share a pixel: sums, extremes and votes among them; nothing to do where it is one."""

from __future__ import annotations

from types import ModuleType

from numba import cuda

from odc_stats_gpu.kernels._cuda import FULL, device, toolbox


def groups(lanes: int) -> ModuleType:
    """Return device functions over groups of `lanes` neighbours, a power of two up to 32.

    All lanes of a warp call them together. Sums are butterflies, so that all lanes of a group hold
    the same bits.
    """
    steps = lanes.bit_length() - 1
    below_me = lanes - 1
    MASK = (1 << lanes) - 1

    if lanes == 1:

        @device
        def total(value):  # type: ignore[no-untyped-def]
            return value

        @device
        def nearest(distance, copies, place):  # type: ignore[no-untyped-def]
            return distance, copies, place

        @device
        def anyone(condition):  # type: ignore[no-untyped-def]
            return condition

        @device
        def place(valid, lane):  # type: ignore[no-untyped-def]
            return 0, 1 if valid else 0

        @device
        def meet():  # type: ignore[no-untyped-def]
            pass

        @device
        def settle(lane):  # type: ignore[no-untyped-def]
            cuda.threadfence_block()

        return toolbox(
            total=total, least=total, most=total, nearest=nearest, anyone=anyone, place=place,
            meet=meet, settle=settle,
        )  # fmt: skip

    @device
    def total(value):  # type: ignore[no-untyped-def]
        for k in range(steps):
            value += cuda.shfl_xor_sync(FULL, value, 1 << k)
        return value

    @device
    def least(value):  # type: ignore[no-untyped-def]
        for k in range(steps):
            value = min(value, cuda.shfl_xor_sync(FULL, value, 1 << k))
        return value

    @device
    def most(value):  # type: ignore[no-untyped-def]
        for k in range(steps):
            value = max(value, cuda.shfl_xor_sync(FULL, value, 1 << k))
        return value

    @device
    def nearest(distance, copies, place):  # type: ignore[no-untyped-def]
        for k in range(steps):
            other = cuda.shfl_xor_sync(FULL, distance, 1 << k)
            more = cuda.shfl_xor_sync(FULL, copies, 1 << k)
            there = cuda.shfl_xor_sync(FULL, place, 1 << k)
            if other < distance:
                distance, copies, place = other, more, there
            elif other == distance:
                copies += more
                place = min(place, there)
        return distance, copies, place

    @device
    def anyone(condition):  # type: ignore[no-untyped-def]
        return cuda.any_sync(FULL, condition)

    @device
    def place(valid, lane):  # type: ignore[no-untyped-def]
        votes = cuda.ballot_sync(FULL, valid) >> (lane & ~below_me)
        if lanes < 32:
            votes &= MASK
        return cuda.popc(votes & ((1 << (lane & below_me)) - 1)), cuda.popc(votes)

    @device
    def meet():  # type: ignore[no-untyped-def]
        cuda.syncwarp()

    @device
    def settle(lane):  # type: ignore[no-untyped-def]
        cuda.syncwarp(MASK << (lane & ~below_me))

    return toolbox(
        total=total,  # the sum over the group
        least=least,
        most=most,
        nearest=nearest,  # (distance, copies, place): the least, how often, the first place
        anyone=anyone,  # whether the condition holds in any lane of the warp
        place=place,  # (valid, lane): valid ones of the group before this lane; and in all
        meet=meet,  # what any lane of the warp wrote before, all see after
        settle=settle,  # (lane): the same in a group, also where others are elsewhere
    )
