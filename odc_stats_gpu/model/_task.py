"""A unit of work: one tile, one period, the scenes that fall into it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import NamedTuple, Self
from uuid import UUID, uuid5

from odc.geo.geobox import GeoBox

from odc_stats_gpu.errors import ConfigError
from odc_stats_gpu.model._dataset import Dataset, Product
from odc_stats_gpu.model._product import OutputProduct
from odc_stats_gpu.model._time import TimeRange

_NAMESPACE = UUID("6f34c6f4-13d6-43c0-8e4e-42b6c13203af")  # the incumbent's, so ids stay stable


class TileIndex(NamedTuple):
    """Name of a task inside its database. Sorts by period, then x, then y."""

    period: str
    x: int
    y: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `2019--P1Y/3/-4`, with commas, or `x+003/y-004/2019--P1Y`; raises ConfigError."""
        parts = [p.strip() for p in re.split(r"[/,]", text.strip())]
        try:
            period, x, y = parts if "--P" in parts[0].upper() else (parts[2], parts[0], parts[1])
            return cls(TimeRange.parse(period).short, int(x.lstrip("xX")), int(y.lstrip("yY")))
        except (ValueError, IndexError):
            raise ConfigError(
                f"can't read the tile {text!r}", "write period/x/y, for example 2019--P1Y/41/13"
            ) from None

    def __str__(self) -> str:
        """As in an SQS message: 2019--P1Y/03/04."""
        return f"{self.period}/{self.x:02d}/{self.y:02d}"


@dataclass(frozen=True, slots=True)
class Task:
    """Everything needed to make one tile; picklable, no open handles."""

    product: OutputProduct
    tile: tuple[int, int]
    """Tile index (x, y) on the grid."""
    geobox: GeoBox
    """Pixel grid of the output."""
    period: TimeRange
    datasets: tuple[Dataset, ...] = field(repr=False)
    products: Mapping[str, Product] = field(repr=False, hash=False)
    """Definitions of the input products, by name."""
    utc_offset: timedelta = timedelta(0)
    """Local solar time minus UTC at the tile's centre, whole hours."""

    @property
    def index(self) -> TileIndex:
        """The task's name."""
        return TileIndex(self.period.short, *self.tile)

    @property
    def region_code(self) -> str:
        """Name of the tile in file names."""
        return self.product.region_code(*self.tile)

    @property
    def source_ids(self) -> tuple[UUID, ...]:
        """Ids hashed into the task's own: a dataset's lineage where it has one, else itself."""
        ids: dict[UUID, None] = {}
        for ds in self.datasets:
            ids.update(dict.fromkeys(ds.sources or (ds.id,)))
        return tuple(ids)

    @property
    def uuid(self) -> UUID:
        """Deterministic id: the incumbent's recipe over product, tile, time and sources."""
        lines = [
            self.product.name,
            self.product.version,
            "",
            f"tile=({self.tile[0]}, {self.tile[1]})",
            f"time={self.period.short}",
            *sorted(str(u) for u in self.source_ids),
        ]
        return uuid5(_NAMESPACE, "\n".join(line.lower() for line in lines))

    @property
    def folder(self) -> str:
        """Folder relative to the output location: the region code cut in half, then the period."""
        code = self.region_code
        half = len(code) // 2
        return f"{code[:half]}/{code[half:]}/{self.period.short}"

    @property
    def stem(self) -> str:
        """Start of every file name of the tile."""
        tail = f"_{self.product.maturity}" if self.product.maturity else ""
        return f"{self.product.short_name}_{self.region_code}_{self.period.short}{tail}"

    def path(self, suffix: str) -> str:
        """Path of one output below the location; suffix e.g. `_red.tif`, `.stac-item.json`."""
        return f"{self.folder}/{self.stem}{suffix}"
