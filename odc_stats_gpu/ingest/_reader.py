"""One face over both readers: open a band file, hold it against its document, read windows."""

from __future__ import annotations

import math
import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import numpy as np
import numpy.typing as npt
import pyproj
from affine import Affine

from odc_stats_gpu.errors import DataError
from odc_stats_gpu.ingest._decode import read_window
from odc_stats_gpu.ingest._gdal import GdalFile, close_gdal_files
from odc_stats_gpu.ingest._tiff import TiffError, TiffHeader, Unsupported, parse_tiff
from odc_stats_gpu.ingest._window import Window, apply
from odc_stats_gpu.model import Grid
from odc_stats_gpu.telemetry import stage

_MAX_HEADERS = 4096
_PIXEL_TOLERANCE = 0.01
_lock = threading.Lock()
_headers: OrderedDict[str, tuple[tuple[int, ...], TiffHeader | None]] = OrderedDict()
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
        self._path = _local_path(uri)
        self._header = self._tiff_header() if self._path is not None else None
        self._gdal = None if self._header is not None else _gdal_file(uri)
        self.facts = self._facts()
        _verify(self, grid, crs)

    def read(self, window: Window, check: Callable[[], None]) -> npt.NDArray[Any]:
        """Pixels of a window that lies inside the file; raises DataError naming the file."""
        _announce()
        if self._gdal is not None:
            check()
            with stage("read"):  # GDAL decodes as it reads
                return self._gdal.read(self.layer, window)
        if self._header is None or self._path is None:  # for the type checker: one reader is there
            raise DataError(f"can't read {self.uri}")
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                return read_window(
                    self._header, lambda at, n: os.pread(fd, n, at), self.layer, window, check
                )
            finally:
                os.close(fd)
        except TiffError as exc:
            raise DataError(
                f"can't read {self.uri}: {exc}", "restore the file from the archive"
            ) from None
        except OSError as exc:
            raise _refused(self.uri, exc) from None

    def _tiff_header(self) -> TiffHeader | None:
        """The parsed header, from the cache while the file is the same; None: GDAL's business."""
        try:
            with stage("read"):
                return self._parse()
        except Unsupported:
            return None
        except TiffError as exc:
            raise DataError(
                f"can't read {self.uri}: {exc}", "restore the file from the archive"
            ) from None
        except OSError as exc:
            raise _refused(self.uri, exc) from None

    def _parse(self) -> TiffHeader | None:
        path = str(self._path)
        stat = Path(path).stat()
        mark = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)
        with _lock:
            known = _headers.get(path)
        if known is not None and known[0] == mark:
            return known[1]
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            header: TiffHeader | None = parse_tiff(lambda at, n: os.pread(fd, n, at), stat.st_size)
        except Unsupported:
            header = None
        finally:
            os.close(fd)
        with _lock:
            _headers[path] = (mark, header)
            if len(_headers) > _MAX_HEADERS:
                _headers.popitem(last=False)
        return header

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


def _verify(reader: BandReader, grid: Grid, crs: str) -> None:
    """Raise DataError where the file isn't what its document says."""
    facts, remedy = reader.facts, "correct the dataset document or restore the file"
    if facts.shape != grid.shape:
        raise DataError(
            f"{reader.uri} has {facts.shape[0]} rows x {facts.shape[1]} columns, its document says"
            f" {grid.shape[0]} x {grid.shape[1]}",
            remedy,
        )
    if facts.transform is not None:
        rows, cols = grid.shape
        xs, ys = np.array([0, cols, 0, cols]), np.array([0, 0, rows, rows])
        x, y = apply(~grid.transform, *apply(facts.transform, xs, ys))
        off = float(max(np.abs(x - xs).max(), np.abs(y - ys).max()))
        if not off <= _PIXEL_TOLERANCE:
            raise DataError(
                f"{reader.uri} lies {off:.2f} pixels off the grid in its document: transform"
                f" {tuple(facts.transform)[:6]}, document {tuple(grid.transform)[:6]}",
                remedy,
            )
    if facts.crs is not None and not _same_crs(facts.crs, crs, grid):
        raise DataError(f"{reader.uri} is in {_short(facts.crs)}, its document says {crs}", remedy)


def _same_crs(a: str, b: str, grid: Grid) -> bool:
    """Whether two CRS put the grid's corners at the same place, whatever they are called."""
    if a.upper() == b.upper():
        return True
    rows, cols = grid.shape
    corners = tuple(
        apply(grid.transform, c, r) for c, r in ((0, 0), (cols, 0), (0, rows), (cols, rows))
    )
    pixel = math.sqrt(abs(grid.transform.determinant))
    return _displacement(a, b, corners) <= 0.1 * pixel


@lru_cache(maxsize=1024)
def _displacement(a: str, b: str, corners: tuple[tuple[float, float], ...]) -> float:
    """CRS units between the same numbers in both CRS; inf if they have nothing in common."""
    try:
        first, second = pyproj.CRS.from_user_input(a), pyproj.CRS.from_user_input(b)
        if first.equals(second, ignore_axis_order=True):
            return 0.0
        xs, ys = (np.array(v) for v in zip(*corners, strict=True))
        to = pyproj.Transformer.from_crs(first, second, always_xy=True)
        x, y = to.transform(xs, ys)
    except pyproj.exceptions.ProjError:
        return math.inf
    moved = float(np.hypot(x - xs, y - ys).max())
    return moved if math.isfinite(moved) else math.inf


def _short(crs: str) -> str:
    return crs if len(crs) < 40 else pyproj.CRS.from_user_input(crs).name


def _wkt(uri: str) -> str | None:
    """A CRS that the GeoTIFF keys spell out number by number: GDAL puts it together."""
    return _gdal_file(uri).crs_wkt


def _gdal_file(uri: str) -> GdalFile:
    with _lock:
        known = _files.get(uri)
    if known is None:
        with stage("read"):
            known = GdalFile(uri)
        with _lock:
            _files[uri] = known
            if len(_files) > _MAX_HEADERS:
                _files.popitem(last=False)
    return known


def _local_path(uri: str) -> str | None:
    """Path of a file on this machine; None for everything else."""
    parsed = urlparse(uri)
    if parsed.scheme == "file":
        return unquote(parsed.path)
    return uri if parsed.scheme == "" and not uri.startswith("/vsi") else None


def _refused(uri: str, exc: OSError) -> DataError:
    """A file that can't be opened or read, in the words of the system."""
    if isinstance(exc, FileNotFoundError):
        return DataError(
            f"no such file: {uri}", "restore it or save the tasks again without that dataset"
        )
    reason = exc.strerror or str(exc)
    return DataError(f"can't read {uri}: {reason}", f"check {Path(_local_path(uri) or uri).parent}")


def close_readers() -> None:
    """Forget headers and close files; the next read opens them again."""
    with _lock:
        _headers.clear()
        _files.clear()
    close_gdal_files()
