"""The CUDA kernel: validity, compaction, geometric median and three MADs of a pixel, all on chip.

A group of 1 to 32 lanes shares a pixel. They read its dates once, keep the valid ones in shared
memory as they came (16-bit integers stay that), and go through them a few times: the mean, Newton
passes, distances, bisections. What a pixel gets depends on that pixel and on the number of lanes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numba import cuda, float32, int32, types

from odc_stats_gpu.kernels._cuda import WARP, device, unrolled
from odc_stats_gpu.kernels._cuda_launch import packed, strided
from odc_stats_gpu.kernels.geomedian._cuda_algebra import algebra
from odc_stats_gpu.kernels.geomedian._cuda_groups import groups
from odc_stats_gpu.kernels.geomedian._cuda_mads import mads
from odc_stats_gpu.kernels.geomedian._cuda_newton import newton
from odc_stats_gpu.kernels.geomedian._cuda_plan import (
    numbers_per_pixel,
    numbers_per_warp,
    sums_per_pixel,
)
from odc_stats_gpu.kernels.geomedian._cuda_samples import samples


@cache
def geomad_kernel(P: int, lanes: int, kind: str, *, on_chip: bool) -> Callable[..., None]:
    """Return the kernel for P bands, `lanes` per pixel, stacks of `kind`, as a plain function.

    Its arguments:
        stack: (band, date, y, x), any strides; float32 as int32 bits.
        missing: tuple of P int32: a band's missing value (float32: its bits), or one it can't have.
        unit: length of 1 DN. shift: offset/scale.
        first_block: int32, added to the block's index, so that a few blocks at a time make an image.
        scratch: int32, where observations go if not on chip.
        geomedian, smad, emad, bcmad: float32 (band, pixel) and (pixel,). count: uint16 (pixel,).
    Blocks are whole warps; grid, dynamic shared memory and scratch are as `_cuda_plan` says.
    """
    share = WARP // lanes  # pixels of a warp
    A, G, S = algebra(P, share), groups(lanes, sums_per_pixel(P)), samples(P, kind)
    N, D = newton(P, lanes, A, G, S), mads(P, G, S)
    STRIDE = S.stride
    WORDS = S.stride // WARP
    NUMBERS = numbers_per_warp(P, lanes)
    VECTORS = numbers_per_pixel(P, lanes) * share
    ZERO, HALF, ONE = np.float32(0), np.float32(0.5), np.float32(1)
    NAN = np.float32(np.nan)

    @device
    def gather(stack, missing, i, j, inside, lane, words, base):  # type: ignore[no-untyped-def]
        """Keep a pixel's valid observations; return how many."""
        value = cuda.local.array(P, int32)
        dates = np.int32(stack.shape[1])
        sub = np.int32(lane % lanes)
        n, first = np.int32(0), np.int32(0)
        while first < dates:
            t = np.int32(first + sub)
            valid = False
            if inside & (t < dates):
                valid = S.read(stack, t, i, j, missing, value)
            before_me, found = G.place(valid, lane)
            if valid:
                slot = np.int32(n + before_me)
                row, column = np.int32(slot // lanes), np.int32(slot % lanes)
                S.pack(value, words, np.int32(base + row * STRIDE + (lane - sub + column) * WORDS))
            n = np.int32(n + found)
            first = np.int32(first + lanes)
        return n

    @device
    def mean(words, first, end, n, y):  # type: ignore[no-untyped-def]
        """Put the mean into y: the start, and the result of one or two observations."""
        x = cuda.local.array(P, float32)
        for b in range(P):
            y[b] = ZERO
        at = first
        while at < end:
            S.unpack(words, at, x)
            for b in range(P):
                y[b] += x[b]
            at = np.int32(at + STRIDE)
        part = ONE
        if n == 2:
            part = HALF
        elif n > 2:
            part = ONE / np.float32(n)
        for b in range(P):
            y[b] = G.total(y[b]) * part

    def kernel(  # type: ignore[no-untyped-def]
        stack, missing, unit, shift, first_block, scratch, geomedian, smad, emad, bcmad, count
    ):
        y = cuda.local.array(P, float32)
        shared = cuda.shared.array(0, int32)
        lane = np.int32(cuda.threadIdx.x % WARP)
        warp = np.int32(cuda.threadIdx.x // WARP)
        warps = np.int32(cuda.blockDim.x // WARP)
        sub = np.int32(lane % lanes)
        width = np.int32(stack.shape[3])
        capacity = np.int32((stack.shape[1] + lanes - 1) // lanes * STRIDE)
        if on_chip:
            words = shared
            base = np.int32(warp * (capacity + NUMBERS))
            store = np.int32(base + capacity)
        else:
            words = scratch
            base = np.int32((cuda.blockIdx.x * warps + warp) * capacity)
            store = np.int32(warp * NUMBERS)
        tile = np.int32(first_block + cuda.blockIdx.x)
        pixel = np.int32((tile * warps + warp) * share + lane // lanes)
        row = np.int32(pixel // width)
        column = np.int32(pixel - row * width)
        inside = pixel < np.int32(stack.shape[2] * width)
        G.meet()
        n = gather(stack, missing, row, column, inside, lane, words, base)
        G.meet()
        own = (n - sub + lanes - 1) // lanes if n > sub else 0
        first = np.int32(base + lane * WORDS)
        end = np.int32(first + own * STRIDE)
        mean(words, first, end, n, y)
        if P == 1:
            y[0] = D.ordinary_median(words, first, end)
        else:
            home = np.int32(store + lane // lanes)
            stage = np.int32(store + VECTORS)
            N.median(words, first, end, lane, n, unit, shared, home, stage, y)
        D.distances(words, first, end, y, shift)
        spread, angle, ratio = D.medians(words, first, end)
        if inside & (sub == 0):
            for b in range(P):
                geomedian[b, pixel] = y[b] if n > 0 else NAN
            smad[pixel] = angle
            emad[pixel] = spread
            bcmad[pixel] = ratio
            count[pixel] = n

    return unrolled(kernel)


def geomad_types(P: int, kind: str) -> tuple[Any, ...]:
    """Return the types of the kernel's arguments."""
    numbers, count = packed("float32"), packed("uint16")
    return (
        strided("int32" if kind == "float32" else kind, 4),
        types.UniTuple(int32, P),
        float32,
        float32,
        int32,
        packed("int32"),
        packed("float32", 2),
        numbers,
        numbers,
        numbers,
        count,
    )
