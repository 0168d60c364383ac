"""An EO3 document as an index stores it: with spatial and lineage blocks that readers expect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from odc_stats_gpu.errors import DataError
from odc_stats_gpu.model import Dataset
from odc_stats_gpu.tasks._footprints import footprint, lonlat_bounds


def index_doc(doc: Mapping[str, Any], dataset: Dataset) -> dict[str, Any]:
    """The document plus `grid_spatial` and `extent`, less its lineage; raises DataError.

    The incumbent's worker finds a scene's CRS and footprint through these. An index keeps lineage
    apart, so that a tile's id and sources come from the scenes themselves, not from their parents:
    the same archive gives the same ids by either way.
    """
    out = dict(doc)
    out["id"] = str(dataset.id)
    grid = dataset.grids.get("default") or next(iter(dataset.grids.values()), None)
    if grid is None:
        raise DataError(f"dataset document {dataset.uri} lacks 'grids'", "EO3 needs at least one")
    rows, columns = (float(n) for n in grid.shape)
    corners = {"ul": (0.0, 0.0), "ur": (columns, 0.0), "lr": (columns, rows), "ll": (0.0, rows)}
    points = {name: grid.transform * corner for name, corner in corners.items()}
    ring = [points[name] for name in ("ul", "ur", "lr", "ll", "ul")]
    west, south, east, north = lonlat_bounds(footprint(dataset), dataset)
    out["grid_spatial"] = {
        "projection": {
            "spatial_reference": dataset.crs,
            "geo_ref_points": {name: {"x": x, "y": y} for name, (x, y) in points.items()},
            "valid_data": dataset.geometry
            or {"type": "Polygon", "coordinates": [[[x, y] for x, y in ring]]},
        }
    }
    out["extent"] = {"lon": {"begin": west, "end": east}, "lat": {"begin": south, "end": north}}
    out["lineage"] = {"source_datasets": {}}
    return out
