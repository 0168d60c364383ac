"""Writes an archive of made-up scenes in the formats in which agencies publish real ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from shapely.geometry import box

from odc_stats_gpu.demo._archive import MARGIN, Archive
from odc_stats_gpu.demo._cog import write_cog
from odc_stats_gpu.demo._documents import Names, document, file_name
from odc_stats_gpu.demo._fields import Places
from odc_stats_gpu.demo._landscape import Ground
from odc_stats_gpu.demo._observe import observe
from odc_stats_gpu.demo._raster import Raster, region
from odc_stats_gpu.demo._schedule import Scene, footprint, inside
from odc_stats_gpu.demo._sensors import SENSORS, Band, Kind, Sensor
from odc_stats_gpu.demo._sky import Sky, Sun, sky_on
from odc_stats_gpu.errors import ConfigError

Progress = Callable[[int, int], None]
_FORMAT = 2  # of the archive: a change makes the next run write it anew
_MARK = ".demo-archive.json"


def write_archive(
    out: Path,
    *,
    kind: Kind,
    tile_pixels: int = 400,
    dates: int = 20,
    seed: int = 0,
    threads: int = 2,
    progress: Progress | None = None,
    year: int = 2021,
    tile_counts: tuple[int, int] = (1, 1),
    bands: Sequence[str] | None = None,
    zlevel: int = 1,
) -> Archive:
    """Write a collection below `out`: product definition, EO3 documents, COGs; the same by seed.

    Every third day has two scenes, so 24 dates make 32. `bands` picks reflectance bands by name
    or alias; masks are always written.
    A folder that already holds exactly this archive is left as it is; another demo archive in it
    is replaced. `progress` is called with (scenes written, scenes in all).
    Raises ConfigError where a size is out of range or `out` holds something else.
    """
    if kind not in SENSORS:
        raise ConfigError(f"no archive of kind {kind!r}", f"choose one of {', '.join(SENSORS)}")
    if not 16 <= tile_pixels <= 4_000 or min(tile_counts) < 1:
        raise ConfigError(
            f"a tile of {tile_pixels} pixels, {tile_counts} tiles",
            "16 to 4000 pixels, 1 tile or more",
        )
    chosen = _choose(SENSORS[kind], bands)
    out = Path(out)
    archive = Archive(
        out, kind, tile_pixels, dates, seed, year, tile_counts, tuple(b.name for b in chosen)
    )
    if seed < 0:
        raise ConfigError(f"the seed is {seed}", "choose 0 or more")
    mark = {**asdict(archive), "folder": "", "zlevel": zlevel, "format": _FORMAT}
    mark_text = json.dumps(mark, indent=1, sort_keys=True)
    mark_file = out / f"{archive.product}{_MARK}"
    total = len(archive.scenes)
    if mark_file.exists() and mark_file.read_text() == mark_text and _complete(archive):
        if progress:
            progress(total, total)
        return archive
    definition = out / f"{archive.product}.odc-product.yaml"
    _clear(out, archive.product, mark_file, definition)
    definition.write_text(_yaml(archive.sensor.definition(chosen)))
    _write_scenes(archive, chosen, threads, zlevel, progress)
    mark_file.write_text(mark_text)  # last: an interrupted archive is written again
    return archive


def _choose(sensor: Sensor, wanted: Sequence[str] | None) -> tuple[Band, ...]:
    if wanted is None:
        return sensor.bands
    found = tuple(b for b in sensor.bands if any(w == b.name or w in b.aliases for w in wanted))
    if not found or len(found) < len(set(wanted)):
        known = ", ".join(b.name for b in sensor.bands)
        raise ConfigError(f"bands {list(wanted)} of {sensor.product}", f"choose from {known}")
    return found


def _complete(archive: Archive) -> bool:
    sensor = archive.sensor
    layers = [*archive.bands, sensor.mask, *([sensor.contiguity] if sensor.contiguity else [])]
    for scene, doc in zip(archive.scenes, archive.documents, strict=True):
        names = Names.of(sensor, scene)
        files = [doc, *(doc.parent / file_name(sensor, names, layer) for layer in layers)]
        if not all(file.exists() for file in files):
            return False
    return True


def _clear(out: Path, product: str, mark: Path, definition: Path) -> None:
    """Make room: remove what an earlier demo wrote here, refuse a folder of anyone else's."""
    try:
        if mark.exists():
            shutil.rmtree(out / product, ignore_errors=True)
        elif (out / product).exists() or definition.exists():
            raise ConfigError(
                f"{out} holds a collection {product} that the demo didn't write",
                "choose another folder",
            )
        out.mkdir(parents=True, exist_ok=True)
        mark.write_text("unfinished")
    except OSError as exc:
        raise ConfigError(f"can't write to {out}: {exc}", "choose another folder") from exc


def _yaml(doc: dict[str, Any]) -> str:
    return yaml.safe_dump(doc, sort_keys=False, default_flow_style=None, width=120)


def _write_scenes(
    archive: Archive, bands: tuple[Band, ...], threads: int, zlevel: int, progress: Progress | None
) -> None:
    sensor, land = archive.sensor, archive.landscape
    skies: dict[int, Sky] = {}
    sites: dict[str, tuple[Raster, Ground, Places]] = {}
    half = max(land.n // 2, 64)
    for crs in sorted({s.crs for s in archive.scenes}):
        raster = region(archive.bounds, crs, sensor.res, MARGIN)
        x, y = raster.in_albers()
        places = Places.of(x, y, land.origin, half, land.n * land.cell / half)
        sites[crs] = (raster, land.survey(x, y), places)

    def write(scene: Scene) -> None:
        raster, ground, places = sites[scene.crs]
        _write_scene(archive, bands, scene, raster, ground, places, skies[scene.day], zlevel)

    with ThreadPoolExecutor(max(1, threads)) as pool:
        days = sorted({s.day for s in archive.scenes})
        drawn = pool.map(lambda d: sky_on(archive.seed, d, land, Sun.on(d)), days)
        skies.update(zip(days, drawn, strict=True))
        for done, _ in enumerate(pool.map(write, archive.scenes), 1):
            if progress:
                progress(done, len(archive.scenes))


def _write_scene(
    archive: Archive,
    bands: tuple[Band, ...],
    scene: Scene,
    region_raster: Raster,
    ground: Ground,
    places: Places,
    sky: Sky,
    zlevel: int,
) -> None:
    sensor = archive.sensor
    swath, frame = footprint(archive.kind, scene, region_raster.bounds)
    rng = np.random.default_rng([archive.seed, 41, scene.number])
    west, south, east, north = swath.intersection(frame).bounds
    pad = rng.integers(1, max(2, min(20, region_raster.shape[0] // 30)), 4) * sensor.res
    extent = (west - pad[0], south - pad[1], east + pad[2], north + pad[3])
    if archive.kind == "sentinel2":
        extent = frame.bounds
    rows, cols = region_raster.part(extent, 2)
    raster = region_raster.window(rows, cols)
    margin = inside(swath, *raster.centres())
    sun = Sun.on(scene.day)
    seen = observe(
        sensor, bands, scene, ground.window(rows, cols), places.window(rows, cols), sky, sun,
        margin, archive.seed,
    )  # fmt: skip
    names = Names.of(sensor, scene)
    folder = archive.folder / names.folder
    folder.mkdir(parents=True, exist_ok=True)
    steps = {b.name: b.step for b in bands}
    layers = {name: (image, sensor.nodata, False) for name, image in seen.bands.items()}
    layers[sensor.mask] = (seen.mask, 0, True)
    steps[sensor.mask] = sensor.mask_step
    if sensor.contiguity and seen.contiguity is not None:
        layers[sensor.contiguity] = (seen.contiguity, 255, True)
        steps[sensor.contiguity] = 1
    for name, (image, nodata, classes) in layers.items():
        transform = raster.transform * raster.transform.scale(steps[name])
        write_cog(
            folder / file_name(sensor, names, name), image, transform, scene.crs, nodata,
            classes=classes, zlevel=zlevel,
        )  # fmt: skip
    valid = swath.buffer(sensor.res, join_style="mitre").intersection(box(*raster.bounds))
    doc = document(
        sensor, scene, names, seed=archive.seed, sun=sun, transform=raster.transform,
        shape=raster.shape, footprint=valid, steps=steps, shares=seen.shares,
    )  # fmt: skip
    path = folder / f"{names.label}.odc-metadata.yaml"
    path.write_text("---\n" + _yaml(doc))
