"""The STAC item of a tile: its commit mark and its description."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np

from odc_stats_gpu.model import OutputBand, RunInfo, Task
from odc_stats_gpu.output._footprint import footprint

EXTENSIONS = {
    "projection": "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    "raster": "https://stac-extensions.github.io/raster/v1.1.0/schema.json",
    "file": "https://stac-extensions.github.io/file/v2.1.0/schema.json",
    "processing": "https://stac-extensions.github.io/processing/v1.2.0/schema.json",
}
MULTIHASH_SHA256 = "1220"
"""Prefix of a multihash: function sha2-256 (0x12), 32 bytes (0x20)."""


@dataclass(frozen=True, slots=True)
class AssetFile:
    """A file of the tile that is already written."""

    key: str
    """Name of the asset: the band's, `rgba`, `thumbnail` or `checksum:sha1`."""
    path: str
    """Relative to the store's location."""
    size: int
    """Bytes."""
    sha1: str
    sha256: str
    """Hex digests."""
    media_type: str
    roles: tuple[str, ...]
    band: OutputBand | None = None
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Fields of the asset beyond what follows from the others."""

    @property
    def name(self) -> str:
        """Name without folder."""
        return self.path.rpartition("/")[2]


def render_item(
    task: Task, assets: Sequence[AssetFile], self_href: str, info: RunInfo, now: datetime
) -> bytes:
    """Compact JSON of the item: deterministic apart from `odc:processing_datetime`."""
    import pystac

    geometry, bbox = footprint(task.geobox)
    item = pystac.Item(
        id=str(task.uuid),
        geometry=geometry,
        bbox=bbox,
        datetime=task.period.start.replace(tzinfo=UTC),
        properties=_properties(task, info, now),
        stac_extensions=sorted(
            uri for name, uri in EXTENSIONS.items() if name != "processing" or info.software
        ),
    )
    product = task.product
    if product.href:
        item.add_link(
            pystac.Link("product_overview", product.href, "application/json", product.name)
        )
    for asset in assets:
        item.add_asset(
            asset.key,
            pystac.Asset(
                href=asset.name,
                title=asset.key,
                media_type=asset.media_type,
                roles=list(asset.roles),
                extra_fields=_asset_fields(task, asset),
            ),
        )
    doc = item.to_dict(include_self_link=False, transform_hrefs=False)
    # by hand: with a self link of its own pystac would make the relative hrefs absolute
    doc["links"].append({"rel": "self", "href": self_href, "type": "application/geo+json"})
    return json.dumps(doc, separators=(",", ":"), allow_nan=False, default=str).encode()


def _properties(task: Task, info: RunInfo, now: datetime) -> dict[str, Any]:
    product, period = task.product, task.period
    properties: dict[str, Any] = {
        "title": task.stem,
        "odc:file_format": "GeoTIFF",
        "odc:product_family": product.product_family,
        "odc:producer": product.producer,
        **product.properties,
        "dtr:start_datetime": _instant(period.start),
        "dtr:end_datetime": _instant(period.end),
        "start_datetime": _instant(period.start),
        "end_datetime": _instant(period.end),
        "odc:processing_datetime": now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "odc:region_code": task.region_code,
        "odc:product": product.name,
        "odc:dataset_version": product.version,
        "odc:lineage": {"inputs": [str(u) for u in task.source_ids]},
        **_projection(task),
    }
    if info.software:
        properties["processing:software"] = dict(sorted(info.software.items()))
    properties["odc_stats:device"] = info.device
    if info.config_hash:
        properties["odc_stats:config_hash"] = info.config_hash
    properties.update(info.extra)
    return properties


def _projection(task: Task) -> dict[str, Any]:
    geobox = task.geobox
    epsg = geobox.crs.to_epsg() if geobox.crs is not None else None
    fields: dict[str, Any] = {"proj:code": f"EPSG:{epsg}" if epsg else None}
    if not epsg and geobox.crs is not None:
        fields["proj:wkt2"] = geobox.crs.to_wkt()
    fields["proj:shape"] = list(geobox.shape)
    fields["proj:transform"] = [*(float(v) for v in geobox.transform[:6]), 0.0, 0.0, 1.0]
    return fields


def _asset_fields(task: Task, asset: AssetFile) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if asset.band is not None:
        band: dict[str, Any] = {"data_type": np.dtype(asset.band.dtype).name}
        if asset.band.nodata is not None:
            band["nodata"] = json_nodata(asset.band.nodata)
        band["unit"] = asset.band.units
        fields |= band
        fields["raster:bands"] = [
            {**band, "spatial_resolution": abs(float(task.geobox.resolution.x))}
        ]
    fields |= asset.extra
    fields["file:size"] = asset.size
    fields["file:checksum"] = MULTIHASH_SHA256 + asset.sha256
    return fields


def json_nodata(value: float) -> float | int | str:
    """Nodata as STAC writes it: JSON has no NaN."""
    if value != value:  # noqa: PLR0124 - NaN is the one unequal to itself
        return "nan"
    if value in (float("inf"), float("-inf")):
        return "inf" if value > 0 else "-inf"
    return int(value) if float(value).is_integer() else float(value)


def _instant(when: datetime) -> str:
    return when.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
