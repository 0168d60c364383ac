"""Medians of three distances to the geomedian, eight pixels in lock-step.

The distances are per observation; with d = x - m and X, m' shifted by offset/scale (the last two
depend on nothing else of the scale):

    emad   |d|
    bcmad  sum|d| / sum|X + m'|
    smad   1 - cos(X, m'), without cancellation: t = d.m'/m'.m', r = d - t m', sin2 = r.r/X.X,
           cos = m'.m' (1 + t)/(|X||m'|), 1 - cos = sin2/(1 + cos)
"""

from __future__ import annotations

import math
from typing import Any

from odc_stats_gpu.kernels._jit import inlined
from odc_stats_gpu.kernels._lanes import (
    absolute,
    any_of,
    as_bits,
    as_count,
    as_floats,
    f8,
    halve,
    i8,
    invert,
    load,
    load_int,
    rows,
    select,
    sign_fill,
    sqrt,
    store_int,
    to_int,
)
from odc_stats_gpu.kernels.geomedian._newton import dot

MISSING = 0x7FFFFFFF
"""sorts after every number, infinity included"""
LEAST = -0x80000000


@inlined
def distances(bands: Any, x: Any, m: Any, shift: Any, shifted: Any, mm: Any) -> Any:
    """Return squared Euclidean, cosine and Bray-Curtis distance of one observation `x`.

    `shifted` is m + shift and `mm` its squared length. Written on rows of any arithmetic type.
    """
    v = x[0] - m[0]
    X = x[0] + shift
    dd = v * v
    dm = v * shifted[0]
    xx = X * X
    apart = absolute(v)
    beside = absolute(X + shifted[0])
    for b in range(1, len(bands)):
        v = x[b] - m[b]
        X = x[b] + shift
        dd += v * v
        dm += v * shifted[b]
        xx += X * X
        apart += absolute(v)
        beside += absolute(X + shifted[b])
    t = dm / mm
    rr = dd - dd
    for b in range(len(bands)):
        r = (x[b] - m[b]) - t * shifted[b]
        rr += r * r
    cos = mm * (1.0 + t) / sqrt(xx * mm)
    smooth = rr / (xx * (1.0 + cos))
    return dd, select(cos > 0.0, smooth, 1.0 - cos), apart / beside


@inlined
def distance_keys(bands: Any, x: Any, dates: Any, m: Any, shift: Any, keys: Any) -> Any:
    """Write three rows of sortable distances per date to `keys`, [emad | smad | bcmad][date].

    Returns the observations whose cosine and Bray-Curtis distances are 0/0 and don't count.
    """
    P = len(bands)
    shifted, sample = rows(bands, 1), rows(bands, 1)
    for b in range(P):
        shifted[b] = m[b] + shift
    mm = dot(bands, shifted, shifted)
    zero = f8(0.0)
    no_angle, no_ratio = zero, zero
    for t in range(dates):
        for b in range(P):
            sample[b] = load(x, t * (P + 1) + b)
        dd, angle, ratio = distances(bands, sample, m, shift, shifted, mm)
        there = load(x, t * (P + 1) + P) > 0.0
        store_int(keys, t, select(there, as_bits(sqrt(dd)), MISSING))
        number = angle >= 0.0  # not NaN
        no_angle += select(there & invert(number), 1.0, zero)
        store_int(keys, dates + t, select(there & number, as_bits(angle), MISSING))
        number = ratio >= 0.0
        no_ratio += select(there & invert(number), 1.0, zero)
        store_int(keys, 2 * dates + t, select(there & number, as_bits(ratio), MISSING))
    return no_angle, no_ratio


@inlined
def ordered(value: Any) -> Any:
    """Map the bits of a float to an integer of the same order; its own inverse."""
    return value ^ (sign_fill(value) & MISSING)


@inlined
def median(keys: Any, first: Any, dates: Any, count: Any) -> Any:
    """Median of the `count` least keys in rows first..first+dates; the two middle values as keys.

    Bisection on the integers: exact, 32 reads at most, usually a third of it, since a lane is ready
    as soon as exactly half of its values lie below the cut.
    """
    n = to_int(count)
    need = halve(n + 1)
    low, high = i8(0), i8(0)
    low, high = low + MISSING, high + LEAST
    for t in range(first, first + dates):
        key = load_int(keys, t)
        low = select(key < low, key, low)
        high = select((key > high) & (key < MISSING), key, high)
    low = select(n > 0, low, 0)
    high = select(n > 0, high, 0)
    while any_of(low < high):
        cut = low + halve(high - low)
        below = i8(0)
        for t in range(first, first + dates):
            below += as_count(load_int(keys, t) <= cut)
        exact = below == need
        enough = below >= need
        high = select(enough, cut, high)
        low = select(exact, cut, select(enough, low, select(low < high, cut + 1, low)))
    below = i8(0)
    lower, upper = below + LEAST, below + MISSING
    for t in range(first, first + dates):
        key = load_int(keys, t)
        inside = key <= high
        below += as_count(inside)
        lower = select(inside & (key > lower), key, lower)
        upper = select((key > high) & (key < upper), key, upper)
    upper = select(below >= halve(n) + 1, lower, upper)
    return lower, upper


@inlined
def mid_value(keys: Any, first: Any, dates: Any, count: Any) -> Any:
    """Median of non-negative floats given as bits; NaN where there are none."""
    lower, upper = median(keys, first, dates, count)
    a, b = as_floats(lower), as_floats(upper)
    return select(count > 0.0, select(lower == upper, a, 0.5 * (a + b)), math.nan)
