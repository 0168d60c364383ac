"""The task database as `run` and `publish-tasks` see it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import UUID

from odc_stats_gpu.errors import ConfigError, DataError
from odc_stats_gpu.model import Dataset, OutputProduct, Product, Task, TileIndex, TimeRange
from odc_stats_gpu.tasks._grids import NamedGrid, Resolution
from odc_stats_gpu.tasks._runfilter import parse_run_filter, passes
from odc_stats_gpu.tasks._solar import utc_offset
from odc_stats_gpu.tasks._store import StoreReader


class TaskDb:
    """Read a task database: its grid, its products, its tasks. Threads may share one."""

    def __init__(self, store: StoreReader) -> None:
        self._store = store

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open a local file.

        Raises ConfigError when it is absent and DataError when it is no task database, has no or
        an unknown format version, or is cut short.
        """
        if "://" in str(path) and not str(path).startswith("file://"):
            raise ConfigError(f"the task database {path} is not local", "download it first")
        return cls(StoreReader(Path(str(path).removeprefix("file://"))))

    @property
    def path(self) -> Path:
        """The file."""
        return self._store.path

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """What save-tasks was asked for: grid, freq, tiles, temporal_range, query."""
        doc = self._store.doc(b"info", b"stats/config")
        return doc if isinstance(doc, dict) else {}

    @cached_property
    def grid(self) -> NamedGrid:
        """The tile grid."""
        grids = self._store.docs("grid/")
        name = self.config.get("grid") or (next(iter(grids)) if len(grids) == 1 else None)
        if name not in grids:
            raise DataError(
                f"{self.path} has no grid {name!r}, it has {sorted(grids)}",
                "write it again with save-tasks",
            )
        return NamedGrid.from_doc(str(name), grids[name])

    @cached_property
    def products(self) -> Mapping[str, Product]:
        """Definitions of the input products, by name."""
        return {name: Product.from_doc(doc) for name, doc in self._store.docs("product/").items()}

    @cached_property
    def _groups(self) -> dict[TileIndex, bytes]:
        """Task -> key of its group, sorted by (period, x, y) as the rows of the csv."""
        prefix = f"{self.grid.name}/"
        short: dict[str, str] = {}
        rows: list[tuple[str, int, int, bytes]] = []
        for key, _ in self._store.items(b"groups", prefix.encode()):
            try:
                period, x, y = key.decode().removeprefix(prefix).split("/")
                if period not in short:
                    short[period] = TimeRange.parse(period).short
                rows.append((period, int(x), int(y), key))
            except (ValueError, ConfigError):
                raise DataError(
                    f"{self.path}: can't read the task key {key!r}",
                    "write it again with save-tasks",
                ) from None
        return {TileIndex(short[period], x, y): key for period, x, y, key in sorted(rows)}

    def indexes(self) -> list[TileIndex]:
        """All tasks, sorted by (period, x, y): position is the row number of the csv."""
        return list(self._groups)

    def __len__(self) -> int:
        return len(self._groups)

    def task(
        self,
        index: TileIndex,
        product: OutputProduct,
        *,
        resolution: Resolution | None = None,
        dataset_filters: str | None = None,
    ) -> Task:
        """One task with its scenes in order of time, then id.

        `resolution` replaces the grid's pixel size; `dataset_filters` are JSON objects joined by
        `|`, a scene stays when any of them matches. Raises ConfigError (resolution, filter) or
        DataError (no such tile, missing dataset or product definition, malformed document).
        """
        terms = parse_run_filter(dataset_filters or "")
        geobox = self.grid.geobox((index.x, index.y), resolution or None)
        datasets = [ds for ds in self._datasets(index) if passes(ds, terms)]
        return Task(
            product=product,
            tile=(index.x, index.y),
            geobox=geobox,
            period=TimeRange.parse(index.period),
            datasets=tuple(sorted(datasets, key=lambda ds: (ds.time, ds.id.int))),
            products=self.products,
            utc_offset=utc_offset(self.grid, (index.x, index.y)),
        )

    def _datasets(self, index: TileIndex) -> list[Dataset]:
        key = self._groups.get(index)
        uuids = None if key is None else self._store.raw(b"groups", key)
        if uuids is None:
            raise DataError(f"{self.path} has no tile {index}", f"it has {len(self._groups)} tasks")
        if len(uuids) % 16:
            raise DataError(
                f"{self.path}: the group of {index} is damaged", "write it again with save-tasks"
            )
        ids = dict.fromkeys(uuids[i : i + 16] for i in range(0, len(uuids), 16))
        return [self._dataset(raw, index) for raw in ids]

    def _dataset(self, raw: bytes, index: TileIndex) -> Dataset:
        doc = self._store.doc(b"ds", raw)
        if doc is None:
            raise DataError(
                f"{self.path}: the dataset {UUID(bytes=raw)} of {index} is missing",
                "write it again with save-tasks",
            )
        if doc.get("product") not in self.products:
            raise DataError(
                f"{self.path}: no product definition of {doc.get('product')!r}, "
                f"which dataset {UUID(bytes=raw)} needs",
                "write it again with save-tasks",
            )
        uris = [doc["uri"]] if doc.get("uri") else list(doc.get("uris") or ())
        if not uris or not isinstance(doc.get("metadata"), dict):
            raise DataError(
                f"{self.path}: the dataset {UUID(bytes=raw)} has no location or no metadata",
                "write it again with save-tasks",
            )
        return Dataset.from_doc(doc["metadata"], uris[0])

    def close(self) -> None:
        """Close the file."""
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()
