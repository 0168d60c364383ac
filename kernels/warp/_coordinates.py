"""The arithmetic of coordinates in NumPy, operation by operation what the compiled kernels do."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from odc_stats_gpu.kernels.warp._lattice import Lattice

EDGE = 1e-8
"""Source pixels. A point this close before an edge counts as on it.

Grids of one CRS that are half a pixel apart put every centre on an edge, where rounding must not
decide. (GDAL takes 1e-10, which is less than its own rounding at large northings.)"""


def coordinates(
    lattice: Lattice, *, half: int = 0
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Source (x, y) of every destination pixel: float64 (rows, columns), pixels of the source.

    `half`: 0 the centres, -1 the upper left corners, 1 the lower right ones.
    """
    i, v = _cells(lattice.phase[0], lattice.shape[0], lattice.step, lattice.x.shape[0], half)
    j, u = _cells(lattice.phase[1], lattice.shape[1], lattice.step, lattice.x.shape[1], half)
    v = v[:, None]
    found = []
    with np.errstate(invalid="ignore"):
        for nodes in (lattice.x, lattice.y):
            column = nodes[i] + v * (nodes[i + 1] - nodes[i])
            left, right = column[:, j], column[:, j + 1]
            found.append(left + u * (right - left))
    return found[0], found[1]


def _cells(
    phase: int, size: int, step: int, count: int, half: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Cell and place in the cell (0..1) of every pixel along one axis, counted in half pixels."""
    position = 2 * (phase + np.arange(size)) + half
    cell = np.clip(position // (2 * step), 0, count - 2)
    share = (position - cell * (2 * step)) * (1.0 / (2 * step))
    return cell.astype(np.int64), share.astype(np.float64)
