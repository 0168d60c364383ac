"""An EO3 document as an index stores it: with spatial and lineage blocks that readers expect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from odc_stats_gpu.errors import DataError
from odc_stats_gpu.model import Dataset
from odc_stats_gpu.tasks._footprints import footprint, lonlat_bounds


def index_doc(doc: Mapping[str, Any], dataset: Dataset) -> dict[str, Any]:
    """The document plus `grid_spatial`, `extent` and nested `lineage`; raises DataError.

    The incumbent's worker finds a scene's CRS, footprint and times through these.
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
    out["lineage"] = {"source_datasets": _lineage(doc.get("lineage") or {})}
    return out


def _lineage(lineage: Mapping[str, Any]) -> dict[str, Any]:
    """`{level1: [a, b]}` as `{level11: {id: a}, level12: {id: b}}`; one alone keeps its name."""
    if "source_datasets" in lineage:
        return dict(lineage["source_datasets"])
    out: dict[str, Any] = {}
    for name, ids in lineage.items():
        listed = ids if isinstance(ids, (list, tuple)) else [ids]
        for k, uuid in enumerate(listed, start=1):
            out[name if len(listed) == 1 else f"{name}{k}"] = {"id": str(uuid)}
    return out
