"""Where destination pixels fall in the source: exact on a coarse lattice, interpolated between."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

Transform = Callable[[npt.NDArray[np.float64], npt.NDArray[np.float64]], tuple[Any, Any]]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Lattice:
    """Source coordinates of every `step`-th destination pixel centre; bilinear in between.

    All coordinates are corner-based: pixel (0, 0) covers 0..1 in x and in y, its centre is (0.5,
    0.5). Node (i, j) belongs to the centre of destination pixel (i*step - phase[0], j*step -
    phase[1]). So without a phase node (0, 0) sits at the centre of destination pixel (0, 0), and
    the last node lies on or beyond the centre of the last pixel: `refine` puts it at least half a
    pixel beyond. Positions past the last node or before the first (only pixel corners can be)
    extrapolate the nearest cell.

    The coordinate of a pixel depends on the nodes of its cell and its place in the cell only.
    `window` keeps both, so warping the blocks of a tile gives the same bits as warping the tile at
    once.
    """

    x: npt.NDArray[np.float64]
    """(node rows, node columns) source column coordinates; not finite where there is no source."""
    y: npt.NDArray[np.float64]
    """(node rows, node columns) source row coordinates."""
    step: int
    """Destination pixels from node to node, the same along both axes."""
    shape: tuple[int, int]
    """Rows and columns of the destination."""
    phase: tuple[int, int] = (0, 0)
    """Rows and columns by which destination pixel (0, 0) lies past node (0, 0)."""
    origin: tuple[int, int] = (0, 0)
    """Source row and column at which the array to be warped begins, when it is a window."""

    def __post_init__(self) -> None:
        """Check that the nodes cover the destination.

        Raises:
            ValueError: shapes that don't fit together, or too few nodes.
        """
        object.__setattr__(self, "x", np.ascontiguousarray(self.x, dtype=np.float64))
        object.__setattr__(self, "y", np.ascontiguousarray(self.y, dtype=np.float64))
        if self.x.ndim != 2 or self.x.shape != self.y.shape or min(self.x.shape) < 2:
            raise ValueError(
                "a lattice needs x and y of one 2-d shape with 2 nodes or more a side, "
                f"got {self.x.shape} and {self.y.shape}"
            )
        if self.step < 1 or min(self.shape) < 0 or min(self.phase) < 0:
            raise ValueError(
                "step >= 1, shape >= 0 and phase >= 0 needed, "
                f"got step {self.step}, shape {self.shape}, phase {self.phase}"
            )
        for axis, size in enumerate(self.shape):
            reach = (self.x.shape[axis] - 1) * self.step - self.phase[axis]
            if size - 1 > reach:
                raise ValueError(
                    f"{self.x.shape} nodes, step {self.step}, end at pixel {reach} of axis {axis}, "
                    f"the destination has {size}"
                )

    def window(
        self, y0: int, y1: int, x0: int, x1: int, src_row0: int = 0, src_col0: int = 0
    ) -> Lattice:
        """Cut out destination rows y0..y1 and columns x0..x1 (ends excluded).

        `src_row0`, `src_col0` say which pixel of this lattice's source is the first of the array
        that will be warped. Nodes are shared, not copied and not moved, so that coordinates keep
        every bit.

        Raises:
            ValueError: the window leaves the destination.
        """
        rows, cols = self.shape
        if not (0 <= y0 <= y1 <= rows and 0 <= x0 <= x1 <= cols):
            raise ValueError(
                f"window rows {y0}..{y1}, columns {x0}..{x1} "
                f"leaves the destination of {rows} x {cols}"
            )
        (i0, i1, py), (j0, j1, px) = self._nodes(0, y0, y1), self._nodes(1, x0, x1)
        return replace(
            self,
            x=self.x[i0:i1, j0:j1],
            y=self.y[i0:i1, j0:j1],
            shape=(y1 - y0, x1 - x0),
            phase=(py, px),
            origin=(self.origin[0] + src_row0, self.origin[1] + src_col0),
        )

    def _nodes(self, axis: int, start: int, stop: int) -> tuple[int, int, int]:
        """Nodes (end excluded) that pixels start..stop and their corners need; phase."""
        count = self.x.shape[axis]
        first, last = start + self.phase[axis], max(stop, start + 1) - 1 + self.phase[axis]
        low = min(max((first - 1) // self.step, 0), count - 2)
        high = min(max(last // self.step, 0), count - 2) + 2
        return low, high, first - low * self.step

    def source_bounds(self) -> tuple[float, float, float, float]:
        """Extent of the pixels in the source: (row min, row max, column min, column max).

        Relative to the first pixel of the array to be warped. Taken over the nodes of all cells in
        use, hence a little wide; kernels read up to 2 pixels more on each side. NaN when no node is
        finite.
        """
        (i0, i1, _), (j0, j1, _) = (
            self._nodes(0, 0, self.shape[0]),
            self._nodes(1, 0, self.shape[1]),
        )
        x, y = self.x[i0:i1, j0:j1], self.y[i0:i1, j0:j1]
        known = np.isfinite(x) & np.isfinite(y)
        if not known.any():
            return (math.nan, math.nan, math.nan, math.nan)
        x, y = x[known] - self.origin[1], y[known] - self.origin[0]
        return (float(y.min()), float(y.max()), float(x.min()), float(x.max()))


def refine(
    transform: Transform, shape: tuple[int, int], step: int = 32, tolerance: float = 5e-5
) -> Lattice:
    """Build a lattice that is nowhere off by more than `tolerance` source pixels.

    Args:
        transform: takes float64 arrays (x, y) of corner-based destination pixel coordinates (the
            centre of pixel (0, 0) is (0.5, 0.5)), also up to `step` pixels beyond the destination,
            and returns corner-based source pixel coordinates (x, y), not finite where there are
            none.
        shape: rows and columns of the destination: the whole tile, so that blocks share the
            decision.
        step: pixels between nodes to begin with.
        tolerance: source pixels.

    The error is measured half-way between nodes, along the cell's edges as well as in its middle:
    the coordinates of conformal maps are harmonic, their errors cancel in the middle. While it is
    too large the step is halved; step 1 is exact.

    Raises:
        ValueError: step < 1 or a shape without pixels.
    """
    if step < 1 or min(shape) < 1:
        raise ValueError(f"step >= 1 and a shape of 1 x 1 or more needed, got {step} and {shape}")
    while True:
        parts = 2 if step > 1 else 1  # half-way points are only there to be compared with
        axes = (
            0.5 + np.arange(parts * ((size - 1) // step + 1) + 1) * (step / parts)
            for size in reversed(shape)
        )
        grid_x, grid_y = np.meshgrid(*axes)
        x, y = (
            np.asarray(v, dtype=np.float64).reshape(grid_x.shape) for v in transform(grid_x, grid_y)
        )
        if step == 1 or max(_midpoint_error(x), _midpoint_error(y)) <= tolerance:
            return Lattice(
                x=x[::parts, ::parts],
                y=y[::parts, ::parts],
                step=step,
                shape=(int(shape[0]), int(shape[1])),
            )
        step //= 2


def _midpoint_error(exact: npt.NDArray[np.float64]) -> float:
    """Largest difference of bilinear interpolation from every second node to the nodes between.

    Infinite where only part of a cell is known.
    """
    known = np.isfinite(exact)
    rows, cols = ((size - 1) // 2 for size in exact.shape)
    points = [known[i : i + 2 * rows : 2, j : j + 2 * cols : 2] for i in range(3) for j in range(3)]
    if (np.any(points, axis=0) & ~np.all(points, axis=0)).any():
        return math.inf
    linear = np.where(known, exact, 0.0)
    linear[1::2, ::2] = (linear[:-1:2, ::2] + linear[2::2, ::2]) / 2
    linear[:, 1::2] = (linear[:, :-1:2] + linear[:, 2::2]) / 2
    return float(np.abs(linear - exact)[known].max(initial=0.0))
