"""Pixel lattices of scenes and the tile's exact coordinates in them.

A *frame* is one CRS with one pixel lattice: all scenes whose grids differ by whole pixels share
it, and with it the coordinates of every destination pixel.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import pyproj
import pyproj.network
import pyproj.transformer
from affine import Affine
from odc.geo.geobox import GeoBox

from odc_stats_gpu import kernels
from odc_stats_gpu.errors import ConfigError, DataError
from odc_stats_gpu.ingest._window import Window, apply
from odc_stats_gpu.model import Block, Dataset, Grid, InputSpec

pyproj.network.set_network_enabled(active=False)  # a result must not depend on the machine

_ALIGNED = 1e-6
"""Pixels by which grids of one lattice may miss each other: decimals of their documents."""
TAPS = 3
"""Source pixels that any of the kernels reads around the points themselves."""
GDAL_TAPS = 5
"""Same for GDAL's: lanczos has a radius of 3."""
_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class Frame:
    """One CRS and pixel lattice, and where the tile's pixels fall in it."""

    crs: str
    """AUTHORITY:CODE where it has one, so that spellings don't matter."""
    operation: tuple[Any, ...]
    """What was asked of PROJ: code and area of interest, or None."""
    transform: Affine
    """Pixel (0, 0) of the frame is pixel (0, 0) of the first scene that has the lattice."""
    lattice: kernels.Lattice = field(repr=False)

    def need(self, block: Block, taps: int = TAPS) -> Window | None:
        """Frame pixels that the warp of a block reads; None where the frame's CRS doesn't reach."""
        cut = self.lattice.window(block.y0, block.y1, block.x0, block.x1)
        bounds = cut.source_bounds()
        if not np.isfinite(bounds).all() or np.abs(bounds).max() > 1e9:
            return None
        r0, r1, c0, c1 = bounds
        return Window(
            int(np.floor(r0)) - taps, int(np.ceil(r1)) + taps,
            int(np.floor(c0)) - taps, int(np.ceil(c1)) + taps,
        )  # fmt: skip


class Frames:
    """The frames of a tile, made as scenes ask for them."""

    def __init__(self, geobox: GeoBox) -> None:
        self._geobox = geobox
        self._frames: list[Frame] = []

    @property
    def made(self) -> tuple[Frame, ...]:
        """All frames so far; `place` gives indexes into it."""
        return tuple(self._frames)

    def place(self, dataset: Dataset, grid: Grid, spec: InputSpec) -> tuple[int, int, int]:
        """Frame of a scene's grid, and the frame's row and column of its pixel (0, 0).

        Raises:
            DataError: a CRS that PROJ doesn't know.
            ConfigError: no PROJ operation of the code asked for.
        """
        operation = (spec.transform_code, spec.area_of_interest)
        try:
            crs = _canonical(dataset.crs)
        except pyproj.exceptions.ProjError as exc:
            raise _unusable(dataset, exc) from None
        for index, frame in enumerate(self._frames):
            if (frame.crs, frame.operation) == (crs, operation):
                at = _offset(frame.transform, grid.transform)
                if at is not None:
                    return (index, *at)
        if abs(grid.transform.determinant) < 1e-30:
            raise DataError(
                f"dataset {dataset.id} ({dataset.uri}) has a grid without area:"
                f" transform {tuple(grid.transform)[:6]}",
                "correct the dataset document",
            )
        self._frames.append(self._make(dataset, crs, grid.transform, operation))
        return (len(self._frames) - 1, 0, 0)

    def _make(
        self, dataset: Dataset, crs: str, transform: Affine, operation: tuple[Any, ...]
    ) -> Frame:
        try:
            with _lock:
                move = _transformer(str(self._geobox.crs), crs, *operation)
        except pyproj.exceptions.ProjError as exc:
            raise _unusable(dataset, exc) from None
        to_crs, to_pixel = self._geobox.affine, ~transform

        def source(x: Any, y: Any) -> tuple[Any, Any]:
            east, north = apply(to_crs, x, y)
            if move is not None:
                east, north = move.transform(east, north)
            with np.errstate(invalid="ignore"):
                return apply(to_pixel, np.asarray(east), np.asarray(north))

        rows, cols = self._geobox.shape
        return Frame(crs, operation, transform, kernels.refine(source, (int(rows), int(cols))))


def _offset(frame: Affine, grid: Affine) -> tuple[int, int] | None:
    """Row and column of a grid's first pixel in the frame; None if it is another lattice."""
    linear = np.array(tuple(frame)[:6]).reshape(2, 3)[:, :2]
    other = np.array(tuple(grid)[:6]).reshape(2, 3)[:, :2]
    # Over a whole scene of some 10^4 pixels the sizes may differ by no more than the origins.
    if np.abs(linear - other).max() > _ALIGNED * 1e-4 * np.abs(linear).max():
        return None
    col, row = apply(~frame, grid.c, grid.f)
    if max(abs(col - round(col)), abs(row - round(row))) > _ALIGNED:
        return None
    return round(row), round(col)


@lru_cache(maxsize=256)
def _canonical(crs: str) -> str:
    """One name for all spellings of a CRS; raises ProjError for what is none."""
    found = pyproj.CRS.from_user_input(crs.strip())
    known = found.to_authority(min_confidence=100)
    return ":".join(known) if known else found.to_wkt()


def _unusable(dataset: Dataset, exc: Exception) -> DataError:
    reason = str(exc).splitlines()[0]
    return DataError(
        f"dataset {dataset.id} ({dataset.uri}): can't use its CRS {dataset.crs!r}: {reason}",
        "correct the dataset document",
    )


@lru_cache(maxsize=256)
def _transformer(
    tile: str, scene: str, code: str | None, area: tuple[float, float, float, float] | None
) -> pyproj.Transformer | None:
    """From the tile's CRS to the scene's; None when they are the same."""
    tile_crs, scene_crs = pyproj.CRS.from_user_input(tile), pyproj.CRS.from_user_input(scene)
    if tile_crs.equals(scene_crs, ignore_axis_order=True):
        return None
    if code is None and area is None:
        return pyproj.Transformer.from_crs(tile_crs, scene_crs, always_xy=True)
    group = pyproj.transformer.TransformerGroup(
        tile_crs,
        scene_crs,
        always_xy=True,
        area_of_interest=pyproj.transformer.AreaOfInterest(*area) if area else None,
    )
    for candidate in group.transformers:
        if code is None or code.upper() in _codes(candidate):
            return candidate
    known = sorted({c for t in group.transformers for c in _codes(t)})
    raise ConfigError(
        f"no PROJ operation {code} from {tile_crs.name} to {scene_crs.name}",
        f"known: {', '.join(known) or 'none'}",
    )


def _codes(transformer: pyproj.Transformer) -> set[str]:
    """AUTHORITY:CODE of an operation and its steps."""
    found = set()
    for step in (transformer, *(transformer.operations or ())):
        entry = step.to_json_dict().get("id")
        if entry:
            authority = str(entry["authority"]).removeprefix("INVERSE(").removesuffix(")")
            found.add(f"{authority}:{entry['code']}".upper())
    return found
