"""Our own COG of one band, made while the blocks come in: tiles, then overviews, in any order."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from odc.geo.geobox import GeoBox

from odc_stats_gpu.errors import DataError
from odc_stats_gpu.model import OutputBand
from odc_stats_gpu.output._codec import Codec
from odc_stats_gpu.output._gdal import rasterio_crs
from odc_stats_gpu.output._options import CogOptions
from odc_stats_gpu.output._overviews import AVERAGED, gdal_overviews, halve
from odc_stats_gpu.output._spool import Span, Spool, plane
from odc_stats_gpu.output._tiff import Image, cog_chunks, geo_tags

Array = np.ndarray[Any, Any]


@dataclass(slots=True)
class _Pending:
    """A tile that isn't complete yet."""

    pixels: Array
    missing: int
    """Pixels still to come."""


@dataclass(slots=True)
class _Level:
    """One resolution."""

    shape: tuple[int, int]
    block: tuple[int, int]
    halves: bool
    """Whether the next level is made from each tile of this one as soon as it is complete."""
    whole: Array | None = None
    """All pixels of the last level that comes in by tiles, when GDAL makes the rest from it."""
    pending: dict[tuple[int, int], _Pending] = field(default_factory=dict)
    spans: dict[tuple[int, int], Span] = field(default_factory=dict)

    @property
    def grid(self) -> tuple[int, int]:
        return tuple(-(-n // b) for n, b in zip(self.shape, self.block, strict=True))  # type: ignore[return-value]


class Pyramid:
    """Takes rectangles of one band; hands out jobs that compress the tiles they complete."""

    def __init__(
        self,
        geobox: GeoBox,
        band: OutputBand,
        options: CogOptions,
        codec: Codec,
        spool: Spool,
        scratch: Path | None,
    ) -> None:
        self._geobox, self._band, self._codec, self._spool = geobox, band, codec, spool
        self._options = options
        self._dtype = np.dtype(band.dtype)
        self.job_bytes = options.block[0] * options.block[1] * self._dtype.itemsize
        self._lock = threading.Lock()
        self._levels = self._plan(tuple(geobox.shape), scratch)

    def _plan(self, shape: tuple[int, ...], scratch: Path | None) -> list[_Level]:
        """Levels; each halves into the next while sides are even, then GDAL takes over."""
        options = self._options
        height, width = shape
        factors = (1, *options.levels)
        doubling = all(b == 2 * a for a, b in itertools.pairwise(factors))
        own = doubling and (
            options.resampling == "nearest"
            or (options.resampling == "average" and self._dtype.name in AVERAGED)
        )
        levels: list[_Level] = []
        streaming = True
        for number, factor in enumerate(factors):
            size = (-(-height // factor), -(-width // factor))
            block = options.block if factor == 1 else (options.ovr_block, options.ovr_block)
            last = number == len(factors) - 1
            halves = own and not last and size[0] % 2 == 0 and size[1] % 2 == 0
            level = _Level(size, block, halves and streaming)
            if streaming and not last and not level.halves:
                level.whole = plane(size, self._dtype, scratch)
                streaming = False
            levels.append(level)
        return levels

    def put(self, row: int, col: int, pixels: Array) -> list[Callable[[], None]]:
        """Copy a rectangle of the full image in; returns the work that is now possible."""
        return self._insert(0, row, col, pixels)

    def chunks(self) -> tuple[int, Iterator[bytes]]:
        """Size and bytes of the COG after `complete`; raises DataError when pixels lack."""
        images = []
        for level in self._levels:
            rows, cols = level.grid
            if len(level.spans) != rows * cols:
                raise DataError(
                    f"band {self._band.name!r}: {rows * cols - len(level.spans)} of {rows * cols} "
                    "tiles are incomplete",
                    "every block of the tile must be put exactly once",
                )
            spans = [level.spans[r, c] for r in range(rows) for c in range(cols)]
            images.append(Image(level.shape, level.block, spans))
        geo = geo_tags(rasterio_crs(self._geobox), self._geobox.transform)
        return cog_chunks(images, self._spool, self._codec, self._dtype, self._band.nodata, geo)

    def _insert(self, number: int, row: int, col: int, pixels: Array) -> list[Callable[[], None]]:
        level = self._levels[number]
        if level.whole is not None:
            level.whole[row : row + pixels.shape[0], col : col + pixels.shape[1]] = pixels
        (bh, bw), (height, width) = level.block, level.shape
        jobs: list[Callable[[], None]] = []
        for r in range(row // bh, -(-(row + pixels.shape[0]) // bh)):
            for c in range(col // bw, -(-(col + pixels.shape[1]) // bw)):
                y0, x0 = max(row, r * bh), max(col, c * bw)
                y1 = min(row + pixels.shape[0], (r + 1) * bh)
                x1 = min(col + pixels.shape[1], (c + 1) * bw)
                with self._lock:
                    tile = level.pending.get((r, c))
                    if tile is None:
                        inside = min(bh, height - r * bh) * min(bw, width - c * bw)
                        tile = _Pending(np.empty((bh, bw), self._dtype), inside)
                        level.pending[r, c] = tile
                tile.pixels[y0 - r * bh : y1 - r * bh, x0 - c * bw : x1 - c * bw] = pixels[
                    y0 - row : y1 - row, x0 - col : x1 - col
                ]
                with self._lock:
                    tile.missing -= (y1 - y0) * (x1 - x0)
                    if tile.missing == 0:
                        del level.pending[r, c]
                        jobs.append(self._job(number, r, c, tile.pixels))
        return jobs

    def _job(self, number: int, r: int, c: int, pixels: Array) -> Callable[[], None]:
        return lambda: self._complete(number, r, c, pixels)

    def _complete(self, number: int, r: int, c: int, pixels: Array) -> None:
        """Compress a complete tile, and pass its half on to the next level."""
        level = self._levels[number]
        height = min(level.block[0], level.shape[0] - r * level.block[0])
        width = min(level.block[1], level.shape[1] - c * level.block[1])
        # beyond the image's edge the last pixels go on: cheap to compress, and always the same
        pixels[:height, width:] = pixels[:height, width - 1 : width]
        pixels[height:] = pixels[height - 1]
        span = self._spool.append(self._codec.encode(pixels))
        with self._lock:
            level.spans[r, c] = span
        if level.halves:
            half = halve(pixels[:height, :width], self._band.nodata, self._options.resampling)
            top, left = r * level.block[0] // 2, c * level.block[1] // 2
            for job in self._insert(number + 1, top, left, half):
                job()

    def complete(self) -> None:
        """Once all jobs are done: by GDAL, levels below one of odd sides or of other resampling."""
        for number, level in enumerate(self._levels):
            if level.whole is None:
                continue
            factors = (1, *self._options.levels)
            rest = [f // factors[number] for f in factors[number + 1 :]]
            below = gdal_overviews(level.whole, self._band.nodata, rest, self._options.resampling)
            level.whole = None
            for i, pixels in enumerate(below, number + 1):
                for job in self._insert(i, 0, 0, pixels):
                    job()
