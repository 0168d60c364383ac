"""Pixel grids of the scenes and of the tiles, and where they lie in the landscape."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from affine import Affine
from pyproj import Transformer

from odc_stats_gpu.demo._fields import Array

ALBERS = "epsg:3577"
_NODE = 16  # pixels between exactly transformed points: the rest is off by millimetres


@dataclass(frozen=True, slots=True)
class Raster:
    """North-up pixels in a CRS."""

    crs: str
    res: int
    left: int
    """Western edge, metres."""
    top: int
    """Northern edge, metres."""
    shape: tuple[int, int]

    @property
    def transform(self) -> Affine:
        """Pixel to CRS."""
        return Affine(self.res, 0, self.left, 0, -self.res, self.top)

    @property
    def bounds(self) -> tuple[int, int, int, int]:
        """West, south, east, north."""
        rows, cols = self.shape
        return (self.left, self.top - rows * self.res, self.left + cols * self.res, self.top)

    def part(self, bounds: tuple[float, float, float, float], snap: int) -> tuple[slice, slice]:
        """Rows and columns that hold `bounds`, widened to `snap` pixels, cut at the raster."""
        west, south, east, north = bounds
        r0 = max(0, math.floor((self.top - north) / self.res / snap) * snap)
        r1 = min(self.shape[0], math.ceil((self.top - south) / self.res / snap) * snap)
        c0 = max(0, math.floor((west - self.left) / self.res / snap) * snap)
        c1 = min(self.shape[1], math.ceil((east - self.left) / self.res / snap) * snap)
        return slice(r0, r1), slice(c0, c1)

    def window(self, rows: slice, cols: slice) -> Raster:
        """A part as a raster of its own."""
        return Raster(
            self.crs,
            self.res,
            self.left + cols.start * self.res,
            self.top - rows.start * self.res,
            (rows.stop - rows.start, cols.stop - cols.start),
        )

    def centres(self) -> tuple[Array, Array]:
        """Pixel centres in this CRS: x (1, n), y (m, 1), float64."""
        x = self.left + (np.arange(self.shape[1]) + 0.5) * self.res
        y = self.top - (np.arange(self.shape[0]) + 0.5) * self.res
        return x[None, :], y[:, None]

    def in_albers(self) -> tuple[Array, Array]:
        """Pixel centres in the landscape's CRS, x and y float64 (m, n)."""
        x, y = self.centres()
        if self.crs == ALBERS:
            return np.broadcast_to(x, self.shape), np.broadcast_to(y, self.shape)
        rows, cols = (np.append(np.arange(0, n, _NODE), n - 1) for n in self.shape)
        transform = Transformer.from_crs(self.crs, ALBERS, always_xy=True)
        u, v = np.broadcast_arrays(x[:, cols], y[rows])
        nodes = transform.transform(u, v)
        east, north = (_spread(np.asarray(n), rows, cols, self.shape) for n in nodes)
        return east, north


def _spread(node: Array, rows: Array, cols: Array, shape: tuple[int, int]) -> Array:
    """Bilinear interpolation between nodes."""
    wide = np.stack([np.interp(np.arange(shape[1]), cols, line) for line in node])
    at = np.arange(shape[0])
    k = np.clip(np.searchsorted(rows, at, side="right") - 1, 0, len(rows) - 2)
    span = np.maximum(rows[k + 1] - rows[k], 1)
    share = ((at - rows[k]) / span)[:, None]
    return wide[k] * (1 - share) + wide[k + 1] * share


def region(bounds: tuple[float, float, float, float], crs: str, res: int, margin: int) -> Raster:
    """Raster in `crs` that covers an Albers rectangle and `margin` pixels around it."""
    west, south, east, north = bounds
    along = np.linspace(0, 1, 9)
    x = np.concatenate([west + along * (east - west)] * 2 + [np.full(9, west), np.full(9, east)])
    y = np.concatenate(
        [np.full(9, south), np.full(9, north)] + [south + along * (north - south)] * 2
    )
    u, v = Transformer.from_crs(ALBERS, crs, always_xy=True).transform(x, y)
    step = 2 * res
    left = math.floor(min(u) / step) * step - margin * res
    top = math.ceil(max(v) / step) * step + margin * res
    cols = math.ceil((max(u) - left) / step) * 2 + margin
    rows = math.ceil((top - min(v)) / step) * 2 + margin
    return Raster(crs, res, left, top, (rows, cols))
