"""From finished blocks to a committed tile: COGs, pictures, checksums, then the STAC item."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np

from odc_stats_gpu.errors import Cancelled, ConfigError, DataError
from odc_stats_gpu.model import Block, OutputBand, RunInfo, Task
from odc_stats_gpu.output._backlog import Backlog
from odc_stats_gpu.output._codec import Codec
from odc_stats_gpu.output._gdal import GdalImage
from odc_stats_gpu.output._options import asks_for, cog_options
from odc_stats_gpu.output._publish import ITEM_SUFFIX, Publisher
from odc_stats_gpu.output._pyramid import Pyramid
from odc_stats_gpu.output._rgba import Thumbnail, to_rgba
from odc_stats_gpu.output._spool import Spool
from odc_stats_gpu.output._stac import AssetFile
from odc_stats_gpu.output._store import ChangedError, Store
from odc_stats_gpu.telemetry import fault_point, stage

if TYPE_CHECKING:
    import xarray as xr

_RGBA = OutputBand("rgba", "uint8", None)
_DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "int64", "float32", "float64")
_STRIP = 1 << 19
"""Pixels coloured at a time."""
_UPLOADS = 4
"""Files put at the same time: hides the latency of S3; each holds up to 5 parts of 8 MiB."""
Array = np.ndarray[Any, Any]
Rgb = tuple[Sequence[str], Sequence[float]]


class _Image(Protocol):
    """A file in the making: our own pyramid or GDAL's."""

    job_bytes: int
    """Memory that each job of `put` holds until it has run."""

    def put(self, row: int, col: int, pixels: Array) -> list[Callable[[], None]]: ...
    def complete(self) -> None: ...
    def chunks(self) -> tuple[int, Iterator[bytes]]: ...


@dataclass(frozen=True, slots=True)
class Written:
    """What a committed tile consists of."""

    uri: str
    """Address of the STAC item."""
    files: tuple[str, ...]
    """Paths relative to the location; the checksums and the item are the last two."""
    bytes: int
    """Their sizes, summed."""


def item_uri(task: Task, store: Store) -> str:
    """Address of the tile's STAC item."""
    return store.uri(task.path(ITEM_SUFFIX))


def is_done(task: Task, store: Store) -> bool:
    """Whether the tile is finished: its STAC item is the commit mark. Raises StoreError."""
    return store.exists(task.path(ITEM_SUFFIX))


class TileWriter:
    """Collects the blocks of one tile and publishes it, or leaves nothing behind.

    `cog` are the options of RunConfig.cog, `rgb` three band names and the clamp of their values.
    Tiles of the COGs are compressed by `threads` threads of its own while later blocks compute;
    `scratch` (default: TMPDIR) takes what is too big for memory. With `shared` others may be at the
    same tile: what a failed attempt has put is left, lest their files are deleted.
    Raises ConfigError for options that can't be honoured.
    """

    def __init__(
        self,
        task: Task,
        bands: Sequence[OutputBand],
        store: Store,
        *,
        cog: Mapping[str, Any],
        rgb: Rgb | None = None,
        info: RunInfo | None = None,
        threads: int = 2,
        scratch: Path | None = None,
        shared: bool = False,
    ) -> None:
        self._shared = shared
        self._task, self._store, self._info = task, store, info or RunInfo()
        self._bands = tuple(_with_nodata(b) for b in bands)
        self._rgb = rgb
        self._spool = Spool(scratch)
        self._images: dict[str, _Image] = {}
        for band in self._bands:
            self._images[band.name] = self._image(band, cog, scratch)
        shape = _shape(task)
        self._thumbnail: Thumbnail | None = None
        if rgb is not None:
            unknown = sorted(set(rgb[0]) - {b.name for b in self._bands})
            if unknown:
                known = [b.name for b in self._bands]
                raise ConfigError(f"rgb_bands: no output band {unknown[0]!r}", f"known: {known}")
            self._thumbnail = Thumbnail(shape)
            if asks_for(cog, "rgba"):
                self._images["rgba"] = GdalImage(
                    task.geobox, 4, "uint8", None, cog_options(cog, _RGBA, shape), scratch
                )
        store.sweep(task.path(""), alone=not shared)
        endings = [*(f"_{name}.tif" for name in self._images), "_thumbnail.jpg", ".sha1"]
        self._publisher = Publisher(task, store, endings)
        self._pool = ThreadPoolExecutor(max(1, threads), thread_name_prefix="encode")
        self._backlog = Backlog(self._pool)

    def _image(self, band: OutputBand, cog: Mapping[str, Any], scratch: Path | None) -> _Image:
        options = cog_options(cog, band, _shape(self._task))
        codec = Codec.from_options(options.creation, np.dtype(band.dtype))
        geobox = self._task.geobox
        if codec is None:
            return GdalImage(geobox, 1, band.dtype, band.nodata, options, scratch)
        return Pyramid(geobox, band, options, codec, self._spool, scratch)

    def put(self, block: Block, ds: xr.Dataset) -> None:
        """Take over one block: a Dataset of the output bands with dims (y, x), in any order.

        The pixels are copied before this returns. Thread-safe; waits only when compression is far
        behind. Raises DataError when a band is missing or of another shape or type than promised.
        """
        pixels = {band.name: _pixels(ds, band, block) for band in self._bands}
        for name, values in pixels.items():
            image = self._images[name]
            for job in image.put(block.y0, block.x0, values):
                self._backlog.add(job, image.job_bytes)
        if self._rgb is not None and self._thumbnail is not None:
            with stage("encode"):
                self._draw(block, pixels, self._rgb, self._thumbnail)
        fault_point("block_put")

    def _draw(
        self, block: Block, pixels: Mapping[str, Array], rgb: Rgb, thumbnail: Thumbnail
    ) -> None:
        """Add a block to the pictures, a strip at a time: the arithmetic takes 40 bytes a pixel."""
        names, clamp = rgb
        nodata = {b.name: b.nodata for b in self._bands}
        step = max(1, _STRIP // block.shape[1])
        for y in range(0, block.shape[0], step):
            rgba = to_rgba(
                [pixels[n][y : y + step] for n in names], [nodata[n] for n in names], clamp
            )
            thumbnail.put(block.y0 + y, block.x0, rgba)
            if "rgba" in self._images:
                self._images["rgba"].put(block.y0 + y, block.x0, rgba)

    def commit(self, check: Callable[[], None] | None = None) -> Written:
        """Publish everything, the item last; `check` may raise Cancelled before assets and item.

        When it fails nothing of this attempt stays: neither an item nor assets. Raises
        OvertakenError when somebody else has finished the tile since this writer was made, and
        ChangedError when somebody else is writing it.
        """
        try:
            self._backlog.wait()
            for image in self._images.values():
                self._backlog.add(image.complete)
            self._backlog.wait()
            return self._publish(check or (lambda: None))
        except BaseException as exc:
            self._discard(exc)
            raise
        finally:
            self.abort()

    def abort(self) -> None:
        """Stop encoding and drop everything temporary; safe to call twice, and after `commit`."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._images = {}
        self._spool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.abort()

    def _publish(self, check: Callable[[], None]) -> Written:
        publisher, task = self._publisher, self._task
        check()
        fault_point("before_assets")
        publisher.begin()
        assets = self._assets()
        if self._thumbnail is not None:
            data = self._thumbnail.jpeg()
            assets.append(
                publisher.asset(
                    "thumbnail", len(data), [data], suffix=".jpg", extra=self._picture_fields()
                )
            )
        item, sums = publisher.documents(assets, self._info)
        publisher.put(task.path(".sha1"), sums)
        fault_point("before_item")
        check()
        publisher.finish(item)
        fault_point("item_written")
        self._store.sweep(task.path(""), alone=True)  # nobody else can finish this tile any more
        files = (*(a.path for a in assets), task.path(".sha1"), publisher.item_path)
        total = sum(a.size for a in assets) + len(sums) + len(item)
        return Written(self._store.uri(publisher.item_path), files, total)

    def _assets(self) -> list[AssetFile]:
        """Put all COGs, a few at a time; the first failure stops the others."""
        with ThreadPoolExecutor(_UPLOADS, thread_name_prefix="upload") as pool:
            try:
                running = [pool.submit(self._asset, name) for name in self._images]
                ended, _ = wait(running, return_when=FIRST_EXCEPTION)
                for failure in [f.exception() for f in ended]:
                    if failure is not None:
                        raise self._publisher.failure or failure
                return [f.result() for f in running]
            except BaseException:
                self._publisher.stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _asset(self, name: str) -> AssetFile:
        band = next((b for b in self._bands if b.name == name), None)
        extra = self._picture_fields() if name == "rgba" else None
        return self._publisher.asset(name, *self._images[name].chunks(), band=band, extra=extra)

    def _picture_fields(self) -> dict[str, Any]:
        """What a picture shows, so that a reader can draw other dates alike."""
        names, clamp = self._rgb or ((), ())
        return {
            "odc_stats:rgb_bands": list(names),
            "odc_stats:rgb_clamp": [float(v) for v in clamp],
        }

    def _discard(self, exc: BaseException) -> None:
        """Take back the assets of a failed attempt."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        # a lost lease means that another worker may be writing the same files: leave them to it
        if not self._shared and not isinstance(exc, (Cancelled, ChangedError)):
            self._publisher.take_back()


def _shape(task: Task) -> tuple[int, int]:
    height, width = task.geobox.shape
    return (int(height), int(width))


def _with_nodata(band: OutputBand) -> OutputBand:
    """The band as it is written: floats without nodata are tagged NaN, as the incumbent's."""
    dtype = np.dtype(band.dtype)
    if dtype.name not in _DTYPES:
        raise ConfigError(
            f"band {band.name!r}: a GeoTIFF can't hold {dtype.name}", f"use one of {_DTYPES}"
        )
    if dtype.kind == "f":
        return band if band.nodata is not None else _replace(band, float("nan"))
    if band.nodata is not None:
        info = np.iinfo(dtype)
        if not (info.min <= band.nodata <= info.max and float(band.nodata).is_integer()):
            raise ConfigError(
                f"band {band.name!r}: nodata {band.nodata} is no value of {dtype.name}",
                f"choose one from {info.min} to {info.max}",
            )
    return band


def _replace(band: OutputBand, nodata: float) -> OutputBand:
    return OutputBand(band.name, band.dtype, nodata, band.units, band.categorical)


def _pixels(ds: xr.Dataset, band: OutputBand, block: Block) -> Array:
    """Values of one band on the host, checked against what was promised."""
    if band.name not in ds:
        raise DataError(
            f"the plugin returned no band {band.name!r}, only {sorted(map(str, ds.data_vars))}",
            "output_bands() and reduce() of the plugin must agree",
        )
    data = ds[band.name].data
    values = data.get() if hasattr(data, "get") else np.asarray(data)  # CuPy arrays have get()
    if values.shape != block.shape or values.dtype != np.dtype(band.dtype):
        raise DataError(
            f"band {band.name!r} of block {block.slices} is {values.dtype} {values.shape}, "
            f"promised were {band.dtype} {block.shape}",
            "output_bands() and reduce() of the plugin must agree",
        )
    return values
