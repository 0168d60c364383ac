"""Morphology in plain NumPy: every pixel of the disk, one shift at a time."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from odc_stats_gpu.kernels.morphology._stages import Stage, as_planes, margin, stages

Bools = npt.NDArray[np.bool_]


def clean_mask(mask: Bools, ops: Iterable[tuple[str, float]]) -> Bools:
    """Apply operations to a mask; see `odc_stats_gpu.kernels.clean_mask`."""
    ops = list(ops)
    pad = margin(ops)
    planes = []
    for plane in as_planes(mask):
        work = np.pad(plane, pad)
        for stage in stages(ops):
            # eroding the set is dilating what is not set, the outside included
            work = _dilate(work, stage) if stage.dilates else ~_dilate(~work, stage, outside=True)
        planes.append(work[pad : pad + plane.shape[0], pad : pad + plane.shape[1]])
    return np.array(planes, dtype=bool).reshape(mask.shape)


def mask_margin(ops: Iterable[tuple[str, float]]) -> int:
    """Pixels that a window needs on every side; see `odc_stats_gpu.kernels.mask_margin`."""
    return margin(ops)


def _dilate(mask: Bools, stage: Stage, *, outside: bool = False) -> Bools:
    """Set every pixel that has a set one in the disk around it."""
    rows, cols = mask.shape
    r = stage.reach
    wide = np.pad(mask, r, constant_values=outside)
    out = np.zeros_like(mask)
    for dx in range(-r, r + 1):
        height = int(stage.heights[abs(dx)])
        for dy in range(-height, height + 1):
            out |= wide[r + dy : r + dy + rows, r + dx : r + dx + cols]
    return out
