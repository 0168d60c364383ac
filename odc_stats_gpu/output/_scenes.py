"""What a scene looked like on one date, drawn on the grid of a tile: the "before" of the report."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import yaml
from affine import Affine
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.vrt import WarpedVRT

from odc_stats_gpu.errors import DataError
from odc_stats_gpu.model import Dataset
from odc_stats_gpu.output._rgba import to_rgba

Array = np.ndarray[Any, Any]
_SENTINEL = {"red": "B04", "green": "B03", "blue": "B02"}
_TYPICAL_CLOUD = 35.0
"""Percent of cloud of the date to show: enough to see why one date isn't enough."""
_TRIES = 4


@dataclass(frozen=True, slots=True)
class View:
    """The pixels that are looked at: a tile, at fewer pixels."""

    crs: Any
    transform: Affine
    shape: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One date."""

    title: str
    rgba: Array
    """(4, y, x) uint8."""
    cloud: float | None
    """Percent, as the scenes' documents say."""


def read_documents(paths: Sequence[str | Path]) -> list[Dataset]:
    """EO3 documents of scenes; raises DataError for one that can't be read."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    found = []
    for path in paths:
        text = str(path)
        local = text.removeprefix("file://")
        try:
            doc = yaml.load(Path(local).read_text(), loader)  # noqa: S506 - a safe loader
        except (OSError, yaml.YAMLError) as exc:
            raise DataError(f"scene document {text}: {exc}", "check the path") from exc
        found.append(Dataset.from_doc(doc, f"file://{Path(local).absolute()}"))
    return found


def snapshot(
    scenes: Sequence[Dataset],
    inputs: Sequence[str],
    view: View,
    bands: Sequence[str],
    clamp: Sequence[float],
) -> Snapshot | None:
    """The most telling date among the scenes that went into a tile, or None without any.

    `inputs` are the ids in the tile's lineage. A date that covers the tile and is partly cloudy
    comes first.
    """
    wanted = set(inputs)
    days: dict[date, list[Dataset]] = defaultdict(list)
    for scene in scenes:
        ids = {str(scene.id), *(str(u) for u in scene.sources)}
        if ids & wanted and all(_find(scene.measurements, b) for b in bands):
            days[scene.time.date()].append(scene)
    ranked = sorted(days, key=lambda d: (abs((_cloud(days[d]) or 0) - _TYPICAL_CLOUD), d))
    best: tuple[float, Snapshot] | None = None
    for day in ranked[:_TRIES]:
        rgba = _draw(days[day], view, bands, clamp)
        cover = float((rgba[3] > 0).mean())
        if best is None or cover > best[0]:
            best = (cover, Snapshot(f"{day:%-d %B %Y}", rgba, _cloud(days[day])))
        if cover > 0.9:
            break
    return best[1] if best is not None and best[0] > 0 else None


def _draw(
    scenes: Sequence[Dataset], view: View, bands: Sequence[str], clamp: Sequence[float]
) -> Array:
    out = np.zeros((4, *view.shape), np.uint8)
    for scene in scenes:
        planes, nodata = [], []
        for band in bands:
            file = scene.measurements[_find(scene.measurements, band)]
            try:
                with rasterio.open(_path(file.uri)) as src, WarpedVRT(
                    src, crs=view.crs, transform=view.transform, width=view.shape[1],
                    height=view.shape[0], resampling=Resampling.average,
                ) as vrt:  # fmt: skip
                    planes.append(vrt.read(file.layer))
                    nodata.append(vrt.nodata)
            except RasterioError as exc:
                raise DataError(f"can't read {file.uri}: {exc}", "check the scene") from exc
        rgba = to_rgba(planes, nodata, clamp)
        out = np.where(out[3:] > 0, out, rgba)
    return out


def _find(measurements: Mapping[str, Any], band: str) -> str:
    """Name under which a document has a band that goes by an alias in the product; or ""."""
    tail = [name for name in measurements if name.endswith(f"_{band}")]
    for name in (band, f"nbart_{band}", _SENTINEL.get(band, ""), *tail):
        if name in measurements:
            return name
    return ""


def _cloud(scenes: Sequence[Dataset]) -> float | None:
    values = [s.properties.get("eo:cloud_cover") for s in scenes]
    known = [float(v) for v in values if v is not None]
    return sum(known) / len(known) if known else None


def _path(uri: str) -> str:
    if uri.startswith("s3://"):
        return "/vsis3/" + uri.removeprefix("s3://")
    if uri.startswith(("http://", "https://")):
        return "/vsicurl/" + uri
    return uri.removeprefix("file://")
