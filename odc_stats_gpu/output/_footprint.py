"""A tile's outline in longitude and latitude, right also across the antimeridian and at a pole."""

from __future__ import annotations

from typing import Any

import numpy as np
import shapely
from odc.geo.geobox import GeoBox
from pyproj import Transformer

_POINTS = 20
"""Points per side: a straight side of the tile is a curve in longitude and latitude."""
_DECIMALS = 7


def footprint(geobox: GeoBox) -> tuple[dict[str, Any], list[float]]:
    """GeoJSON geometry and bbox (west > east across the antimeridian, as RFC 7946 asks)."""
    lon, lat = _outline(geobox)
    turns = (lon[-1] - lon[0]) / 360
    if abs(turns) > 0.5:  # the outline goes round a pole
        edge = 90.0 if lat.mean() > 0 else -90.0
        south, north = sorted((edge, float(lat.min() if edge > 0 else lat.max())))
        return _geojson(shapely.box(-180, south, 180, north)), _rounded([-180, south, 180, north])
    lon = lon - 360 * np.floor((lon.min() + 180) / 360)  # start in -180..180
    shape = shapely.Polygon(np.column_stack([lon, lat]))
    west, south, east, north = shape.bounds
    if east <= 180:
        return _geojson(shape), _rounded([west, south, east, north])
    near = shape.intersection(shapely.box(-180, -90, 180, 90))
    far = shape.intersection(shapely.box(180, -90, 540, 90))
    far = shapely.transform(far, lambda xy: xy - [360, 0])
    polygons = [p for g in (near, far) for p in shapely.get_parts(g) if p.geom_type == "Polygon"]
    return _geojson(shapely.MultiPolygon(polygons)), _rounded([west, south, east - 360, north])


def _outline(geobox: GeoBox) -> tuple[Any, Any]:
    """Closed ring of the tile, longitudes unwrapped so that neighbours differ by less than 180."""
    height, width = geobox.shape
    step = np.linspace(0, 1, _POINTS, endpoint=False)
    zero, one = np.zeros(_POINTS), np.ones(_POINTS)
    col = np.concatenate([step, one, 1 - step, zero, [0]]) * width
    row = np.concatenate([zero, step, one, 1 - step, [0]]) * height
    a, b, c, d, e, f = geobox.transform[:6]
    x, y = a * col + b * row + c, d * col + e * row + f
    lon, lat = Transformer.from_crs(str(geobox.crs), "EPSG:4326", always_xy=True).transform(x, y)
    return np.unwrap(np.asarray(lon), period=360), np.asarray(lat)


def _geojson(shape: Any) -> dict[str, Any]:
    shape = shapely.set_precision(shape, 10.0**-_DECIMALS, mode="pointwise")
    return _lists(shapely.geometry.mapping(shapely.geometry.polygon.orient(shape)
                  if shape.geom_type == "Polygon" else shape))  # fmt: skip


def _lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _lists(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [_lists(v) for v in value]
    return round(value, _DECIMALS) if isinstance(value, float) else value


def _rounded(box: list[float]) -> list[float]:
    return [round(float(v), _DECIMALS) for v in box]
