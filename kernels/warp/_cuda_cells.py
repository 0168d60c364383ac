"""The lattice as integers for the GPU: coordinates to 2^-40 pixels without a double in the kernel.

Which source pixel contains a point must not depend on rounding: grids of one CRS that are half a
pixel apart put every centre on an edge. A float32 can't tell (it resolves 1e-3 pixels at 10000),
float64 is 32 to 64 times slower on most GPUs. So coordinates are fixed-point int64: bilinear
interpolation in a cell is `n + a*v + b*u + c*v*u` with `v`, `u` in half pixels, four integers per
cell and axis that are made here, once for all bands.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from odc_stats_gpu.kernels.warp._coordinates import EDGE, coordinates
from odc_stats_gpu.kernels.warp._lattice import Lattice

MOST_BITS = 40
"""Binary places of a coordinate: 1e-12 pixels, as float64 has at 10000."""
LEAST_BITS = 30
"""What weights need."""
REACH = 20
"""Binary logarithm of the pixels from the window beyond which all points are alike."""
LOST = -(1 << 22)
"""Pixel of the points of a cell that has a node without coordinates."""
COARSE = 256
"""Longest step for which all of this fits into 64 bits."""
TERMS = 8
"""Integers per cell: n, a, b, c of x, then of y."""

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Cells:
    """What a kernel needs to know about coordinates."""

    terms: Integers
    """(rows of cells, columns of cells, 8)."""
    bits: int
    """Binary places of n, 30 to 40."""
    guard: int
    """Binary places more of a and b; twice as many of c."""

    @property
    def edge(self) -> int:
        """`EDGE` in units of the last place."""
        return round(EDGE * 2**self.bits)


def cells(lattice: Lattice) -> Cells:
    """Take the lattice apart into cells, coordinates counted from the window's origin."""
    if lattice.step > COARSE:
        lattice = _finer(lattice)
    half_steps = 2 * lattice.step
    guard = (half_steps - 1).bit_length()
    known = np.isfinite(lattice.x) & np.isfinite(lattice.y)
    known = known[1:, 1:] & known[1:, :-1] & known[:-1, 1:] & known[:-1, :-1]
    limit = float(1 << min(REACH, LEAST_BITS - 1 - guard))
    axes = [
        _whole_and_rest(nodes, float(origin), limit)
        for nodes, origin in ((lattice.x, lattice.origin[1]), (lattice.y, lattice.origin[0]))
    ]
    step = max(_largest_step(whole, known) for whole, _ in axes)
    bits = min(MOST_BITS, 60 - guard - step.bit_length())
    terms = np.empty((*known.shape, TERMS), np.int64)
    for axis, (whole, rest) in enumerate(axes):
        nodes = (whole.astype(np.int64) << bits) + np.rint(rest * 2.0**bits).astype(np.int64)
        terms[..., 4 * axis : 4 * axis + 4] = np.where(
            known[..., None],
            _terms(nodes, half_steps, guard),
            np.array([LOST << bits, 0, 0, 0]),
        )
    return Cells(terms=terms, bits=bits, guard=guard)


def _finer(lattice: Lattice) -> Lattice:
    """The same coordinates from more nodes, the step a divisor of the old one."""
    step = max(d for d in range(1, COARSE + 1) if lattice.step % d == 0)
    parts = lattice.step // step
    rows, cols = ((count - 1) * parts + 1 for count in lattice.x.shape)
    x, y = coordinates(replace(lattice, step=parts, shape=(rows, cols), phase=(0, 0)))
    return replace(lattice, x=x, y=y, step=step)


def _whole_and_rest(
    nodes: npt.NDArray[np.float64], origin: float, limit: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Pixel and place in it; apart, so that a window's coordinates have the bits of the tile's."""
    nodes = np.where(np.isfinite(nodes), nodes, 0.0)
    floor = np.floor(nodes)
    whole = floor - origin
    near = np.abs(whole) < limit
    return np.clip(whole, -limit, limit), np.where(near, nodes - floor, 0.0)


def _largest_step(whole: npt.NDArray[np.float64], known: npt.NDArray[np.bool_]) -> int:
    """Most pixels, and some more, between nodes of a cell."""
    corners = np.stack([whole[1:, 1:], whole[1:, :-1], whole[:-1, 1:], whole[:-1, :-1]])
    return 2 + int((np.ptp(corners, axis=0) * known).max(initial=0.0))


def _terms(nodes: Integers, half_steps: int, guard: int) -> Integers:
    """Value and slopes per half pixel of every cell: exact where the step is a power of two."""

    def per_half_pixel(difference: Integers) -> Integers:
        return ((difference << guard) + half_steps // 2) // half_steps

    here, right = nodes[:-1, :-1], nodes[:-1, 1:]
    below, across = nodes[1:, :-1], nodes[1:, 1:]
    return np.stack(
        [
            here,
            per_half_pixel(below - here),
            per_half_pixel(right - here),
            per_half_pixel(per_half_pixel(across - below - right + here)),
        ],
        axis=-1,
    )
