"""EO3 documents of the scenes, and the names of their files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid5

from affine import Affine
from shapely.geometry import Polygon, mapping

from odc_stats_gpu.demo._schedule import Scene
from odc_stats_gpu.demo._sensors import Sensor
from odc_stats_gpu.demo._sky import Sun

_NAMESPACE = UUID("4f1cf3a5-6a0e-5d0a-9a1c-9d4c0f8f7b11")  # of demo scenes, fixed for good
_PATHS, _ROWS = (90, 89), {"full": 83, "north": 82, "south": 84}
_SQUARES = {55: "55HGC", 56: "56HKH"}
_RELATIVE_ORBITS = (30, 73)


@dataclass(frozen=True, slots=True)
class Names:
    """Folder, label and region code of a scene."""

    folder: str
    label: str
    region: str

    @classmethod
    def of(cls, sensor: Sensor, scene: Scene) -> Names:
        """As the agencies that publish such collections name theirs."""
        day = scene.time
        if sensor.mask == "SCL":
            square = _SQUARES[scene.zone]
            if scene.row == "south":
                square = square[:4] + chr(ord(square[4]) - 1)
            label = f"S2A_{square}_{day:%Y%m%d}_0_L2A"
            folder = f"{square[:2]}/{square[2]}/{square[3:]}/{day:%Y}/{day.month}/{label}"
            return cls(f"{sensor.product}/{folder}", label, square)
        region = f"{_PATHS[scene.orbit]:03d}{_ROWS[scene.row]:03d}"
        label = f"{sensor.product}-0-0_{region}_{day:%Y-%m-%d}_final"
        folder = f"{region[:3]}/{region[3:]}/{day:%Y/%m/%d}"
        return cls(f"{sensor.product}/{folder}", label, region)


def file_name(sensor: Sensor, names: Names, band: str) -> str:
    """Name of a band's file inside the scene's folder."""
    return f"{band}.tif" if sensor.mask == "SCL" else f"{names.label}_{band}.tif"


def document(
    sensor: Sensor,
    scene: Scene,
    names: Names,
    *,
    seed: int,
    sun: Sun,
    transform: Affine,
    shape: tuple[int, int],
    footprint: Polygon,
    steps: Mapping[str, int],
    shares: Mapping[str, float],
) -> dict[str, Any]:
    """EO3 document; `steps` maps each file's band to its pixel size in finest pixels."""
    grids = {"default": _grid(transform, shape, 1)}
    if 2 in steps.values():
        grids[f"g{2 * sensor.res}m"] = _grid(transform, shape, 2)
    measurements: dict[str, Any] = {}
    for band, step in steps.items():
        measurements[band] = {"path": file_name(sensor, names, band)}
        if step == 2:
            measurements[band]["grid"] = f"g{2 * sensor.res}m"
    key = f"{sensor.product} {names.label} {seed} {shape} {tuple(transform)[:6]}"
    half = timedelta(seconds=12)
    properties: dict[str, Any] = {
        "datetime": _stamp(scene.time),
        "dtr:start_datetime": _stamp(scene.time - half),
        "dtr:end_datetime": _stamp(scene.time + half),
        "eo:cloud_cover": shares["cloud"],
        "eo:gsd": float(sensor.res),
        "eo:instrument": sensor.instrument,
        "eo:platform": sensor.platform,
        "eo:sun_azimuth": round(sun.azimuth, 4),
        "eo:sun_elevation": round(sun.elevation, 4),
        "gqa:iterative_mean_xy": round(0.2 + 0.11 * ((scene.number * 7) % 9), 2),
        "odc:dataset_version": "0.0.0",
        "odc:file_format": "GeoTIFF",
        "odc:processing_datetime": _stamp(scene.time + timedelta(days=20)),
        "odc:producer": "example.org",
        "odc:product_family": "ard",
        "odc:region_code": names.region,
        "dea:dataset_maturity": "final",
    }
    if sensor.mask == "SCL":
        properties["sat:relative_orbit"] = _RELATIVE_ORBITS[scene.orbit]
        properties["sentinel:utm_zone"] = scene.zone
        properties["sentinel:latitude_band"] = names.region[2]
        properties["sentinel:grid_square"] = names.region[3:]
    else:
        properties["landsat:wrs_path"] = _PATHS[scene.orbit]
        properties["landsat:wrs_row"] = _ROWS[scene.row]
        properties.update({f"fmask:{name}": value for name, value in shares.items()})
        properties["fmask:snow"] = 0.0
    return {
        "$schema": "https://schemas.opendatacube.org/dataset",
        "id": str(uuid5(_NAMESPACE, key)),
        "label": names.label,
        "product": {"name": sensor.product},
        "crs": scene.crs,
        "geometry": _plain(mapping(footprint)),
        "grids": grids,
        "properties": dict(sorted(properties.items())),
        "measurements": measurements,
        "accessories": {},
        "lineage": {},
    }


def _stamp(when: datetime) -> str:
    return when.strftime("%Y-%m-%dT%H:%M:%S.%f") + "Z"


def _grid(transform: Affine, shape: tuple[int, int], step: int) -> dict[str, Any]:
    scaled = transform * Affine.scale(step)
    return {
        "shape": [shape[0] // step, shape[1] // step],
        "transform": [float(v) for v in tuple(scaled)[:9]],
    }


def _plain(geometry: Mapping[str, Any]) -> dict[str, Any]:
    """Lists of rounded floats: YAML knows no tuples."""
    rings = [
        [[round(float(v), 3) for v in point] for point in ring] for ring in geometry["coordinates"]
    ]
    return {"type": geometry["type"], "coordinates": rings}
