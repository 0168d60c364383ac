"""What a demo archive holds: a function of its kind, size and seed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from pyproj import Transformer

from odc_stats_gpu.demo._documents import Names
from odc_stats_gpu.demo._fields import Array
from odc_stats_gpu.demo._landscape import Landscape
from odc_stats_gpu.demo._raster import ALBERS, Raster
from odc_stats_gpu.demo._schedule import Scene, plan_year
from odc_stats_gpu.demo._sensors import SENSORS, Kind, Sensor
from odc_stats_gpu.demo._sky import Sun

MARGIN = 24
"""Pixels around the tiles that scenes reach."""
_PLACE = (150.0, -33.0)  # longitude of the border between the zones, and an inland latitude


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
        extent = 1.25 * max(east - west, north - south) + 2.5 * MARGIN * self.resolution
        centre = ((west + east) / 2, (south + north) / 2)
        salt = list(SENSORS).index(self.kind)
        return Landscape((self.seed, salt), centre, extent, self.resolution)

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
