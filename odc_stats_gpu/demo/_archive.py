"""Writes an archive of made-up scenes in the formats in which agencies publish real ones."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from pyproj import Transformer
from shapely.geometry import box

from odc_stats_gpu.demo._cog import write_cog
from odc_stats_gpu.demo._documents import Names, document, file_name
from odc_stats_gpu.demo._fields import Array, Places
from odc_stats_gpu.demo._landscape import Ground, Landscape
from odc_stats_gpu.demo._observe import observe
from odc_stats_gpu.demo._raster import ALBERS, Raster, region
from odc_stats_gpu.demo._schedule import Scene, footprint, inside, plan_year
from odc_stats_gpu.demo._sensors import SENSORS, Band, Kind, Sensor
from odc_stats_gpu.demo._sky import Sky, Sun, sky_on
from odc_stats_gpu.errors import ConfigError

Progress = Callable[[int, int], None]
_FORMAT = 1  # of the archive: a change makes the next run write it anew
_PLACE = (150.0, -33.0)  # longitude of the border between the zones, and an inland latitude
_MARGIN = 24  # pixels around the tiles that scenes reach
_MARK = "archive.json"


@dataclass(frozen=True)
class Archive:
    """A written archive; everything is a function of these values."""

    folder: Path
    kind: Kind
    tile_pixels: int
    dates: int
    seed: int
    year: int
    tile_counts: tuple[int, int]
    """Tiles side by side: (east-west, north-south)."""
    bands: tuple[str, ...]
    """Canonical names of the reflectance bands that were written."""

    @property
    def sensor(self) -> Sensor:
        """The collection's description."""
        return SENSORS[self.kind]

    @property
    def product(self) -> str:
        """Name of the only input product."""
        return self.sensor.product

    @property
    def products(self) -> tuple[str, ...]:
        """Names of the input products."""
        return (self.product,)

    @property
    def mask_band(self) -> str:
        """Canonical name of the class band."""
        return self.sensor.mask

    @property
    def resolution(self) -> int:
        """Finest pixel size of the scenes and of the grid, metres."""
        return self.sensor.res

    @property
    def grid(self) -> str:
        """The grid as save-tasks reads it: Albers, tile (0, 0) at the CRS origin."""
        return f"{ALBERS};{self.resolution};{self.tile_pixels}"

    @property
    def tiles(self) -> tuple[tuple[int, int], ...]:
        """Tile indices (x, y) that scenes cover; each needs scenes of both zones."""
        size = self.tile_pixels * self.resolution
        x, y = Transformer.from_crs("epsg:4326", ALBERS, always_xy=True).transform(*_PLACE)
        x0, y0 = math.floor(x / size), math.floor(y / size)
        across, up = self.tile_counts
        return tuple((x0 + i, y0 + j) for i in range(across) for j in range(up))

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """West, south, east, north of all tiles, Albers metres."""
        size = float(self.tile_pixels * self.resolution)
        (x0, y0), (x1, y1) = self.tiles[0], self.tiles[-1]
        return (x0 * size, y0 * size, (x1 + 1) * size, (y1 + 1) * size)

    @cached_property
    def scenes(self) -> tuple[Scene, ...]:
        """Scenes in order of time."""
        return tuple(plan_year(self.kind, self.year, self.dates, self.seed))

    @property
    def documents(self) -> tuple[Path, ...]:
        """EO3 document of every scene, in the order of `scenes`."""
        names = [Names.of(self.sensor, s) for s in self.scenes]
        return tuple(self.folder / n.folder / f"{n.label}.odc-metadata.yaml" for n in names)

    @cached_property
    def landscape(self) -> Landscape:
        """The ground below."""
        west, south, east, north = self.bounds
        extent = 1.25 * max(east - west, north - south) + 2.5 * _MARGIN * self.resolution
        centre = ((west + east) / 2, (south + north) / 2)
        return Landscape(self.seed, centre, extent, self.resolution)

    def truth(self, tile: tuple[int, int] | None = None) -> dict[str, Array]:
        """Mean cloud-free reflectance of a tile over the days of the archive.

        Band name to float32 (y, x) x 10000 on the tile's own pixels, without noise.
        """
        x, y = tile or self.tiles[0]
        n, res = self.tile_pixels, self.resolution
        raster = Raster(ALBERS, res, x * n * res, (y + 1) * n * res, (n, n))
        ground = self.landscape.survey(*raster.in_albers())
        columns = {b.name: b.column for b in self.sensor.bands if b.name in self.bands}
        days = sorted({s.day for s in self.scenes})
        total = {c: np.zeros((n, n), np.float32) for c in columns.values()}
        for day in days:
            for c, image in ground.reflectance(day, Sun.on(day).vector, sorted(total)).items():
                total[c] += image / len(days)
        return {name: total[c] for name, c in columns.items()}


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

    Every third day has two scenes, so 24 dates make 32. `bands` picks reflectance bands by name or alias.
    A folder that already holds exactly this archive is left as it is; another demo archive in it
    is replaced. `progress` is called with (scenes written, scenes in all).
    Raises ConfigError where a size is out of range or `out` holds something else.
    """
    if kind not in SENSORS:
        raise ConfigError(f"no archive of kind {kind!r}", f"choose one of {', '.join(SENSORS)}")
    if not 16 <= tile_pixels <= 4_000 or min(tile_counts) < 1:
        raise ConfigError(
            f"a tile of {tile_pixels} pixels, {tile_counts} tiles", "16 to 4000 pixels, 1 tile or more"
        )
    chosen = _choose(SENSORS[kind], bands)
    out = Path(out)
    archive = Archive(
        out, kind, tile_pixels, dates, seed, year, tile_counts, tuple(b.name for b in chosen)
    )
    mark = {**asdict(archive), "folder": "", "zlevel": zlevel, "format": _FORMAT}
    mark_text = json.dumps(mark, indent=1, sort_keys=True)
    mark_file = out / _MARK
    total = len(archive.scenes)
    if mark_file.exists() and mark_file.read_text() == mark_text and _complete(archive):
        if progress:
            progress(total, total)
        return archive
    _clear(out, archive.product)
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{archive.product}.odc-product.yaml").write_text(_yaml(archive.sensor.definition()))
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
    return all(doc.exists() for doc in archive.documents)


def _clear(out: Path, product: str) -> None:
    """Remove what an earlier demo wrote here; refuse anything else's folder."""
    folder = out / product
    if folder.exists():
        if not (out / _MARK).exists() and not (out / f"{product}.odc-product.yaml").exists():
            raise ConfigError(f"{folder} was not written by the demo", "choose another folder")
        shutil.rmtree(folder)
    (out / _MARK).unlink(missing_ok=True)


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
        raster = region(archive.bounds, crs, sensor.res, _MARGIN)
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
