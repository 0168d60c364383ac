"""Geomedian and MADs on the CPU: eight pixels in lock-step, the difficult ones one by one, threads.

Pixels are taken in pieces of up to 64 neighbours of a row: every row of the stack is read once,
eight pixels at a time, into a packed copy that stays in the cache. What a pixel gets depends on
that pixel alone, to the last bit: not on pieces, threads or neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from odc_stats_gpu.kernels._jit import inlined, kernel
from odc_stats_gpu.kernels._lanes import (
    LANES,
    ROW_BYTES,
    any_of,
    as_bits,
    as_floats,
    f8,
    load,
    rows,
    select,
    store,
    store_int,
)
from odc_stats_gpu.kernels._threads import spread
from odc_stats_gpu.kernels.geomedian._check import DTYPES, checked_nodata, unit_of
from odc_stats_gpu.kernels.geomedian._face import Geomad, Nodata
from odc_stats_gpu.kernels.geomedian._kink import kink_newton
from odc_stats_gpu.kernels.geomedian._mads import (
    MISSING,
    distance_keys,
    median,
    mid_value,
    ordered,
)
from odc_stats_gpu.kernels.geomedian._newton import UNROLL, mean, newton
from odc_stats_gpu.kernels.geomedian._pack import pack

PIECE = 64
"""pixels packed at a time: at least two cache lines of every (band, date)"""
PIECES_PER_CALL = 64
"""at most, a few milliseconds of work: between calls the GIL is taken, so that interrupts work"""


@inlined
def ordinary_median(x: Any, dates: Any, count: Any, keys: Any, y: Any) -> None:
    """One band: the median of its values."""
    for t in range(dates):
        key = ordered(as_bits(load(x, 2 * t)))
        store_int(keys, t, select(load(x, 2 * t + 1) > 0.0, key, MISSING))
    lower, upper = median(keys, 0, dates, count)
    a, b = as_floats(ordered(lower)), as_floats(ordered(upper))
    y[0] = select(count > 0.0, select(lower == upper, a, 0.5 * (a + b)), math.nan)


@inlined
def gather_lane(packed: Any, first: Any, dates: Any, lane: Any, samples: Any, start: Any) -> Any:
    """Copy one lane's observations to `samples` and their mean to `start`; return their number."""
    P = start.size
    n = 0
    for b in range(P):
        start[b] = 0.0
    for t in range(dates):
        row = first + t * (P + 1)
        if packed[row + P, lane] > 0:
            for b in range(P):
                samples[n, b] = packed[row + b, lane]
                start[b] += samples[n, b]
            n += 1
    for b in range(P):
        start[b] /= n
    return n


@kernel
def geomad_pieces(
    bands: Any,
    kind: Any,
    address: Any,
    steps: Any,
    dates: Any,
    width: Any,
    unit: Any,
    shift: Any,
    scratch: Any,
    results: Any,
    first: Any,
    last: Any,
) -> None:
    """Reduce pieces first..last-1 of an image, counted along its rows.

    Arguments, positional all:
        bands: tuple of P float32, each band's missing value; its length makes the specialisation.
        kind: index of the stack's dtype in DTYPES.
        address: of the stack's first value. steps: strides in bytes (band, date, y, x), x dense.
        dates, width: of the stack; width >= 8.
        unit: length of 1 DN, for tolerances. shift: offset/scale, for angles and ratios.
        scratch: from `new_scratch`.
        results: float32 geomedian (P, y, x), smad, emad, bcmad (y, x) and uint16 count (y, x).
    """
    P = len(bands)
    packed, samples, room, filled = scratch
    geomedian, smad, emad, bcmad, counts = results
    group_rows = -(-dates // UNROLL) * UNROLL * (P + 1)
    base = packed.ctypes.data
    keys_row = (PIECE // LANES) * group_rows
    out_row = keys_row + 3 * (group_rows // (P + 1))
    keys, out = base + keys_row * ROW_BYTES, base + out_row * ROW_BYTES
    y = rows(bands, 1)
    per_row = -(-width // PIECE)
    for piece in range(first, last):
        i = piece // per_row
        begin = (piece % per_row) * PIECE
        pixels = min(PIECE, width - begin)
        if pixels < LANES:  # too few left for a register: do some of the last piece's again
            begin, pixels = width - LANES, LANES
        at = address + i * steps[2] + begin * steps[3]
        if kind == 0:
            pack(bands, np.int16(0), at, steps, dates, pixels, base, group_rows, filled)
        elif kind == 1:
            pack(bands, np.uint16(0), at, steps, dates, pixels, base, group_rows, filled)
        else:
            pack(bands, np.float32(0), at, steps, dates, pixels, base, group_rows, filled)
        for k in range(-(-pixels // LANES)):
            x = base + k * group_rows * ROW_BYTES
            n = filled[k]
            count = mean(bands, x, n, y)
            if P == 1:
                ordinary_median(x, n, count, keys, y)
            else:
                odd = newton(bands, x, n, unit, count, y)
                if any_of(odd):
                    for b in range(P):
                        store(out, b, y[b])
                    store(out, P, select(odd, f8(1.0), 0.0))
                    for lane in range(LANES):
                        if packed[out_row + P, lane] > 0:
                            start = room[2 * P + 9]
                            own = gather_lane(packed, k * group_rows, n, lane, samples, start)
                            kink_newton(samples, own, unit, start, room)
                            for b in range(P):
                                packed[out_row + b, lane] = start[b]
                    for b in range(P):
                        y[b] = load(out, b)
            no_angle, no_ratio = distance_keys(bands, x, n, y, shift, keys)
            for b in range(P):
                store(out, b, y[b])
            store(out, P, mid_value(keys, n, n, count - no_angle))
            store(out, P + 1, mid_value(keys, 0, n, count))
            store(out, P + 2, mid_value(keys, 2 * n, n, count - no_ratio))
            store(out, P + 3, count)
            j = begin + min(k * LANES, pixels - LANES)
            for lane in range(LANES):
                for b in range(P):
                    geomedian[b, i, j + lane] = packed[out_row + b, lane]
                smad[i, j + lane] = packed[out_row + P, lane]
                emad[i, j + lane] = packed[out_row + P + 1, lane]
                bcmad[i, j + lane] = packed[out_row + P + 2, lane]
                counts[i, j + lane] = int(packed[out_row + P + 3, lane])


def new_scratch(bands: int, dates: int) -> tuple[NDArray[Any], ...]:
    """Return the memory that one thread needs."""
    padded = -(-dates // UNROLL) * UNROLL
    wanted = (PIECE // LANES) * padded * (bands + 1) + 3 * padded + bands + 4
    raw = np.empty((wanted + 1) * LANES, np.float32)
    skip = (-raw.ctypes.data % ROW_BYTES) // raw.itemsize  # a row never straddles cache lines
    return (
        raw[skip : skip + wanted * LANES].reshape(wanted, LANES),
        np.empty((max(dates, 1), bands)),
        np.empty((2 * bands + 10, bands)),
        np.empty(PIECE // LANES, np.int64),
    )


def geomad(
    stack: NDArray[np.generic],
    nodata: Nodata,
    *,
    scale: float = 1e-4,
    offset: float = -1e-4,
) -> Geomad:
    """Return geometric median, MADs and count of a NumPy stack; see `kernels.geomad`."""
    missing = tuple(np.float32(v) for v in checked_nodata(stack, nodata, scale, offset))
    bands, dates, height, width = stack.shape
    results = Geomad(
        np.empty((bands, height, width), np.float32),
        np.empty((height, width), np.float32),
        np.empty((height, width), np.float32),
        np.empty((height, width), np.float32),
        np.empty((height, width), np.uint16),
    )
    if not height * width:
        return results
    source = _long_lines(stack)
    lines, length = source.shape[2:]
    flat = tuple(a.reshape(*a.shape[:-2], lines, -1) for a in results)
    if length < LANES:  # fewer pixels than a register has lanes: add some and drop them again
        source = np.pad(source, ((0, 0), (0, 0), (0, 0), (0, LANES - length)))
        padded = geomad(source, nodata, scale=scale, offset=offset)
        return Geomad(
            *(a[..., :length].reshape(r.shape) for a, r in zip(padded, results, strict=True))
        )
    pieces = lines * -(-length // PIECE)
    arguments = (
        missing,
        DTYPES.index(source.dtype.name),
        source.ctypes.data,
        tuple(int(step) for step in source.strides),
        dates,
        length,
        np.float32(unit_of(stack, scale)),
        np.float32(offset / scale),
    )

    per_call = min(PIECES_PER_CALL, max(4, pieces // 64))  # enough calls to keep all threads busy

    def worker() -> Callable[[int], None]:
        scratch = new_scratch(bands, dates)

        def run(call: int) -> None:
            first = call * per_call
            last = min(first + per_call, pieces)
            geomad_pieces(*arguments, scratch, flat, first, last)

        return run

    spread(-(-pieces // per_call), worker)
    return results


def _long_lines(stack: NDArray[Any]) -> NDArray[Any]:
    """Return the stack with x dense, as one line of pixels where its layout allows."""
    height, width = stack.shape[2:]
    if stack.strides[3] != stack.itemsize:
        stack = np.ascontiguousarray(stack)
    if stack.strides[2] != width * stack.itemsize and (width < LANES or height == 1):
        stack = np.ascontiguousarray(stack)
    if stack.strides[2] == width * stack.itemsize:
        stack = stack.reshape(*stack.shape[:2], 1, height * width)
    return stack
