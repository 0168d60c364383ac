"""Tile grids: the built-in ones by name, custom ones as `crs;resolution;shape`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from odc.geo import resyx_, xy_
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from odc.geo.gridspec import GridSpec
from pyproj.exceptions import CRSError

from odc_stats_gpu.errors import ConfigError, DataError

Resolution = str | float | Sequence[float]

# family: CRS, tile size in metres, origin (x, y) of tile 0,0's bottom-left corner, pixel sizes
_FAMILIES: dict[str, tuple[str, int, tuple[int, int], tuple[int, ...]]] = {
    "au": ("EPSG:3577", 96_000, (-2_688_000, -5_472_000), (10, 20, 30, 60)),
    "au_extended": ("EPSG:3577", 96_000, (-4_416_000, -6_912_000), (10, 20, 30, 60)),
    "au_extended_s2": ("EPSG:3577", 32_000, (-4_416_000, -6_912_000), (10, 20, 40, 80)),
    "global": ("EPSG:6933", 96_000, (-17_376_000, -7_392_000), (10, 20, 30, 60)),
    "africa": ("EPSG:6933", 96_000, (-17_376_000, -7_392_000), (10, 20, 30, 60)),
}
_Entry = tuple[str, int, tuple[int, int], int]  # CRS, tile size, origin, pixel size


def _table() -> dict[str, _Entry]:
    out: dict[str, _Entry] = {"albers_au_25": ("EPSG:3577", 100_000, (0, 0), 25)}
    for family, (crs, size, origin, pixels) in _FAMILIES.items():
        out[family] = (crs, size, origin, size)  # one pixel per tile: an index grid
        for px in pixels:
            out[f"{family}_{px}"] = (crs, size, origin, px)
    return out


BUILT_IN = _table()
"""Built-in grids by name (underscore spelling)."""

_LONGEST_NAME = 400  # LMDB keys hold 511 bytes, and the group key adds period and tile


@dataclass(frozen=True, slots=True)
class NamedGrid:
    """A tile grid and the name it is stored under. Tile (x, y): x grows east, y grows north."""

    name: str
    spec: GridSpec = field(hash=False)

    def geobox(self, tile: tuple[int, int], resolution: Resolution | None = None) -> GeoBox:
        """Pixel grid of one tile, at another pixel size when `resolution` is given."""
        grid = self if resolution is None else self.with_resolution(resolution)
        return grid.spec.tile_geobox(tile)

    def with_resolution(self, resolution: Resolution) -> NamedGrid:
        """The same tiles in pixels of another size.

        `30`, `-30,30` (y, x) or `30x30`; raises ConfigError when it doesn't divide the tile.
        """
        try:
            ry, rx = _resolution(resolution)
        except ValueError:
            raise ConfigError(
                f"can't read the resolution {resolution!r}",
                "write a pixel size such as 30 or -30,30",
            ) from None
        size = self.spec.tile_size
        ny, nx = round(size.y / abs(ry)), round(size.x / rx)
        if not (_fits(ny, abs(ry), size.y) and _fits(nx, rx, size.x)):
            raise ConfigError(
                f"impossible resolution {resolution!r} for tiles of {size.x:g} x {size.y:g}",
                "the tile has to be a whole number of pixels wide and high",
            )
        return NamedGrid(
            self.name, GridSpec(self.spec.crs, (ny, nx), resyx_(ry, rx), self.spec.origin)
        )

    def to_doc(self) -> dict[str, Any]:
        """As stored in a task database: tile_size, resolution and origin in y, x order."""
        spec = self.spec
        return {
            "crs": str(spec.crs),
            "tile_size": [spec.tile_size.y, spec.tile_size.x],
            "resolution": [spec.resolution.y, spec.resolution.x],
            "origin": [spec.origin.y, spec.origin.x],
        }

    @classmethod
    def from_doc(cls, name: str, doc: Mapping[str, Any]) -> Self:
        """Read what `to_doc` wrote; raises DataError."""
        try:
            (ty, tx), (ry, rx), (oy, ox) = (doc[k] for k in ("tile_size", "resolution", "origin"))
            shape = (round(ty / abs(ry)), round(tx / abs(rx)))
            return cls(name, GridSpec(doc["crs"], shape, resyx_(ry, rx), xy_(float(ox), float(oy))))
        except (KeyError, TypeError, ValueError, ZeroDivisionError, CRSError) as exc:
            raise DataError(
                f"the stored grid {name!r} can't be read: {exc}", "write the database again"
            ) from None


def parse_grid(text: str) -> NamedGrid:
    """A built-in grid by name (dashes or underscores), or `crs;resolution;shape`.

    The stored name is the text as typed, with `;` replaced by `_`. Raises ConfigError.
    """
    text = text.strip()
    entry = BUILT_IN.get(text.replace("-", "_"))
    if entry is not None:
        crs, size, (ox, oy), px = entry
        shape = (size // px, size // px)
        return NamedGrid(text, GridSpec(crs, shape, resyx_(-px, px), xy_(float(ox), float(oy))))
    remedy = (
        f"built-in grids: {', '.join(sorted(BUILT_IN))}; "
        "custom: 'crs;resolution;shape', for example epsg:3857;30;5000 "
        "or epsg:6933;-10x10;9600x9600"
    )
    parts = [p.strip() for p in text.split(";")]
    if len(parts) != 3:
        raise ConfigError(f"unknown grid {text!r}", remedy)
    name = text.replace(";", "_")
    try:
        ry, rx = _pair(parts[1])
        ny, nx = _shape(parts[2])
        spec = GridSpec(CRS(parts[0]), (ny, nx), resyx_(ry, rx), xy_(0.0, 0.0))
    except (ValueError, CRSError) as exc:
        raise ConfigError(f"can't read the grid {text!r}: {exc}", remedy) from None
    if "/" in name or len(name.encode()) > _LONGEST_NAME:
        raise ConfigError(
            f"the grid {text[:60]!r} can't be a key of the database", "use an EPSG code"
        )
    return NamedGrid(name, spec)


def _resolution(value: Resolution) -> tuple[float, float]:
    """(y, x), x positive. Of two values with one negative the negative one is y."""
    if isinstance(value, str):
        parts = [float(p) for p in value.strip().lower().replace("x", ",").split(",")]
    else:
        parts = [float(value)] if isinstance(value, (int, float)) else [float(v) for v in value]
    if len(parts) == 1:
        parts *= 2
    if len(parts) != 2 or not all(math.isfinite(p) and p for p in parts):
        raise ValueError(value)
    y, x = parts
    if x < 0 < y:
        y, x = x, y
    return -abs(y), abs(x)


def _pair(text: str) -> tuple[float, float]:
    """Resolution of a custom grid: `r` is (-r, r), `yxx` is taken as written."""
    parts = [float(p) for p in text.lower().split("x")]
    y, x = (-abs(parts[0]), abs(parts[0])) if len(parts) == 1 else parts
    if not (math.isfinite(y) and y and math.isfinite(x) and x > 0):
        raise ValueError(f"resolution {text!r}")
    return y, x


def _shape(text: str) -> tuple[int, int]:
    """Pixels of a tile: `n` or `nyxnx`."""
    parts = [int(p) for p in text.lower().split("x")]
    ny, nx = parts * 2 if len(parts) == 1 else parts
    if ny < 1 or nx < 1:
        raise ValueError(f"shape {text!r}")
    return ny, nx


def _fits(pixels: int, pixel: float, size: float) -> bool:
    return pixels >= 1 and abs(pixels * pixel - size) <= 1e-8 * max(1.0, size)
