"""Keeping only the tasks whose tile lies in an area of interest given as GeoJSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from odc_stats_gpu.errors import ConfigError
from odc_stats_gpu.model import TileIndex
from odc_stats_gpu.tasks import NamedGrid


def within(
    indexes: Iterable[TileIndex], grid: NamedGrid, area: Mapping[str, Any], where: str = "GeoJSON"
) -> list[TileIndex]:
    """Tasks whose tile intersects the area; any grid, any GeoJSON; raises ConfigError.

    `area` is a Feature, FeatureCollection or geometry, in longitude and latitude (RFC 7946) or in
    the CRS that its old-style `crs` member names.
    """
    import shapely
    import shapely.errors
    from pyproj import CRS, Transformer
    from pyproj.exceptions import CRSError
    from shapely.geometry import shape

    try:
        crs = area.get("crs", {}).get("properties", {}).get("name", "EPSG:4326")
        union = shapely.union_all([shape(g) for g in _geometries(area)])
        if union is None or union.is_empty:
            raise ValueError("it holds no geometry")
        x0, y0, x1, y1 = union.bounds
        project = Transformer.from_crs(CRS(crs), CRS(str(grid.spec.crs)), always_xy=True).transform
        dense = shapely.segmentize(union, max(x1 - x0, y1 - y0) / 200 or 1.0)
        target = shapely.make_valid(shapely.transform(dense, project, interleaved=False))
        shapely.prepare(target)
    except (
        shapely.errors.ShapelyError, CRSError, ValueError, KeyError, AttributeError, TypeError,
    ) as exc:  # fmt: skip
        raise ConfigError(
            f"can't read the area in {where}: {exc}", "expected GeoJSON with polygons"
        ) from None
    tiles: dict[tuple[int, int], bool] = {}
    out = []
    for index in indexes:
        tile = (index.x, index.y)
        if tile not in tiles:
            tiles[tile] = bool(target.intersects(grid.geobox(tile).extent.geom))
        if tiles[tile]:
            out.append(index)
    return out


def _geometries(doc: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    """Every geometry of a GeoJSON document."""
    if doc.get("type") == "FeatureCollection":
        for feature in doc["features"]:
            yield from _geometries(feature)
    elif doc.get("type") == "Feature":
        if doc.get("geometry"):
            yield doc["geometry"]
    else:
        yield doc
