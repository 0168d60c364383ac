"""Weights and means on CUDA, in three arithmetics; each is a set of device functions.

`integers`, for 8- and 16-bit pixels: weights are multiples of 2^-30, sums are int64. No conversion
of a pixel is needed, ties round as the exact value does, and the result is that of float64 but for
one pixel in a million. `floats(np.float32)` for float32; `floats(np.float64)` for the types that
float32 can't hold: the only kernels with doubles in them, since their pixels or the exactness of
32-bit integers ask for it.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from odc_stats_gpu.kernels._cuda_launch import exact

# mypy: allow-untyped-defs, allow-untyped-calls
# Device functions are typed by the compiler.

ONE = np.int64(1 << 30)
HALF = np.int64(1 << 29)
SOME = np.int32(1)


@exact
def missing(value, nodata):
    """Whether a pixel has no value."""
    return (value == nodata) | (value != value)


def integers() -> SimpleNamespace:
    """Return the arithmetic of 8- and 16-bit pixels.

    Factors are int32 and products int64: one instruction, where the compiler sees it.
    """

    @exact
    def nothing():
        return np.int64(0)

    @exact
    def no_weight():
        return np.int32(0)

    @exact
    def stored(fill):
        """The value of missing pixels as what a mean is."""
        return np.int32(fill)

    @exact
    def kept(value, nodata, has_nodata, low):
        """A value that doesn't read as nodata."""
        if has_nodata != 0 and value == np.int32(nodata):
            value += np.int32(1) if value == np.int32(low) else np.int32(-1)
        return value

    @exact
    def share(part, bits):
        """A part of a pixel in units of 2^-bits as one of 2^-30."""
        return np.int32(part >> (bits - np.int64(30)))

    @exact
    def times(weight, value):
        return np.int64(weight) * np.int64(value)

    @exact
    def corners(v, u):
        """Weights of the 2 x 2 taps, whose sum is exactly one."""
        both = np.int32(times(v, u) >> np.int64(30))
        v, u = np.int32(v - both), np.int32(u - both)
        return np.int32(ONE - v - u - both), u, v, both

    @exact
    def cubic(t):
        """Weights of Catmull-Rom's four taps, whose sum is exactly one."""
        t1 = np.int64(t) >> np.int64(1)  # all is twice what it should be, hence half the unit
        t2 = (t1 * t1) >> np.int64(29)
        t3 = (t2 * t1) >> np.int64(29)
        return (
            np.int32(t2 + t2 - t1 - t3),
            np.int32(ONE - np.int64(5) * t2 + np.int64(3) * t3),
            np.int32(t1 + np.int64(4) * t2 - np.int64(3) * t3),
            np.int32(t3 - t2),
        )

    @exact
    def row(w0, w1, w2, w3, t0, t1, t2, t3):
        """Convolve along a row, in units of 2^-14."""
        total = (times(w0, t0) + times(w1, t1)) + (times(w2, t2) + times(w3, t3))
        return np.int32((total + np.int64(1 << 15)) >> np.int64(16))

    @exact
    def smooth(total, less, nodata, has_nodata, low, high):
        """What the sum of convolved rows stores."""
        value = np.int32((total + np.int64(1 << 43) - less) >> np.int64(44))
        value = min(max(value, np.int32(low)), np.int32(high))
        return kept(value, nodata, has_nodata, low)

    @exact
    def box(height, width, spread):
        """Weight of a pixel by the height and width inside, positive."""
        return max(times(max(height, SOME), max(width, SOME)) >> spread, np.int64(1))

    @exact
    def mean(total, weight, whole, less, nodata, has_nodata, low, high):
        """Round total/weight half up; `less` is 1 where just half is to be rounded down.

        `whole`: the weight is one. A mean can't leave the type's range.
        """
        if whole:
            value = np.int32((total + HALF - less) >> np.int64(30))
        else:
            d = np.int64(weight) + np.int64(weight)
            n = total + total + np.int64(weight) - less
            # at most one off, as float32 has 24 bits and the value 16
            value = np.int32(np.float32(n) / np.float32(d))
            rest = n - np.int64(value) * d
            if rest < 0:
                value -= np.int32(1)
            elif rest >= d:
                value += np.int32(1)
        return kept(value, nodata, has_nodata, low)

    return SimpleNamespace(**locals())


def floats(kind: type, *, round_down: bool = False) -> SimpleNamespace:
    """Return the arithmetic of float pixels, or of 32-bit integers (`round_down`) in float64."""
    unit = kind(1)

    @exact
    def nothing():
        return kind(0)

    @exact
    def no_weight():
        return kind(0)

    result = np.int64 if round_down else kind

    @exact
    def stored(fill):
        return result(fill)

    if kind is np.float32:

        @exact
        def share(part, bits):
            return kind(np.int32(part >> (bits - np.int64(30)))) * kind(2.0**-30)

    else:

        @exact
        def share(part, bits):
            return kind(part) / kind(np.int64(1) << bits)

    @exact
    def corners(v, u):
        return (
            (unit - v) * (unit - u),
            (unit - v) * u,
            v * (unit - u),
            v * u,
        )

    @exact
    def cubic(t):
        half = kind(0.5)
        return (
            half * t * (t * (kind(2) - t) - unit),
            unit + half * t * t * (kind(3) * t - kind(5)),
            half * t * (unit + t * (kind(4) - kind(3) * t)),
            half * t * t * (t - unit),
        )

    @exact
    def row(w0, w1, w2, w3, t0, t1, t2, t3):
        return w0 * kind(t0) + w1 * kind(t1) + w2 * kind(t2) + w3 * kind(t3)

    @exact
    def box(height, width, _spread):
        return height * width

    @exact
    def times(weight, value):
        return weight * kind(value)

    if round_down:

        @exact
        def smooth(total, _less, nodata, has_nodata, low, high):
            value = min(max(total + kind(0.5), kind(low)), kind(high))
            whole = np.int64(value)
            if kind(whole) > value:  # casts go towards zero
                whole -= np.int64(1)
            if has_nodata != 0 and whole == np.int64(nodata):
                whole += np.int64(1) if whole == low else np.int64(-1)
            return whole

        @exact
        def mean(total, weight, whole, less, nodata, has_nodata, low, high):
            value = total if whole else total / weight
            return smooth(value, less, nodata, has_nodata, low, high)

    else:

        @exact
        def smooth(total, _less, _nodata, _has_nodata, _low, _high):
            return total

        @exact
        def mean(total, weight, whole, _less, _nodata, _has_nodata, _low, _high):
            return total if whole else total / weight

    return SimpleNamespace(**locals())
