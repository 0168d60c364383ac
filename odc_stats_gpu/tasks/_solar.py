"""Local solar time of a tile: whole hours from the longitude of its centre."""

from __future__ import annotations

import math
from datetime import timedelta
from functools import lru_cache

from pyproj import Transformer

from odc_stats_gpu.tasks._grids import NamedGrid


@lru_cache(maxsize=256)
def transformer(src: str, dst: str) -> Transformer:
    """CRS to CRS in x, y order; building one costs milliseconds, so they are kept."""
    return Transformer.from_crs(src, dst, always_xy=True)


def offset_hours(longitude: float) -> int:
    """Nearest whole hour, halves eastwards, the same on both sides of Greenwich."""
    return math.floor(longitude * 24 / 360 + 0.5)


def utc_offset(grid: NamedGrid, tile: tuple[int, int]) -> timedelta:
    """Local solar time minus UTC at the tile's centre."""
    spec = grid.spec
    x = spec.origin.x + (tile[0] + 0.5) * spec.tile_size.x
    y = spec.origin.y + (tile[1] + 0.5) * spec.tile_size.y
    lon, _ = transformer(str(spec.crs), "EPSG:4326").transform(x, y)
    # The centre of a tile at the rim of the projection may lie off the map: no scene is near it.
    return timedelta(hours=offset_hours(lon) if math.isfinite(lon) else 0)
