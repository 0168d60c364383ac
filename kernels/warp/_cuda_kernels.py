"""CUDA kernels of the warp: one thread per destination pixel, coordinates once for all bands."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
from numba import cuda

from odc_stats_gpu.kernels._cuda_launch import exact
from odc_stats_gpu.kernels.warp._cuda_cells import LOST, TERMS
from odc_stats_gpu.kernels.warp._cuda_values import missing

# mypy: allow-untyped-defs, allow-untyped-calls
# Kernels are typed by the compiler.

ZERO, UNIT = np.int64(0), np.int64(1)
BEYOND = np.int64(3 * LOST // 4)
"""Points of lost cells lie left of this pixel, no others do."""
NOT_WHOLE = False
"""The weights of a box have no fixed sum."""


@exact
def cell(pixel, step, last, half):
    """Cell of a pixel and half pixels from its first node, to the pixel's centre or a corner.

    `pixel` counts from the first node; `half` is -1 for its first corner, 0 for its centre, 1 for
    its last corner.
    """
    first = max(pixel - UNIT, ZERO) if half < 0 else pixel
    found = min(np.int64(np.uint32(first) // np.uint32(step)), last)
    return found, np.int64(2) * (pixel - found * step) + half


@exact
def position(terms, at, v, u, guard):
    """Coordinate of a point, `v` and `u` half pixels from the first node of the cell at `at`."""
    n, a = terms[np.uint64(at)], terms[np.uint64(at + UNIT)]
    b, c = terms[np.uint64(at + np.int64(2))], terms[np.uint64(at + np.int64(3))]
    around = (UNIT << guard) >> UNIT
    return n + ((a * v + b * u + ((c * v) >> guard) * u + around) >> guard)


@exact
def point(terms, down, along, step, guard, half, r, c):
    """X and y of a destination pixel's centre (`half` 0) or corner.

    `down` and `along` are cells and pixels before the first one, of rows and of columns.
    """
    i, v = cell(down[1] + r, step, down[0] - UNIT, half)
    j, u = cell(along[1] + c, step, along[0] - UNIT, half)
    at = (i * along[0] + j) * np.int64(TERMS)
    return position(terms, at, v, u, guard), position(terms, at + np.int64(4), v, u, guard)


@exact
def split(p, bits):
    """Pixel whose centre is at or before a point, and the way from that centre."""
    p -= UNIT << (bits - UNIT)
    whole = p >> bits
    return whole, p - (whole << bits)


# All kernels take: `src` flat, planes of rows x cols pixels one after the other; `out` (plane, row,
# column); and of `_cuda_cells.Cells` the terms, flat, cells down and along, step, guard and bits;
# the destination pixels before the first one in the first cell; EDGE in units of the last place.


def nearest(
    src, rows, cols, out, terms, cells_y, cells_x, phase_y, phase_x, step, guard, bits, edge,
    nodata, has_nodata, fill,
):  # fmt: skip
    """Take the pixel that contains the point."""
    c, r = cuda.grid(2)
    if r >= out.shape[1] or c >= out.shape[2]:
        return
    x, y = point(
        terms, (cells_y, phase_y), (cells_x, phase_x), step, guard, ZERO, np.int64(r), np.int64(c)
    )
    # a pixel begins `edge` before where it begins
    i, j = (y + edge) >> bits, (x + edge) >> bits
    inside = (i >= 0) & (i < rows) & (j >= 0) & (j < cols)
    at = i * cols + j
    for b in range(out.shape[0]):
        value = fill
        if inside:
            value = src[np.uint64(at)]
            if has_nodata != 0 and missing(value, nodata):
                value = fill
        out[np.uint64(b), np.uint64(r), np.uint64(c)] = value
        at += rows * cols


def centres(arithmetic: SimpleNamespace) -> SimpleNamespace:
    """Make the bilinear and the cubic kernel in one of the arithmetics of `_cuda_values`."""
    nothing, no_weight, stored = arithmetic.nothing, arithmetic.no_weight, arithmetic.stored
    share, corners, times, mean = (
        arithmetic.share, arithmetic.corners, arithmetic.times, arithmetic.mean,
    )  # fmt: skip
    catmull_rom, convolve, smooth = arithmetic.cubic, arithmetic.row, arithmetic.smooth

    @exact
    def tap(src, at, weight, inside, nodata, has_nodata):
        """Weight and weighted value of one pixel, nothing if it is outside or missing."""
        value = src[np.uint64(at)]
        if inside and not (has_nodata != 0 and missing(value, nodata)):
            return weight, times(weight, value), True
        return no_weight(), nothing(), False

    @exact
    def blend(src, base, rows, cols, row, col, v, u, below, right, nodata, has_nodata):
        """Sum over the 2 x 2 taps that are there, its weight; whether all are, and the nearest."""
        w00, w01, w10, w11 = corners(v, u)
        top, bottom, left, end = row >= 0, row < rows - UNIT, col >= 0, col < cols - UNIT
        above = base + max(row, ZERO) * cols
        under = base + min(row + UNIT, rows - UNIT) * cols
        c0, c1 = max(col, ZERO), min(col + UNIT, cols - UNIT)
        k00, s00, f00 = tap(src, above + c0, w00, top and left, nodata, has_nodata)
        k01, s01, f01 = tap(src, above + c1, w01, top and end, nodata, has_nodata)
        k10, s10, f10 = tap(src, under + c0, w10, bottom and left, nodata, has_nodata)
        k11, s11, f11 = tap(src, under + c1, w11, bottom and end, nodata, has_nodata)
        upper = f01 if right else f00
        lower = f11 if right else f10
        found = lower if below else upper
        whole = f00 and f01 and f10 and f11
        return (s00 + s01) + (s10 + s11), (k00 + k01) + (k10 + k11), whole, found

    def bilinear(
        src, rows, cols, out, terms, cells_y, cells_x, phase_y, phase_x, step, guard, bits, edge,
        nodata, has_nodata, fill, less, low, high,
    ):  # fmt: skip
        """Blend the 2 x 2 pixels around the point."""
        c, r = cuda.grid(2)
        if r >= out.shape[1] or c >= out.shape[2]:
            return
        x, y = point(
            terms, (cells_y, phase_y), (cells_x, phase_x), step, guard, ZERO,
            np.int64(r), np.int64(c),
        )  # fmt: skip
        row, fy = split(y, bits)
        col, fx = split(x, bits)
        near = (UNIT << (bits - UNIT)) - edge
        below, right = fy >= near, fx >= near
        touches = row >= -UNIT and row < rows and col >= -UNIT and col < cols
        v, u = share(fy, bits), share(fx, bits)
        base = ZERO
        for b in range(out.shape[0]):
            value = stored(fill)
            if touches:
                total, weight, whole, found = blend(
                    src, base, rows, cols, row, col, v, u, below, right, nodata, has_nodata
                )
                if found:
                    value = mean(total, weight, whole, less, nodata, has_nodata, low, high)
            out[np.uint64(b), np.uint64(r), np.uint64(c)] = value
            base += rows * cols

    @exact
    def line(src, at, w0, w1, w2, w3, nodata, has_nodata):
        """Convolve four neighbours of a row; whether all are there."""
        t0, t1 = src[np.uint64(at)], src[np.uint64(at + UNIT)]
        t2, t3 = src[np.uint64(at + np.int64(2))], src[np.uint64(at + np.int64(3))]
        lacks = missing(t0, nodata) | missing(t1, nodata)
        lacks |= missing(t2, nodata) | missing(t3, nodata)
        return convolve(w0, w1, w2, w3, t0, t1, t2, t3), not (has_nodata != 0 and lacks)

    def cubic(
        src, rows, cols, out, terms, cells_y, cells_x, phase_y, phase_x, step, guard, bits, edge,
        nodata, has_nodata, fill, less, low, high,
    ):  # fmt: skip
        """Convolve 4 x 4 pixels around the point (Catmull-Rom); bilinear where one is missing."""
        c, r = cuda.grid(2)
        if r >= out.shape[1] or c >= out.shape[2]:
            return
        x, y = point(
            terms, (cells_y, phase_y), (cells_x, phase_x), step, guard, ZERO,
            np.int64(r), np.int64(c),
        )  # fmt: skip
        row, fy = split(y, bits)
        col, fx = split(x, bits)
        near = (UNIT << (bits - UNIT)) - edge
        below, right = fy >= near, fx >= near
        touches = row >= -UNIT and row < rows and col >= -UNIT and col < cols
        inner = row >= UNIT and row < rows - np.int64(2)
        inner = inner and col >= UNIT and col < cols - np.int64(2)
        v, u = share(fy, bits), share(fx, bits)
        y0, y1, y2, y3 = catmull_rom(v)
        x0, x1, x2, x3 = catmull_rom(u)
        base = ZERO
        for b in range(out.shape[0]):
            value = stored(fill)
            done = False
            if inner:
                at = base + (row - UNIT) * cols + col - UNIT
                h0, ok0 = line(src, at, x0, x1, x2, x3, nodata, has_nodata)
                h1, ok1 = line(src, at + cols, x0, x1, x2, x3, nodata, has_nodata)
                at += cols + cols
                h2, ok2 = line(src, at, x0, x1, x2, x3, nodata, has_nodata)
                h3, ok3 = line(src, at + cols, x0, x1, x2, x3, nodata, has_nodata)
                if ok0 and ok1 and ok2 and ok3:
                    total = (times(y0, h0) + times(y1, h1)) + (times(y2, h2) + times(y3, h3))
                    value = smooth(total, less, nodata, has_nodata, low, high)
                    done = True
            if touches and not done:
                total, weight, whole, found = blend(
                    src, base, rows, cols, row, col, v, u, below, right, nodata, has_nodata
                )
                if found:
                    value = mean(total, weight, whole, less, nodata, has_nodata, low, high)
            out[np.uint64(b), np.uint64(r), np.uint64(c)] = value
            base += rows * cols

    return SimpleNamespace(bilinear=bilinear, cubic=cubic)


@exact
def span(low, high, edge, bits):
    """Pixels that an interval touches: the first and the one after the last."""
    first = (low + edge) >> bits
    last = (high - edge + (UNIT << bits) - UNIT) >> bits
    return first, max(last, first + UNIT)


@exact
def inside(pixel, low, high, count, bits):
    """Part of a pixel in an interval; all of it where the interval lies in one pixel."""
    part = min((pixel + UNIT) << bits, high) - max(pixel << bits, low)
    whole = UNIT << bits
    return whole if count == UNIT else min(max(part, ZERO), whole)


def areas(arithmetic: SimpleNamespace) -> Any:
    """Make the averaging kernel in one of the arithmetics of `_cuda_values`."""
    nothing, stored = arithmetic.nothing, arithmetic.stored
    box, share, times, mean = arithmetic.box, arithmetic.share, arithmetic.times, arithmetic.mean

    def average(
        src, rows, cols, out, terms, cells_y, cells_x, phase_y, phase_x, step, guard, bits, edge,
        nodata, has_nodata, fill, less, low, high,
    ):  # fmt: skip
        """Take the mean over the box between the images of two opposite corners of the pixel."""
        c, r = cuda.grid(2)
        if r >= out.shape[1] or c >= out.shape[2]:
            return
        down, along = (cells_y, phase_y), (cells_x, phase_x)
        xa, ya = point(terms, down, along, step, guard, -UNIT, np.int64(r), np.int64(c))
        xb, yb = point(terms, down, along, step, guard, UNIT, np.int64(r), np.int64(c))
        left, right = min(xa, xb), max(xa, xb)
        top, bottom = min(ya, yb), max(ya, yb)
        known = (left >> bits) >= BEYOND and (top >> bits) >= BEYOND
        first_row, end_row = span(top, bottom, edge, bits)
        first_col, end_col = span(left, right, edge, bits)
        height, width = end_row - first_row, end_col - first_col
        r0, r1 = max(first_row, ZERO), min(end_row, rows)
        c0, c1 = max(first_col, ZERO), min(end_col, cols)
        # weights of 2^-30 times 2^-30, so many places shorter that the sum over all pixels fits
        spread = np.int64(16)
        while (r1 - r0) * (c1 - c0) > UNIT << (spread - np.int64(16)):
            spread += UNIT
        base = ZERO
        for b in range(out.shape[0]):
            value = stored(fill)
            total, weight, any_found = nothing(), nothing(), False
            if known:
                for i in range(r0, r1):
                    tall = inside(i, top, bottom, height, bits)
                    line_total, line_weight = nothing(), nothing()
                    for j in range(c0, c1):
                        wide = inside(j, left, right, width, bits)
                        pixel = src[np.uint64(base + i * cols + j)]
                        lacks = has_nodata != 0 and missing(pixel, nodata)
                        if not lacks and tall > ZERO and wide > ZERO:
                            w = box(share(tall, bits), share(wide, bits), spread)
                            line_total += times(w, pixel)
                            line_weight += w
                            any_found = True
                    total += line_total
                    weight += line_weight
            if any_found:
                value = mean(total, weight, NOT_WHOLE, less, nodata, has_nodata, low, high)
            out[np.uint64(b), np.uint64(r), np.uint64(c)] = value
            base += rows * cols

    return average
