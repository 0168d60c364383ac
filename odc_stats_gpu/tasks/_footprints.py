"""Which tiles a scene touches."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import TypeVar

import numpy as np
import shapely
from pyproj import CRS
from pyproj.exceptions import CRSError, ProjError
from shapely.geometry import shape

from odc_stats_gpu.errors import DataError
from odc_stats_gpu.model import Dataset
from odc_stats_gpu.model import Grid as PixelGrid
from odc_stats_gpu.tasks._grids import NamedGrid
from odc_stats_gpu.tasks._solar import transformer

_T = TypeVar("_T")
_LONLAT = "EPSG:4326"
_SEGMENTS = 24  # per long side: straight edges in UTM bend by less than a pixel between them
_TOLERANCE = 1e-8  # grid units: a box that ends on a tile's edge doesn't reach the next tile
_RIM_WIDTH = 1e-9  # degrees
_RIM = 180 - _RIM_WIDTH


def footprint(dataset: Dataset) -> shapely.Geometry:
    """Valid-data polygon in the scene's CRS: the document's, else the union of its grids."""
    try:
        if dataset.geometry:
            geom = shape(dataset.geometry)
        else:
            geom = shapely.union_all([_extent(g) for g in set(dataset.grids.values())])
    except (
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        IndexError,
        shapely.errors.ShapelyError,
    ) as exc:
        raise DataError(
            f"dataset {dataset.uri}: can't read its geometry: {exc}", "correct the document"
        ) from None
    if geom.is_empty:
        raise DataError(
            f"dataset {dataset.uri} has an empty footprint", "correct its geometry or grids"
        )
    return geom if geom.is_valid else shapely.make_valid(geom)


def lonlat_bounds(geom: shapely.Geometry, dataset: Dataset) -> tuple[float, float, float, float]:
    """West, south, east, north of a footprint's corners; east > 180 beyond the antimeridian."""
    lonlat = _named(dataset, lambda: _transform(geom, dataset.crs, _LONLAT))
    if _crosses_antimeridian(lonlat):
        lonlat = shapely.transform(lonlat, _eastwards)
    west, south, east, north = (float(v) for v in lonlat.bounds)
    return west, south, east, north


def lonlat_outline(geom: shapely.Geometry, crs: str) -> shapely.Geometry:
    """A polygon in longitude and latitude, four points per side, cut at the antimeridian."""
    lonlat = _transform(_dense(geom, 4), crs, _LONLAT)
    if not _crosses_antimeridian(lonlat):
        return lonlat
    parts = [p for half in _halves(lonlat) for p in shapely.get_parts(half)]
    return shapely.multipolygons([p for p in parts if p.geom_type == "Polygon"])


def lonlat_box(geom: shapely.Geometry, crs: str) -> tuple[float, float, float, float]:
    """West, south, east, north of an area, edges included; east > 180 beyond the antimeridian."""
    lonlat = _transform(_dense(geom, _SEGMENTS), crs, _LONLAT)
    if _crosses_antimeridian(lonlat):
        lonlat = shapely.transform(lonlat, _eastwards)
    west, south, east, north = (float(v) for v in lonlat.bounds)
    margin = 0.01  # degrees: edges bend between the points
    return west - margin, south - margin, east + margin, north + margin


class Tiler:
    """Finds the tiles of one grid that scenes touch; keeps no scene."""

    def __init__(self, grid: NamedGrid) -> None:
        spec = grid.spec
        self._crs = str(spec.crs)
        self._origin = (spec.origin.x, spec.origin.y)
        self._size = (spec.tile_size.x, spec.tile_size.y)

    def tiles(self, dataset: Dataset) -> list[tuple[int, int]]:
        """Tiles (x, y) whose box is not disjoint from the scene's footprint, sorted.

        Raises DataError for a CRS or geometry that can't be read.
        """
        geom = footprint(dataset)
        parts = _named(dataset, lambda: self._project(geom, dataset.crs))
        found: set[tuple[int, int]] = set()
        for part in parts:
            found.update(self._touching(part))
        return sorted(found)

    def _project(self, geom: shapely.Geometry, crs: str) -> Iterable[shapely.Geometry]:
        """The footprint in the grid's CRS; cut at the antimeridian where it crosses that."""
        if crs.lower() == self._crs.lower() and not _is_geographic(crs):
            return [geom]
        dense = _dense(geom, _SEGMENTS)
        lonlat = _transform(dense, crs, _LONLAT)
        if not _crosses_antimeridian(lonlat):
            return [_valid(_transform(dense, crs, self._crs))]
        return [_valid(_transform(half, _LONLAT, self._crs)) for half in _halves(lonlat)]

    def _touching(self, geom: shapely.Geometry) -> list[tuple[int, int]]:
        if geom.is_empty:
            return []
        x0, y0, x1, y1 = geom.bounds
        (ox, oy), (w, h) = self._origin, self._size
        xs = np.arange(_floor(x0 + _TOLERANCE, ox, w), _floor(x1 - _TOLERANCE, ox, w) + 1)
        ys = np.arange(_floor(y0 + _TOLERANCE, oy, h), _floor(y1 - _TOLERANCE, oy, h) + 1)
        ix, iy = (a.ravel() for a in np.meshgrid(xs, ys))
        if ix.size == 1:
            return [(int(ix[0]), int(iy[0]))]
        shapely.prepare(geom)
        boxes = shapely.box(ox + ix * w, oy + iy * h, ox + (ix + 1) * w, oy + (iy + 1) * h)
        hit = shapely.intersects(geom, boxes)
        return list(zip(ix[hit].tolist(), iy[hit].tolist(), strict=True))


def _named(dataset: Dataset, work: Callable[[], _T]) -> _T:
    """Do the work; an error of PROJ becomes one that names the scene."""
    try:
        return work()
    except (CRSError, ProjError) as exc:
        raise DataError(
            f"dataset {dataset.uri}: can't use its CRS {dataset.crs!r}: {exc}",
            "correct the document",
        ) from None


def _extent(grid: PixelGrid) -> shapely.Geometry:
    rows, columns = grid.shape
    corners = [(0, 0), (columns, 0), (columns, rows), (0, rows)]
    return shapely.Polygon([grid.transform * (float(x), float(y)) for x, y in corners])


def _halves(lonlat: shapely.Geometry) -> list[shapely.Geometry]:
    """What lies east and west of the antimeridian, each within -180..180."""
    shifted = _valid(shapely.transform(lonlat, _eastwards))
    east = shapely.intersection(shifted, shapely.box(0, -90, _RIM, 90))
    west = shapely.intersection(shifted, shapely.box(360 - _RIM, -90, 360, 90))
    return [h for h in (east, shapely.transform(west, _westwards)) if not h.is_empty]


@lru_cache(maxsize=256)
def _is_geographic(crs: str) -> bool:
    return bool(CRS.from_user_input(crs).is_geographic)


def _dense(geom: shapely.Geometry, segments: int) -> shapely.Geometry:
    """The outline with at least so many points along its longer side."""
    x0, y0, x1, y1 = geom.bounds
    return shapely.segmentize(geom, max(x1 - x0, y1 - y0) / segments or 1.0)


def _crosses_antimeridian(lonlat: shapely.Geometry) -> bool:
    """Whether a dense outline leaves -180..180, or an edge jumps by more than half the globe."""
    if lonlat.is_empty:
        return False
    west, _, east, _ = lonlat.bounds
    if west < -180 - _RIM_WIDTH or east > 180 + _RIM_WIDTH:
        return True
    if east - west <= 180:
        return False
    rings = [shapely.get_coordinates(part) for part in shapely.get_parts(lonlat)]
    return any(bool((np.abs(np.diff(ring[:, 0])) > 180).any()) for ring in rings)


def _transform(geom: shapely.Geometry, src: str, dst: str) -> shapely.Geometry:
    """Reproject; vertices off the map of `dst` are left out."""
    to = transformer(src, dst)

    def points(xy: np.ndarray) -> np.ndarray:
        x, y = to.transform(xy[:, 0], xy[:, 1])
        return np.column_stack([x, y])

    out = shapely.transform(geom, points)
    if np.isfinite(shapely.get_coordinates(out)).all():
        return out
    rings = [
        shapely.get_coordinates(p.exterior)
        for p in shapely.get_parts(out)
        if p.geom_type == "Polygon"
    ]
    rings = [r[np.isfinite(r).all(axis=1)] for r in rings]
    return shapely.union_all([_valid(shapely.Polygon(r)) for r in rings if len(r) > 3])


def _valid(geom: shapely.Geometry) -> shapely.Geometry:
    return geom if geom.is_valid else shapely.make_valid(geom)


def _eastwards(xy: np.ndarray) -> np.ndarray:
    return np.column_stack([np.where(xy[:, 0] < 0, xy[:, 0] + 360, xy[:, 0]), xy[:, 1]])


def _westwards(xy: np.ndarray) -> np.ndarray:
    return np.column_stack([xy[:, 0] - 360, xy[:, 1]])


def _floor(value: float, origin: float, size: float) -> int:
    return math.floor((value - origin) / size)
