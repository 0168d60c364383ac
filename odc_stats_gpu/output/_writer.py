"""From finished blocks to a committed tile: COGs, pictures, checksums, then the STAC item."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from odc_stats_gpu.errors import Cancelled, OdcStatsError
from odc_stats_gpu.model import Block, OutputBand, RunInfo, Task
from odc_stats_gpu.output._gdal import encode_gdal
from odc_stats_gpu.output._options import asks_for, cog_options
from odc_stats_gpu.output._rgba import thumbnail, to_rgba
from odc_stats_gpu.output._stac import COG_TYPE, AssetFile, render_item
from odc_stats_gpu.output._store import Store, content_type
from odc_stats_gpu.telemetry import fault_point, stage

if TYPE_CHECKING:
    import xarray as xr

ITEM_SUFFIX = ".stac-item.json"
RGBA = OutputBand("rgba", "uint8", None)


@dataclass(frozen=True, slots=True)
class Written:
    """What a committed tile consists of."""

    uri: str
    """Address of the STAC item."""
    files: tuple[str, ...]
    """Paths relative to the location, in the order of writing; the item is the last."""
    bytes: int
    """Their sizes, summed."""


def item_uri(task: Task, store: Store) -> str:
    """Address of the tile's STAC item."""
    return store.uri(task.path(ITEM_SUFFIX))


def is_done(task: Task, store: Store) -> bool:
    """Whether the tile is finished: its STAC item is the commit mark. Raises StoreError."""
    return store.exists(task.path(ITEM_SUFFIX))


class TileWriter:
    """Collects the blocks of one tile and publishes it, or leaves nothing."""

    def __init__(
        self,
        task: Task,
        bands: Sequence[OutputBand],
        store: Store,
        *,
        cog: Mapping[str, Any],
        rgb: tuple[tuple[str, str, str], tuple[float, float]] | None = None,
        info: RunInfo | None = None,
        threads: int = 2,
        scratch: Path | None = None,
    ) -> None:
        self._task, self._bands, self._store = task, tuple(bands), store
        self._cog, self._rgb, self._info = cog, rgb, info or RunInfo()
        shape = tuple(task.geobox.shape)
        self._options = {b.name: cog_options(cog, b, shape) for b in self._bands}
        self._pixels = {b.name: np.zeros(shape, b.dtype) for b in self._bands}
        self._lock = threading.Lock()
        self._put: list[str] = []
        store.sweep(task.path(""))

    def put(self, block: Block, ds: xr.Dataset) -> None:
        """Take over one block: a Dataset of the output bands with dims (y, x)."""
        for name, target in self._pixels.items():
            target[block.slices] = ds[name].values
        fault_point("block_put")

    def commit(self, check: Callable[[], None] | None = None) -> Written:
        """Publish everything, the item last; `check` may raise Cancelled before assets and item."""
        try:
            return self._commit(check or (lambda: None))
        except BaseException as exc:
            self._discard(exc)
            raise

    def abort(self) -> None:
        """Drop everything temporary."""
        self._pixels = {}

    def _commit(self, check: Callable[[], None]) -> Written:
        task = self._task
        check()
        fault_point("before_assets")
        item_path = task.path(ITEM_SUFFIX)
        if self._store.exists(item_path):
            self._store.delete(item_path)
        assets: list[AssetFile] = []
        for band in self._bands:
            with stage("encode"):
                data = encode_gdal(
                    self._pixels[band.name][None],
                    task.geobox,
                    band.nodata,
                    self._options[band.name],
                )
            assets.append(
                self._asset(band.name, f"_{band.name}.tif", data, COG_TYPE, ("data",), band)
            )
        assets += self._pictures()
        item = render_item(task, assets, self._store.uri(item_path), self._info, datetime.now(UTC))
        lines = [(hashlib.sha1(item).hexdigest(), item_path.rpartition("/")[2])]  # noqa: S324
        lines += [(a.sha1, a.name) for a in assets]
        text = "".join(f"{digest}  {name}\n" for digest, name in lines).encode()
        self._publish(task.path(".sha1"), text)
        fault_point("before_item")
        check()
        self._publish(item_path, item)
        fault_point("item_written")
        total = sum(a.size for a in assets) + len(text) + len(item)
        return Written(self._store.uri(item_path), tuple(self._put), total)

    def _pictures(self) -> list[AssetFile]:
        if self._rgb is None:
            return []
        names, clamp = self._rgb
        nodata = {b.name: b.nodata for b in self._bands}
        rgba = to_rgba([self._pixels[n] for n in names], [nodata[n] for n in names], clamp)
        out = []
        if asks_for(self._cog, "rgba"):
            options = cog_options(self._cog, RGBA, rgba.shape[1:])
            data = encode_gdal(rgba, self._task.geobox, None, options)
            out.append(self._asset("rgba", "_rgba.tif", data, COG_TYPE, ("visual",)))
        data = thumbnail(rgba)
        out.append(self._asset("thumbnail", "_thumbnail.jpg", data, "image/jpeg", ("thumbnail",)))
        return out

    def _asset(
        self, key: str, suffix: str, data: bytes, media: str, roles: tuple[str, ...],
        band: OutputBand | None = None,
    ) -> AssetFile:  # fmt: skip
        path = self._task.path(suffix)
        self._publish(path, data)
        fault_point("asset_written")
        sha1 = hashlib.sha1(data).hexdigest()  # noqa: S324 - the incumbent's format
        return AssetFile(
            key, path, len(data), sha1, hashlib.sha256(data).hexdigest(), media, roles, band
        )

    def _publish(self, path: str, data: bytes) -> None:
        with stage("write"):
            self._put.append(path)
            self._store.put(path, data, content_type(path))

    def _discard(self, exc: BaseException) -> None:
        self.abort()
        # a lost lease means that another worker may be writing the same files: leave them to it
        if isinstance(exc, Cancelled):
            return
        with contextlib.suppress(OdcStatsError):
            if not is_done(self._task, self._store):
                for path in self._put:
                    self._store.delete(path)


def writer_bytes(
    shape: tuple[int, int], bands: Sequence[OutputBand], block_shape: tuple[int, int]
) -> int:
    """Peak host memory of a writer in bytes, for the memory plan."""
    del block_shape
    return 2 * shape[0] * shape[1] * sum(np.dtype(b.dtype).itemsize for b in bands)
