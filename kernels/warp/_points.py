"""Where the pixels of a row fall in the source, compiled: one pass in SIMD, shared by all bands.

Part of the kernels in `cpu.py`, `_centres.py` and `_area.py`: it is compiled into them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from odc_stats_gpu.kernels._jit import inlined
from odc_stats_gpu.kernels.warp._coordinates import EDGE

FAR = 1e9
"""Coordinates beyond, and missing ones, are taken as this far outside of every source."""
OUTSIDE, AT_EDGE = np.int64(-1), np.int64(-2)
"""In place of an offset: all taps of a point are outside of the source, or some are."""


@inlined
def places(phase: Any, half_steps: Any, cells: Any, half: Any, shares: Any) -> None:
    """Place in the lattice cell (0..1) of every pixel of an axis; `half`: half pixels off."""
    inv = 1.0 / half_steps
    for k in range(shares.size):
        q = 2 * (phase + k) + half
        shares[k] = (q - min(max(q // half_steps, 0), cells - 1) * half_steps) * inv


@inlined
def line(nodes: Any, q: Any, first: Any, half_steps: Any, shares: Any, out: Any) -> None:
    """Interpolate coordinates along the row `q` half pixels below the first row of nodes.

    The first pixel lies `first` half pixels right of the first column of nodes.
    """
    rows, cols = nodes.shape
    i = min(max(q // half_steps, 0), rows - 2)
    v = (q - i * half_steps) * (1.0 / half_steps)
    n = out.size
    k = 0
    while k < n:
        j = min(max((first + 2 * k) // half_steps, 0), cols - 2)
        end = n
        if j < cols - 2:
            end = min(n, ((j + 1) * half_steps - first + 1) // 2)
        left = nodes[i, j] + v * (nodes[i + 1, j] - nodes[i, j])
        right = nodes[i, j + 1] + v * (nodes[i + 1, j + 1] - nodes[i, j + 1])
        slope = right - left
        for m in range(k, end):
            out[m] = left + shares[m] * slope
        k = end


@inlined
def hold(x: Any) -> Any:
    """The coordinate, or one outside of every source."""
    return x if abs(x) < FAR else -FAR


@inlined
def split(x: Any, origin: Any, pixel: Any, fraction: Any) -> None:
    """Pixel whose centre is at or before each point, and the way from that centre (0..1)."""
    for c in range(x.size):
        p = hold(x[c]) - 0.5
        whole = np.floor(p)
        fraction[c] = p - whole
        pixel[c] = np.int32(whole) - origin


@inlined
def offsets(col: Any, row: Any, shape: Any, around: Any, at: Any) -> None:
    """Offset of the first of the 2 x 2 pixels around each point; negative where taps are outside.

    `around` is how many more pixels on every side a kernel reads.
    """
    rows, cols = shape
    low, right, bottom = np.int32(around), np.int32(cols - 1 - around), np.int32(rows - 1 - around)
    width = np.int32(cols)
    height = np.int32(rows)
    for c in range(at.size):
        inside = (col[c] >= low) & (col[c] < right) & (row[c] >= low) & (row[c] < bottom)
        near = (col[c] >= -1) & (col[c] < width) & (row[c] >= -1) & (row[c] < height)
        offset = np.int64(row[c]) * cols + np.int64(col[c])
        at[c] = offset if inside else (AT_EDGE if near else OUTSIDE)


@inlined
def containing(col: Any, row: Any, fx: Any, fy: Any, shape: Any, at: Any) -> None:
    """Offset of the pixel that contains each point, or `OUTSIDE`."""
    rows, cols = shape
    for c in range(at.size):
        i = np.int64(row[c]) + (1 if fy[c] >= 0.5 - EDGE else 0)
        j = np.int64(col[c]) + (1 if fx[c] >= 0.5 - EDGE else 0)
        inside = (i >= 0) & (i < rows) & (j >= 0) & (j < cols)
        at[c] = i * cols + j if inside else OUTSIDE
