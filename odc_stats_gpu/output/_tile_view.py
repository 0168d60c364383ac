"""What the report shows of one tile, read from its STAC item and files."""

from __future__ import annotations

import json
import os
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import rasterio
from rasterio.enums import Resampling
from rasterio.io import MemoryFile

from odc_stats_gpu.errors import DataError
from odc_stats_gpu.model import Dataset
from odc_stats_gpu.output._pictures import Map, draw_map, number, png
from odc_stats_gpu.output._rgba import to_rgba
from odc_stats_gpu.output._scenes import View, snapshot
from odc_stats_gpu.output._store import Store

Array = np.ndarray[Any, Any]
_SIDE = 560
"""Longer side of a picture in pixels."""
_SPREAD = {
    "edev": "Euclidean spread", "emad": "Euclidean spread", "sdev": "Spectral spread",
    "smad": "Spectral spread", "bcdev": "Bray-Curtis spread", "bcmad": "Bray-Curtis spread",
}  # fmt: skip
_COUNTS = {"count": "Clear observations", "total": "Observations", "clear": "Clear observations"}


@dataclass(frozen=True, slots=True)
class Picture:
    """A photo-like picture."""

    title: str
    note: str
    png: str


@dataclass(frozen=True, slots=True)
class Row:
    """One file in the table of a tile."""

    name: str
    href: str
    kind: str
    size: str
    low: str = ""
    mean: str = ""
    high: str = ""
    valid: str = ""


@dataclass(frozen=True, slots=True)
class TileView:
    """What the page shows of one tile."""

    anchor: str
    heading: str
    product: str
    href: str
    facts: tuple[tuple[str, str], ...]
    photos: tuple[Picture, ...]
    spreads: tuple[Map, ...]
    counts: tuple[Map, ...]
    rows: tuple[Row, ...]


def tile_view(
    store: Store,
    path: str,
    documents: Sequence[Dataset],
    pictures: Sequence[tuple[str, Array]],
    anchor: str,
    out: Path,
) -> TileView:
    """Read one tile; `out` is the page that its links start from. Raises DataError, StoreError."""
    item = _item(store, path)
    properties, folder = item["properties"], posixpath.dirname(path)
    bands: dict[str, Array] = {}
    rows: list[Row] = []
    step = _step(properties["proj:shape"])
    for key, asset in item["assets"].items():
        where = posixpath.join(folder, asset["href"])
        values = _read(store, where, step) if "raster:bands" in asset else None
        if values is not None:
            bands[key] = values
        rows.append(_row(key, asset, _link(store, where, out), values))
    spreads, counts = _maps(item["assets"], bands)
    return TileView(
        anchor=anchor,
        heading=_heading(properties),
        product=str(properties.get("odc:product", "")),
        href=_link(store, path, out),
        facts=_facts(item),
        photos=_photos(item, bands, documents, pictures, step),
        spreads=spreads,
        counts=counts,
        rows=tuple(rows),
    )


def _item(store: Store, path: str) -> dict[str, Any]:
    try:
        item = json.loads(store.read(path))
        _ = item["assets"], item["properties"]["proj:shape"], item["properties"]["proj:transform"]
        return cast("dict[str, Any]", item)
    except (ValueError, KeyError, TypeError) as exc:
        raise DataError(
            f"{store.uri(path)} is not an item of ours: {exc!r}", "run `verify` on this location"
        ) from exc


def _heading(properties: Mapping[str, Any]) -> str:
    start = str(properties.get("dtr:start_datetime", properties.get("datetime", "")))[:10]
    end = str(properties.get("dtr:end_datetime", ""))[:10]
    whole_year = start.endswith("-01-01") and end == f"{start[:4]}-12-31"
    period = start[:4] if whole_year else f"{start} to {end}"
    return f"Tile {properties.get('odc:region_code', '')}, {period}"


def _facts(item: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    properties = item["properties"]
    rows, cols = properties["proj:shape"]
    pixel = abs(float(properties["proj:transform"][0]))
    software = properties.get("processing:software") or {}
    facts = [
        ("pixels", f"{cols} x {rows} of {number(pixel)} m" if pixel > 0.1 else f"{cols} x {rows}"),
        ("grid", str(properties.get("proj:code") or "own CRS")),
        ("scenes", str(len((properties.get("odc:lineage") or {}).get("inputs") or ()))),
        ("made by", _software(software)),
        ("on", str(properties.get("odc_stats:device", ""))),
    ]
    return tuple((k, v) for k, v in facts if v)


def _software(versions: Mapping[str, Any]) -> str:
    """Ourselves among the software of a tile, else whatever comes first."""
    name = "odc-stats-gpu" if "odc-stats-gpu" in versions else next(iter(versions), "")
    return f"{name} {versions[name]}" if name else ""


def _step(shape: Sequence[int]) -> int:
    return max(1, -(-max(shape) // _SIDE))


def _small(shape: Sequence[int], step: int) -> tuple[int, int]:
    return (-(-int(shape[0]) // step), -(-int(shape[1]) // step))


def _read(store: Store, path: str, step: int) -> Array:
    """A band at report size as float32, NaN where it has no value."""
    with MemoryFile(store.read(path)) as file, file.open() as src:
        how = Resampling.nearest if src.nodata is None else Resampling.average
        values = src.read(1, out_shape=_small(src.shape, step), resampling=how, masked=True)
    return np.asarray(values.astype(np.float32).filled(np.nan))


def _maps(
    assets: Mapping[str, Any], bands: Mapping[str, Array]
) -> tuple[tuple[Map, ...], tuple[Map, ...]]:
    """Spread measures each on its own scale; all counts on one, so that they compare."""
    spreads, counts = [], {}
    for key, values in bands.items():
        band = assets[key]["raster:bands"][0]
        if str(band.get("data_type", "")).startswith("float"):
            title = _SPREAD.get(key.lower(), "")
            spreads.append(draw_map(key, values, title=title, unit=str(band.get("unit", ""))))
        elif "nodata" not in band:
            counts[key] = values
    top = max((float(np.nanmax(v)) for v in counts.values() if np.isfinite(v).any()), default=1)
    drawn = [
        draw_map(k, v, title=_count_title(k), scale="count", limits=(0, max(1, top)))
        for k, v in counts.items()
    ]
    return tuple(spreads), tuple(drawn)


def _count_title(name: str) -> str:
    """`clear_2_5` was opened with radius 2, then dilated with 5."""
    known = _COUNTS.get(name.lower())
    parts = name.split("_")
    if known is None and len(parts) == 3 and parts[1].isdigit() and parts[2].isdigit():
        steps = (("opening", parts[1]), ("dilation", parts[2]))
        return "Clear after " + ", ".join(f"{op} {r}" for op, r in steps if r != "0")
    return known or name


def _photos(
    item: Mapping[str, Any],
    bands: Mapping[str, Array],
    documents: Sequence[Dataset],
    pictures: Sequence[tuple[str, Array]],
    step: int,
) -> tuple[Picture, ...]:
    picture = item["assets"].get("rgba") or item["assets"].get("thumbnail") or {}
    names = picture.get("odc_stats:rgb_bands") or []
    if not names or any(n not in bands for n in names):
        return ()
    clamp = picture["odc_stats:rgb_clamp"]
    rgba = to_rgba([bands[n] for n in names], [float("nan")] * 3, clamp)
    properties = item["properties"]
    inputs = (properties.get("odc:lineage") or {}).get("inputs") or ()
    a, b, c, d, e, f = properties["proj:transform"][:6]
    transform = rasterio.Affine(a * step, b * step, c, d * step, e * step, f)
    view = View(_crs(properties), transform, _small(properties["proj:shape"], step))
    out = [Picture(text, "", png(pixels)) for text, pixels in pictures]
    before = snapshot(documents, inputs, view, names, clamp)
    if before is not None:
        cloud = "" if before.cloud is None else f", {before.cloud:.0f} % cloud"
        out.append(Picture("One date", before.title + cloud, png(_last(before.rgba))))
    note = f"{len(inputs)} scenes, pixel by pixel" if inputs else ""
    out.append(Picture("The geomedian", note, png(_last(rgba))))
    return tuple(out)


def _crs(properties: Mapping[str, Any]) -> Any:
    return rasterio.crs.CRS.from_user_input(properties.get("proj:code") or properties["proj:wkt2"])


def _last(rgba: Array) -> Array:
    return rgba.transpose(1, 2, 0)


def _row(key: str, asset: Mapping[str, Any], href: str, values: Array | None) -> Row:
    band = (asset.get("raster:bands") or [{}])[0]
    kind = str(band.get("data_type", asset.get("type", ""))).split(";")[0]
    size = _bytes(int(asset.get("file:size", 0)))
    good = values[np.isfinite(values)] if values is not None else np.empty(0)
    if values is None or not good.size:
        return Row(key, href, kind, size)
    low, mean, high = (number(float(v)) for v in (good.min(), good.mean(), good.max()))
    return Row(key, href, kind, size, low, mean, high, f"{100 * good.size / values.size:.1f} %")


def _bytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"


def _link(store: Store, path: str, out: Path) -> str:
    """Relative to the page when both are files, so that a folder can be moved or sent."""
    uri = store.uri(path)
    if not uri.startswith("file://"):
        return uri
    return Path(os.path.relpath(uri.removeprefix("file://"), out.absolute().parent)).as_posix()
