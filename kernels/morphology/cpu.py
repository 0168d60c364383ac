"""Morphology compiled for the CPU: distances down the columns, then the disk's outline along the rows, both SIMD over x."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from numba import njit

from odc_stats_gpu.kernels.morphology._stages import as_planes, padding, stages

Bools = npt.NDArray[np.bool_]
_jit = njit(nogil=True, cache=True, error_model="numpy")


def clean_mask(mask: Bools, ops: Iterable[tuple[str, float]]) -> Bools:
    """Apply operations to a mask; see `odc_stats_gpu.kernels.clean_mask`."""
    planes = as_planes(mask)
    chain = stages(ops)
    if not chain or not planes.size:
        return mask.copy()
    pad = padding(chain)
    rows, cols = planes.shape[1:]
    out = np.empty(planes.shape, np.uint8)
    for plane, result in zip(planes.view(np.uint8), out, strict=True):
        work = np.pad(plane, pad) if pad else np.ascontiguousarray(plane)
        for stage in chain:
            # distances saturate one past the reach; a byte a pixel holds them for all but giant disks
            kind = np.uint8 if stage.reach < 255 else np.uint16
            work = _apply(work, stage.heights.astype(kind), kind(0 if stage.dilates else 1))
        result[...] = work[pad : pad + rows, pad : pad + cols]
    return out.view(np.bool_).reshape(mask.shape)


@_jit
def _apply(mask, heights, erodes):
    """Dilate the mask, or erode it, by dilating what is not set, the outside included."""
    rows, cols = mask.shape
    reach = heights.size - 1
    far = heights.dtype.type(reach + 1)
    one = heights.dtype.type(1)
    zero = heights.dtype.type(0)
    # nearest pixel that spreads, up or down the same column; the sides are padded with the outside
    distance = np.empty((rows, cols + 2 * reach), heights.dtype)
    edge = zero if erodes else far
    line = np.empty(cols, heights.dtype)
    line[:] = edge
    for r in range(rows):
        distance[r, :reach] = edge
        distance[r, reach + cols :] = edge
        inner = distance[r, reach : reach + cols]
        for c in range(cols):
            step = min(line[c], heights.dtype.type(reach)) + one
            line[c] = zero if mask[r, c] != erodes else step
            inner[c] = line[c]
    line[:] = edge
    for r in range(rows - 1, -1, -1):
        inner = distance[r, reach : reach + cols]
        for c in range(cols):
            step = min(line[c], heights.dtype.type(reach)) + one
            line[c] = min(inner[c], step)
            inner[c] = line[c]
    out = np.empty((rows, cols), np.uint8)
    for r in range(rows):
        _outline(distance[r], heights, np.uint8(erodes), out[r])
    return out


@_jit
def _outline(distance, heights, erodes, out):
    """Set each pixel that has, some columns off, a spreading one within the disk's height there."""
    reach = heights.size - 1
    n = out.size
    for c in range(n):
        out[c] = distance[c + reach] <= heights[0]
    for d in range(1, reach + 1):
        h = heights[d]
        for c in range(n):
            out[c] |= (distance[c + reach - d] <= h) | (distance[c + reach + d] <= h)
    if erodes:
        for c in range(n):
            out[c] ^= 1
