"""Keeping only the tasks whose tile lies in an area of interest given as GeoJSON.

The tiles are brought into the area's CRS, not the area into the grid's: a tile is small and has an
image everywhere it may lie, an area may be the whole world.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from odc_stats_gpu.errors import ConfigError
from odc_stats_gpu.model import TileIndex
from odc_stats_gpu.tasks import NamedGrid

_SIDE = 16
"""Points along each side of a tile: its edges are curves in another CRS."""
_TURN = 360.0
Points = npt.NDArray[np.float64]


def within(
    indexes: Iterable[TileIndex], grid: NamedGrid, area: Mapping[str, Any], where: str = "GeoJSON"
) -> list[TileIndex]:
    """Tasks whose tile touches the area; any grid, any GeoJSON; raises ConfigError.

    `area` is a Feature, FeatureCollection or geometry, in longitude and latitude (RFC 7946) or in
    the CRS that its old-style `crs` member names. It may cross the antimeridian: cut there, with
    longitudes beyond 180, or as a clockwise ring with an edge of more than 180 degrees.
    """
    import shapely
    import shapely.errors
    from pyproj import CRS, Transformer
    from pyproj.exceptions import CRSError

    indexes = list(indexes)
    try:
        crs = CRS((area.get("crs") or {}).get("properties", {}).get("name", "EPSG:4326"))
        target = _target(area, geographic=crs.is_geographic)
    except (
        shapely.errors.ShapelyError, CRSError, ValueError, KeyError, AttributeError, TypeError,
        IndexError, RecursionError,
    ) as exc:  # fmt: skip
        raise ConfigError(
            f"can't read the area in {where}: {exc}", "expected GeoJSON with polygons"
        ) from None
    tiles = list(dict.fromkeys((index.x, index.y) for index in indexes))
    if not tiles:
        return []
    project = Transformer.from_crs(CRS(str(grid.spec.crs)), crs, always_xy=True).transform
    outlines = [_outline(grid.geobox(tile).extent.boundingbox) for tile in tiles]
    x, y = project(*np.moveaxis(np.array(outlines), 2, 0))
    rings: list[Points] = [np.stack(xy, axis=1) for xy in zip(x, y, strict=True)]
    inside = {
        tile
        for tile, ring in zip(tiles, rings, strict=True)
        if np.isfinite(ring).all()  # beyond the domain of the area's projection
        and target.intersects(_tile(ring, geographic=crs.is_geographic))
    }
    return [index for index in indexes if (index.x, index.y) in inside]


def _target(area: Mapping[str, Any], *, geographic: bool) -> Any:
    """One prepared geometry; longitudes are repeated, so that tiles may be written either way."""
    import shapely
    import shapely.affinity
    from shapely.geometry import shape

    found = [shape(_unwrapped(g) if geographic else g) for g in _geometries(area)]
    parts = [shapely.make_valid(shapely.force_2d(g)) for g in found if not g.is_empty]
    if not parts:
        raise ValueError("it holds no geometry")
    whole = shapely.union_all(parts)
    if geographic:
        turns = [shapely.affinity.translate(whole, k * _TURN) for k in (-1, 0, 1)]
        whole = shapely.union_all(turns)
    shapely.prepare(whole)
    return whole


def _geometries(doc: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Every simple geometry of a GeoJSON document."""
    kind = doc.get("type")
    if kind == "FeatureCollection":
        for feature in doc["features"]:
            yield from _geometries(feature)
    elif kind == "Feature":
        if doc.get("geometry"):
            yield from _geometries(doc["geometry"])
    elif kind == "GeometryCollection":
        for geometry in doc["geometries"]:
            yield from _geometries(geometry)
    else:
        yield doc


def _unwrapped(geometry: Mapping[str, Any]) -> Mapping[str, Any]:
    """Polygons that jump over the antimeridian, with longitudes that run on beyond 180."""
    kind, coordinates = geometry.get("type"), geometry.get("coordinates")
    if kind == "Polygon":
        return {"type": kind, "coordinates": _over_the_edge(coordinates or [])}
    if kind == "MultiPolygon":
        return {"type": kind, "coordinates": [_over_the_edge(p) for p in coordinates or []]}
    return geometry


def _over_the_edge(rings: Sequence[Any]) -> Sequence[Any]:
    """A polygon that is written clockwise and has an edge of over 180 degrees goes the short way.

    Counter-clockwise, as RFC 7946 wants outer rings, such an edge is meant as it is written; whole
    turns, as in a box around the world, are, too.
    """
    if not rings or not rings[0]:
        return rings
    outer = np.array([p[:2] for p in rings[0]], dtype=float)
    jumps = np.abs(np.diff(outer[:, 0]))
    x, y = outer.T
    clockwise = float(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1])) < 0
    if not clockwise or not ((jumps > _TURN / 2) & (jumps < _TURN - 1e-6)).any():
        return rings
    out = []
    for ring in rings:
        points = np.array([p[:2] for p in ring], dtype=float)
        points[:, 0] = np.where(points[:, 0] < 0, points[:, 0] + _TURN, points[:, 0])
        out.append(points.tolist())
    return out


def _outline(box: Any) -> Points:
    """A tile's edge in the grid's CRS, counter-clockwise and closed, (4 * _SIDE + 1, 2)."""
    corners = np.array(
        [
            (box.left, box.bottom), (box.right, box.bottom), (box.right, box.top),
            (box.left, box.top), (box.left, box.bottom),
        ]
    )  # fmt: skip
    steps = np.linspace(0, 1, _SIDE, endpoint=False)[:, None]
    sides = [a + steps * (b - a) for a, b in pairwise(corners)]
    return np.concatenate([*sides, corners[-1:]])


def _tile(ring: Points, *, geographic: bool) -> Any:
    """A tile's polygon; in degrees its longitudes run on, and a ring around a pole reaches it."""
    import shapely

    if geographic:
        x = np.unwrap(ring[:, 0], period=_TURN)
        ring = np.stack([x, ring[:, 1]], axis=1)
        if abs(x[-1] - x[0]) > _TURN / 2:
            pole = 90.0 if ring[:, 1].mean() > 0 else -90.0
            ring = np.concatenate([ring, [(x[-1], pole), (x[0], pole)], ring[:1]])
    return shapely.make_valid(shapely.Polygon(ring))
