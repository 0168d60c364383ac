"""Medians of three distances to the geomedian on CUDA: formulas as in `_mads`.

A lane's distances take the place of its observations, as the bits of non-negative floats, which sort
like integers. Medians are found by bisection on those integers: exact, and independent of order.
"""

from __future__ import annotations

from types import ModuleType

import numpy as np
from numba import cuda, float32

from odc_stats_gpu.kernels._cuda import (
    bits_of,
    device,
    float_of,
    peek,
    poke,
    poke_float,
    rsqrt,
    toolbox,
)


def mads(P: int, G: ModuleType, S: ModuleType) -> ModuleType:
    """Return device functions over a lane's observations at words[first:end:stride]."""
    STRIDE = S.stride
    ZERO, ONE, HALF = np.float32(0), np.float32(1), np.float32(0.5)
    NAN = np.float32(np.nan)
    INFINITY = np.float32(np.inf)
    BEYOND = np.int32(0x7F800000)  # the bits of infinity
    MISSING = np.int32(0x7FFFFFFF)  # sorts after every number, infinity included
    LEAST = np.int32(-0x80000000)
    NONE = np.int32(0)
    ODD = np.int32(1)

    @device
    def distances(words, first, end, m, shift):  # type: ignore[no-untyped-def]
        """Replace every observation by keys: squared Euclidean, cosine and Bray-Curtis distance."""
        x = cuda.local.array(P, float32)
        c = cuda.local.array(P, float32)
        mm = ZERO
        for b in range(P):
            c[b] = m[b] + shift
            mm += c[b] * c[b]
        length = ZERO
        per_mm = ZERO
        if mm > ZERO:
            length = mm * rsqrt(mm)
            per_mm = ONE / mm
        at = first
        while at < end:
            S.unpack(words, at, x)
            dd, dm, xx, apart, beside = ZERO, ZERO, ZERO, ZERO, ZERO
            for b in range(P):
                X = x[b] + shift
                x[b] -= m[b]
                dd += x[b] * x[b]
                dm += x[b] * c[b]
                xx += X * X
                apart += abs(x[b])
                beside += abs(X + c[b])
            t = dm * per_mm
            rr = ZERO
            for b in range(P):
                r = x[b] - t * c[b]
                rr += r * r
            angle = MISSING
            if (xx > ZERO) & (mm > ZERO):
                per_x = rsqrt(xx)
                cos = length * (ONE + t) * per_x
                if cos > ZERO:
                    angle = bits_of(rr * per_x * per_x / (ONE + cos))
                else:
                    angle = bits_of(ONE - cos)
            ratio = BEYOND
            if beside > ZERO:
                ratio = bits_of(apart / beside)
            elif apart <= ZERO:
                ratio = MISSING
            poke_float(words, at, 0, dd)
            poke(words, at, 1, angle)
            poke(words, at, 2, ratio)
            at = np.int32(at + STRIDE)

    @device
    def middle(words, first, end):  # type: ignore[no-untyped-def]
        """Return the two middle keys (one twice where the number is odd) and how many there are."""
        low, high, n = MISSING, LEAST, NONE
        at = np.int64(first)
        while at < end:
            key = peek(words, at, 0)
            low = min(low, key)
            if key < MISSING:
                high = max(high, key)
                n = np.int32(n + 1)
            at += STRIDE
        low, high, n = G.least(low), G.most(high), G.total(n)
        if n == 0:
            low, high = NONE, NONE
        need = (n + 1) // 2
        while G.anyone(low < high):
            cut = np.int32((low >> ODD) + (high >> ODD) + (low & high & ODD))
            below = NONE
            at = np.int64(first)
            while at < end:
                if peek(words, at, 0) <= cut:
                    below = np.int32(below + 1)
                at += STRIDE
            below = G.total(below)
            if low < high:
                if below < need:
                    low = np.int32(cut + ODD)
                else:
                    high = cut
                    if below == need:
                        low = cut
        below, lower, upper = NONE, LEAST, MISSING
        at = np.int64(first)
        while at < end:
            key = peek(words, at, 0)
            if key <= high:
                below = np.int32(below + 1)
                lower = max(lower, key)
            else:
                upper = min(upper, key)
            at += STRIDE
        below, lower, upper = G.total(below), G.most(lower), G.least(upper)
        if below >= n // 2 + 1:
            upper = lower
        return lower, upper, n

    @device
    def mid_value(lower, upper, n):  # type: ignore[no-untyped-def]
        result = float_of(lower)
        if n == 0:
            result = NAN
        elif upper == BEYOND:
            result = INFINITY
        elif upper != lower:
            result = HALF * (float_of(lower) + float_of(upper))
        return result

    @device
    def root(key):  # type: ignore[no-untyped-def]
        """Bits of the square root of a float given by its bits."""
        square = float_of(key)
        return bits_of(square * rsqrt(square)) if square > ZERO else NONE

    @device
    def medians(words, first, end):  # type: ignore[no-untyped-def]
        """Return the medians of what `distances` left; NaN where there is none."""
        lower, upper, n = middle(words, first, end)
        spread = mid_value(root(lower), root(upper), n)
        lower, upper, _n = middle(words, np.int32(first + 1), end)
        angle = mid_value(lower, upper, n)
        lower, upper, n = middle(words, np.int32(first + 2), end)
        return spread, angle, mid_value(lower, upper, n)

    @device
    def ordered(key):  # type: ignore[no-untyped-def]
        """Bits of a float to an integer of the same order; its own inverse."""
        return key ^ ((key >> np.int32(31)) & MISSING)

    @device
    def ordinary_median(words, first, end):  # type: ignore[no-untyped-def]
        """One band: the median of its values."""
        x = cuda.local.array(1, float32)
        at = first
        while at < end:
            S.unpack(words, at, x)
            poke(words, at, 1, ordered(bits_of(x[0])))
            at = np.int32(at + STRIDE)
        lower, upper, _n = middle(words, np.int32(first + 1), end)
        a, b = float_of(ordered(lower)), float_of(ordered(upper))
        return a if lower == upper else HALF * (a + b)

    return toolbox(distances=distances, medians=medians, ordinary_median=ordinary_median)
