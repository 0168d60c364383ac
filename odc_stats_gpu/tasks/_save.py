"""save-tasks: bin an archive's scenes into tiles and periods, and write the task database."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from odc.geo.geom import Geometry, box

from odc_stats_gpu.errors import ConfigError, OdcStatsError
from odc_stats_gpu.model import Dataset, Product, TileIndex, TimeRange
from odc_stats_gpu.tasks._footprints import Tiler
from odc_stats_gpu.tasks._frequency import WHOLE_ARCHIVE, Binner, binner, whole_archive
from odc_stats_gpu.tasks._grids import NamedGrid, parse_grid
from odc_stats_gpu.tasks._partial import PartialFiles
from odc_stats_gpu.tasks._solar import utc_offset
from odc_stats_gpu.tasks._source import Scene, Source, Span, path_safe
from odc_stats_gpu.tasks._storewrite import StoreWriter
from odc_stats_gpu.tasks._summaries import Row, csv_text, geojson_texts
from odc_stats_gpu.tasks._taskdb import TaskDb
from odc_stats_gpu.tasks._termfilter import property_filter
from odc_stats_gpu.telemetry import stage

TileRange = tuple[tuple[int, int], tuple[int, int]]
"""((x0, x1), (y0, y1)), half open."""

Progress = Callable[[str, int], None]
"""Called with what is counted (`datasets` while streaming, then `tiles`) and the count so far."""

_PAD = timedelta(days=0.6)  # local time differs from UTC by half a day at most
_EVERY = 100  # scenes between two calls of the progress


@dataclass(frozen=True, slots=True)
class SaveSummary:
    """What save_tasks found and wrote; with `tiles == 0` nothing was written."""

    tiles: int
    """Tasks: pairs of tile and period."""
    datasets: int
    """Distinct scenes stored."""
    files: tuple[Path, ...] = ()
    """The database, the csv, one geojson per period."""
    periods: tuple[str, ...] = ()
    seen: int = 0
    """Scenes that the source sent, without repetitions."""
    dropped: Mapping[str, int] = field(default_factory=dict)
    """Scenes left out, by reason."""


def save_tasks(
    source: Source,
    *,
    grid: str | NamedGrid,
    output: str | Path,
    frequency: str = "annual",
    temporal_range: TimeRange | str | None = None,
    tiles: TileRange | str | None = None,
    overwrite: bool = False,
    complevel: int = 6,
    gqa: float | None = None,
    usgs_collection_category: str | None = None,
    predicate: Callable[[Dataset], bool] | None = None,
    progress: Progress | None = None,
) -> SaveSummary:
    """Write `output` (.db), `<base>.csv` and one `<base>-{period}.geojson` per period.

    All years of the archive when there is no `temporal_range`; a range is one of local solar time.
    The files appear together once complete; with `overwrite` they replace those of an earlier run.
    Raises ConfigError for wrong options or an existing file, DataError for a malformed document.
    """
    grid = parse_grid(grid) if isinstance(grid, str) else grid
    within = TimeRange.parse(temporal_range) if isinstance(temporal_range, str) else temporal_range
    tiles = parse_tiles(tiles) if isinstance(tiles, str) else tiles
    bins = binner(frequency or "annual", within)
    output = Path(str(output).removeprefix("file://"))
    base = output.name.removesuffix(".db")
    _check_absent(output, overwrite=overwrite)
    keep = property_filter(gqa, usgs_collection_category)
    if predicate is not None:
        keep["predicate"] = predicate
    products = source.products()
    config: dict[str, Any] = {"grid": grid.name, "freq": frequency or "annual"}
    span: Span | None = None
    if tiles is not None:
        config["tiles"] = tiles
    if within is not None:
        config["temporal_range"] = within.short
        span = (within.start - _PAD, within.after + _PAD)
    config["query"] = _query(source, span)

    tasks = _Tasks(grid, bins, within, tiles)
    used: dict[str, None] = {}
    dropped: Counter[str] = Counter()
    with PartialFiles(output) as partial:
        writer = StoreWriter(partial.main, complevel)
        try:
            for scene in _distinct(source.datasets(span, _area(grid, tiles)), tasks, progress):
                dataset = scene.dataset
                reason = next((name for name, test in keep.items() if not test(dataset)), None)
                if reason is not None:
                    dropped[reason] += 1
                elif not tasks.add(dataset):
                    dropped["outside the tiles or periods"] += 1
                else:
                    used[dataset.product] = None
                    writer.add_dataset(
                        dataset.id.bytes,
                        {"uri": dataset.uri, "product": dataset.product, "metadata": scene.doc},
                    )
            rows = tasks.rows()
            if not rows:
                return SaveSummary(0, 0, seen=tasks.seen, dropped=dict(dropped))
            with stage("write_tasks"):
                info = _info(grid, config, {name: products[name] for name in used}, source)
                writer.finish(info, tasks.groups())
        finally:
            writer.close()
        with stage("write_summaries"):
            partial.write(f"{base}.csv", csv_text(rows))
            for period, text in geojson_texts(rows, grid, tasks.offsets).items():
                partial.write(f"{base}-{period}.geojson", text)
        stale = _stale(output, base) if overwrite else []
        _check_absent(output, overwrite=overwrite)
        files = partial.commit()
    for path in stale:
        if path not in files:
            path.unlink(missing_ok=True)
    if progress is not None:
        progress("tiles", len(rows))
    return SaveSummary(
        tiles=len(rows),
        datasets=tasks.count,
        files=tuple(files),
        periods=tuple(dict.fromkeys(r.index.period for r in rows)),
        seen=tasks.seen,
        dropped=dict(dropped),
    )


def parse_tiles(text: str) -> TileRange:
    """Read `x0:x1,y0:y1`, half open; raises ConfigError."""
    try:
        (x0, x1), (y0, y1) = ([int(v) for v in part.split(":")] for part in text.split(","))
    except ValueError:
        raise ConfigError(
            f"can't read the tiles {text!r}", "write x0:x1,y0:y1, for example 30:40,12:15"
        ) from None
    if x0 >= x1 or y0 >= y1:
        raise ConfigError(f"the tiles {text!r} are none", "the ends x1 and y1 are exclusive")
    return ((x0, x1), (y0, y1))


def output_name(products: str, temporal_range: TimeRange | None = None) -> str:
    """Default file name: `{products}_{range}.db`, or `{products}_all.db` without a range."""
    return f"{path_safe(products)}_{temporal_range.short if temporal_range else 'all'}.db"


class _Tasks:
    """The groups while they grow: per scene one small tuple, shared by all its tasks."""

    def __init__(
        self, grid: NamedGrid, bins: Binner, within: TimeRange | None, tiles: TileRange | None
    ) -> None:
        self.offsets: dict[tuple[int, int], timedelta] = {}
        self.seen = 0
        self.count = 0
        self._grid, self._bins, self._within, self._wanted = grid, bins, within, tiles
        self._tiler = Tiler(grid)
        self._groups: dict[tuple[str, int, int], list[tuple[datetime, bytes]]] = {}
        self._first, self._last = datetime(9999, 12, 31), datetime(1, 1, 1)

    def add(self, dataset: Dataset) -> bool:
        """Put a scene into its tasks; False when it has none."""
        member = (dataset.time, dataset.id.bytes)
        found = False
        for x, y in self._tiler.tiles(dataset):
            if self._wanted is not None and not _inside(x, y, self._wanted):
                continue
            local = dataset.time + self._offset(x, y)
            if self._within is not None and local not in self._within:
                continue
            for period in self._bins(local):
                self._groups.setdefault((period, x, y), []).append(member)
                self._first, self._last = min(self._first, local), max(self._last, local)
                found = True
        self.count += found
        return found

    def _offset(self, x: int, y: int) -> timedelta:
        offset = self.offsets.get((x, y))
        if offset is None:
            offset = self.offsets[(x, y)] = utc_offset(self._grid, (x, y))
        return offset

    def _named(self) -> Iterator[tuple[TileIndex, list[tuple[datetime, bytes]]]]:
        archive = whole_archive(self._first, self._last) if self._groups else ""
        for (period, x, y), members in self._groups.items():
            yield TileIndex(archive if period == WHOLE_ARCHIVE else period, x, y), members

    def rows(self) -> list[Row]:
        """All tasks sorted by (period, x, y)."""
        return sorted(
            (
                Row(
                    index,
                    len(members),
                    len({(t + self.offsets[index[1:]]).date() for t, _ in members}),
                )
                for index, members in self._named()
            ),
            key=lambda row: row.index,
        )

    def groups(self) -> list[tuple[bytes, bytes]]:
        """Keys and uuids as stored, in key order; uuids in order of time, then id."""
        return sorted(
            (
                f"{self._grid.name}/{index.period}/{index.x:+05d}/{index.y:+05d}".encode(),
                b"".join(uuid for _, uuid in sorted(members)),
            )
            for index, members in self._named()
        )


def _distinct(scenes: Iterator[Scene], tasks: _Tasks, progress: Progress | None) -> Iterator[Scene]:
    """Each id once, the first that comes."""
    ids: set[bytes] = set()
    for scene in scenes:
        if scene.dataset.id.bytes in ids:
            continue
        ids.add(scene.dataset.id.bytes)
        tasks.seen += 1
        if progress is not None and tasks.seen % _EVERY == 0:
            progress("datasets", tasks.seen)
        yield scene
    if progress is not None:
        progress("datasets", tasks.seen)


def _inside(x: int, y: int, tiles: TileRange) -> bool:
    (x0, x1), (y0, y1) = tiles
    return x0 <= x < x1 and y0 <= y < y1


def _area(grid: NamedGrid, tiles: TileRange | None) -> Geometry | None:
    """The box of the wanted tiles in the grid's CRS."""
    if tiles is None:
        return None
    (x0, x1), (y0, y1) = tiles
    o, s = grid.spec.origin, grid.spec.tile_size
    return box(o.x + x0 * s.x, o.y + y0 * s.y, o.x + x1 * s.x, o.y + y1 * s.y, grid.spec.crs)


def _query(source: Source, span: Span | None) -> dict[str, Any]:
    query = dict(source.query())
    if span is not None:
        query["time"] = [t.isoformat() for t in span]
    return query


def _info(
    grid: NamedGrid, config: Mapping[str, Any], products: Mapping[str, Product], source: Source
) -> dict[str, Any]:
    """Documents of the `info` database by key."""
    info: dict[str, Any] = {f"grid/{grid.name}": grid.to_doc(), "stats/config": config}
    for name, product in products.items():
        info[f"product/{name}"] = product.definition
    kinds = {_kind(p) for p in products.values()}
    for name, doc in source.metadata_types().items():
        if name in kinds:
            info[f"metadata/{name}"] = doc
    return info


def _kind(product: Product) -> str:
    kind = product.definition.get("metadata_type", "eo3")
    return str(kind["name"] if isinstance(kind, Mapping) else kind)


def _check_absent(output: Path, *, overwrite: bool) -> None:
    if output.exists() and (not overwrite or output.is_dir()):
        raise ConfigError(
            f"the task database {output} exists already", "give --overwrite or another name"
        )


def _stale(output: Path, base: str) -> list[Path]:
    """Geojson files of the database that is about to be replaced."""
    if not output.exists():
        return []
    try:
        with TaskDb.open(output) as old:
            periods = {index.period for index in old.indexes()}
    except OdcStatsError:
        return []  # not one of ours: there is nothing that belongs to it
    return [output.with_name(f"{base}-{period}.geojson") for period in periods]
