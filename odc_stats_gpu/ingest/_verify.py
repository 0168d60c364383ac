"""A file held against the document that describes it."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import pyproj
from affine import Affine

from odc_stats_gpu.errors import DataError
from odc_stats_gpu.ingest._window import apply
from odc_stats_gpu.model import Grid

_PIXEL_TOLERANCE = 0.01


def verify(
    uri: str,
    shape: tuple[int, int],
    transform: Affine | None,
    file_crs: str | None,
    grid: Grid,
    crs: str,
) -> None:
    """Raise DataError where the file isn't what its document says."""
    remedy = "correct the dataset document or restore the file"
    if shape != grid.shape:
        raise DataError(
            f"{uri} has {shape[0]} rows x {shape[1]} columns, its document says"
            f" {grid.shape[0]} x {grid.shape[1]}",
            remedy,
        )
    if transform is not None:
        rows, cols = grid.shape
        xs, ys = np.array([0, cols, 0, cols]), np.array([0, 0, rows, rows])
        x, y = apply(~grid.transform, *apply(transform, xs, ys))
        off = float(max(np.abs(x - xs).max(), np.abs(y - ys).max()))
        if not off <= _PIXEL_TOLERANCE:
            raise DataError(
                f"{uri} lies {off:.2f} pixels off the grid in its document: transform"
                f" {tuple(transform)[:6]}, document {tuple(grid.transform)[:6]}",
                remedy,
            )
    if file_crs is not None and not _same_crs(file_crs, crs, grid):
        raise DataError(f"{uri} is in {_short(file_crs)}, its document says {crs}", remedy)


def _same_crs(a: str, b: str, grid: Grid) -> bool:
    """Whether two CRS put the grid's corners at the same place, whatever they are called."""
    if a.upper() == b.upper():
        return True
    rows, cols = grid.shape
    corners = tuple(
        apply(grid.transform, c, r) for c, r in ((0, 0), (cols, 0), (0, rows), (cols, rows))
    )
    pixel = math.sqrt(abs(grid.transform.determinant))
    return _displacement(a, b, corners) <= 0.1 * pixel


@lru_cache(maxsize=1024)
def _displacement(a: str, b: str, corners: tuple[tuple[float, float], ...]) -> float:
    """CRS units between the same numbers in both CRS; inf if they have nothing in common."""
    try:
        first, second = pyproj.CRS.from_user_input(a), pyproj.CRS.from_user_input(b)
        if first.equals(second, ignore_axis_order=True):
            return 0.0
        xs, ys = (np.array(v) for v in zip(*corners, strict=True))
        to = pyproj.Transformer.from_crs(first, second, always_xy=True)
        x, y = to.transform(xs, ys)
    except pyproj.exceptions.ProjError:
        return math.inf
    moved = float(np.hypot(x - xs, y - ys).max())
    return moved if math.isfinite(moved) else math.inf


def _short(crs: str) -> str:
    return crs if len(crs) < 40 else pyproj.CRS.from_user_input(crs).name
