"""One face over both readers: open a band file, hold it against its document, read windows."""

from __future__ import annotations

import math
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from affine import Affine

from odc_stats_gpu.errors import DataError
from odc_stats_gpu.ingest._decode import byte_ranges, read_window
from odc_stats_gpu.ingest._ranges import Remote
from odc_stats_gpu.ingest._sources import (
    LocalFile,
    close_sources,
    damaged,
    header_of,
    refused,
    source_of,
)
from odc_stats_gpu.ingest._tiff import TiffError, TiffHeader
from odc_stats_gpu.ingest._verify import verify
from odc_stats_gpu.ingest._window import Window
from odc_stats_gpu.model import Grid
from odc_stats_gpu.telemetry import stage

if TYPE_CHECKING:
    from odc_stats_gpu.ingest._gdal import GdalFile

_MAX_FILES = 4096
_lock = threading.Lock()
_files: OrderedDict[str, GdalFile] = OrderedDict()
_first_read: list[Callable[[], None]] = []


def on_first_read(callback: Callable[[], None]) -> None:
    """Call `callback` once, from whichever thread it is, when the next pixels are asked for."""
    with _lock:
        _first_read.append(callback)


def _announce() -> None:
    if _first_read:
        with _lock:
            callbacks = list(_first_read)
            _first_read.clear()
        for callback in callbacks:
            callback()


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a file says of one of its bands."""

    shape: tuple[int, int]
    dtype: np.dtype[Any]
    nodata: float | int | None
    transform: Affine | None
    crs: str | None
    """EPSG:n or WKT; None when the file has none or names it in a way only GDAL reads."""


class BandReader:
    """One band of one file, checked against the grid and CRS that its document promises."""

    def __init__(self, uri: str, layer: int, grid: Grid, crs: str) -> None:
        self.uri, self.layer = uri, layer
        self._source: LocalFile | Remote | None = None
        self._header: TiffHeader | None = None
        self._gdal: GdalFile | None = None
        with stage("read"):
            self._open()
        self.facts = self._facts()
        verify(uri, self.facts.shape, self.facts.transform, self.facts.crs, grid, crs)

    def _open(self) -> None:
        try:
            self._source = source_of(self.uri)
            if self._source is not None:
                self._header = header_of(self._source)
        except TiffError as exc:
            raise damaged(self.uri, exc) from None
        except OSError as exc:
            raise refused(self.uri, exc) from None
        if self._header is None:
            self._gdal = _gdal_file(self.uri)

    def read(self, window: Window, check: Callable[[], None]) -> npt.NDArray[Any]:
        """Pixels of a window that lies inside the file; raises DataError naming the file."""
        _announce()
        if self._gdal is not None:
            check()
            with stage("read"):  # GDAL decodes as it reads
                return self._gdal.read(self.layer, window)
        header, source = self._header, self._source
        if header is None or source is None:  # for the type checker: one reader is there
            raise DataError(f"can't read {self.uri}")
        try:
            with source.opened(byte_ranges(header, self.layer, window)) as fetch:
                return read_window(header, fetch, self.layer, window, check)
        except TiffError as exc:
            raise damaged(self.uri, exc) from None
        except OSError as exc:
            raise refused(self.uri, exc) from None

    def _facts(self) -> Facts:
        if self._header is not None:
            h = self._header
            self._check_layer(h.layers)
            crs = None if h.epsg is None else f"EPSG:{h.epsg}" if h.epsg > 0 else _wkt(self.uri)
            return Facts(
                shape=h.shape, dtype=h.dtype, nodata=h.nodata, transform=h.transform, crs=crs
            )
        g = self._gdal
        if g is None:  # for the type checker: one reader is there
            raise DataError(f"can't read {self.uri}")
        self._check_layer(g.layers)
        dtype = np.dtype(g.dtypes[self.layer - 1])
        nodata = g.nodatas[self.layer - 1]
        if nodata is not None and dtype.kind in "iu":
            nodata = int(nodata) if math.isfinite(nodata) and nodata == int(nodata) else None
        return Facts(
            shape=g.shape, dtype=dtype, nodata=nodata, transform=g.transform, crs=g.crs_wkt
        )

    def _check_layer(self, layers: int) -> None:
        if not 1 <= self.layer <= layers:
            raise DataError(
                f"{self.uri} has {layers} bands, its document asks for number {self.layer}",
                "correct the dataset document",
            )


def _wkt(uri: str) -> str | None:
    """A CRS that the GeoTIFF keys spell out number by number: GDAL puts it together."""
    return _gdal_file(uri).crs_wkt


def _gdal_file(uri: str) -> GdalFile:
    with _lock:
        known = _files.get(uri)
    if known is None:
        from odc_stats_gpu.ingest._gdal import GdalFile  # rasterio costs 0.1 s at start

        known = GdalFile(uri)
        with _lock:
            _files[uri] = known
            if len(_files) > _MAX_FILES:
                _files.popitem(last=False)
    return known


def close_readers() -> None:
    """Forget headers and close files and connections; the next read opens them again."""
    with _lock:
        _files.clear()
    gdal = sys.modules.get("odc_stats_gpu.ingest._gdal")
    if gdal is not None:
        gdal.close_gdal_files()
    close_sources()
