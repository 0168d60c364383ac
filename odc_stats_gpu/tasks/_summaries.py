"""What save-tasks writes beside the database: a csv of all tasks, a geojson of each period."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from itertools import groupby
from typing import Any

import shapely
from shapely.geometry import mapping

from odc_stats_gpu.model import TileIndex
from odc_stats_gpu.tasks._footprints import lonlat_outline
from odc_stats_gpu.tasks._grids import NamedGrid


@dataclass(frozen=True, slots=True)
class Row:
    """One task: how many scenes on how many local solar days."""

    index: TileIndex
    datasets: int
    days: int


def csv_text(rows: Iterable[Row]) -> str:
    """One line per task in the order of the database: row n is task number n."""
    lines = ['"T","X","Y","datasets","days"']
    lines += [
        f'"{r.index.period}", {r.index.x:+05d}, {r.index.y:+05d}, {r.datasets:4d}, {r.days:4d}'
        for r in rows
    ]
    return "\n".join(lines) + "\n"


def geojson_texts(
    rows: Iterable[Row], grid: NamedGrid, offsets: Mapping[tuple[int, int], timedelta]
) -> dict[str, str]:
    """A FeatureCollection (EPSG:4326) per period; `rows` sorted by period."""
    rows = list(rows)
    width = len(str(max((max(abs(r.index.x), abs(r.index.y)) for r in rows), default=0)))
    shapes: dict[tuple[int, int], Any] = {}
    out = {}
    for period, tiles in groupby(rows, key=lambda r: r.index.period):
        features = []
        for row in tiles:
            tile = (row.index.x, row.index.y)
            if tile not in shapes:
                shapes[tile] = _outline(grid, tile)
            features.append(_feature(row, shapes[tile], width, offsets[tile]))
        out[period] = json.dumps({"type": "FeatureCollection", "features": features})
    return out


def _feature(row: Row, outline: Any, width: int, offset: timedelta) -> dict[str, Any]:
    x, y = row.index.x, row.index.y
    return {
        "type": "Feature",
        "geometry": outline,
        "properties": {
            "title": f"{x:0{width}d},{y:0{width}d}",
            "region_code": f"x{x:0{width}d}y{y:0{width}d}",
            "ix": x,
            "iy": y,
            "utc_offset": offset.total_seconds() / 3600,
            "total": row.datasets,
            "days": row.days,
        },
    }


def _outline(grid: NamedGrid, tile: tuple[int, int]) -> Any:
    """The tile's box in longitude and latitude."""
    spec = grid.spec
    (x, y), (w, h) = tile, (spec.tile_size.x, spec.tile_size.y)
    left, bottom = spec.origin.x + x * w, spec.origin.y + y * h
    return mapping(lonlat_outline(shapely.box(left, bottom, left + w, bottom + h), str(spec.crs)))
