"""Morphology compiled for the CPU, SIMD over x.

Distances along the columns first, then the disk's outline along the rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from odc_stats_gpu.kernels._jit import inlined, kernel
from odc_stats_gpu.kernels.morphology._stages import as_planes, padding, stages

Bools = npt.NDArray[np.bool_]


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
            # distances saturate one past the reach: a byte holds them for all but giant disks
            kind = np.uint8 if stage.reach < 255 else np.uint16
            work = _apply(work, stage.heights.astype(kind), np.uint8(not stage.dilates))
        result[...] = work[pad : pad + rows, pad : pad + cols]
    return out.view(np.bool_).reshape(mask.shape)


@kernel
def _apply(mask: Any, heights: Any, erodes: Any) -> Any:
    """Dilate the mask, or erode it by dilating what is not set, the outside included."""
    rows, cols = mask.shape
    reach = heights.size - 1
    far = heights.dtype.type(reach + 1)
    edge = heights.dtype.type(0) if erodes else far
    out = np.empty((rows, cols), np.uint8)
    # up to the nearest pixel that spreads in the same column; the sides are padded with the outside
    distance = np.empty((rows, cols + 2 * reach), heights.dtype)
    distance[:, :reach] = edge
    distance[:, reach + cols :] = edge
    line = np.empty(cols, heights.dtype)
    line[:] = edge
    for r in range(rows):
        _down(mask[r], erodes, far, line, distance[r, reach : reach + cols])
    line[:] = edge
    for r in range(rows - 1, -1, -1):
        _up(far, line, distance[r, reach : reach + cols])
        _outline(distance[r], heights, erodes, out[r])
    return out


@inlined
def _down(mask: Any, erodes: Any, far: Any, line: Any, distance: Any) -> None:
    """Distances upwards of a row, from those of the row above in `line`."""
    for c in range(line.size):
        step = line[c] + (line[c] < far)
        line[c] = step * (mask[c] == erodes)
        distance[c] = line[c]


@inlined
def _up(far: Any, line: Any, distance: Any) -> None:
    """Distances both ways of a row, from those of the row below in `line`."""
    for c in range(line.size):
        step = line[c] + (line[c] < far)
        line[c] = min(distance[c], step)
        distance[c] = line[c]


@inlined
def _outline(distance: Any, heights: Any, erodes: Any, out: Any) -> None:
    """Set each pixel that has, some columns off, a spreading one within the disk's height there."""
    reach = heights.size - 1
    n = out.size
    middle = distance[reach : reach + n]
    for c in range(n):
        out[c] = middle[c] <= heights[0]
    for d in range(1, reach + 1):
        height = heights[d]
        left, right = distance[reach - d : reach - d + n], distance[reach + d : reach + d + n]
        for c in range(n):
            out[c] |= (left[c] <= height) | (right[c] <= height)
    for c in range(n):
        out[c] ^= erodes
