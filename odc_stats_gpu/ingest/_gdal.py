"""Everything the own reader leaves to GDAL: odd codecs, other formats, /vsi addresses."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy.typing as npt
import rasterio
import rasterio.errors
import rasterio.windows
import tenacity

from odc_stats_gpu.errors import DataError
from odc_stats_gpu.ingest._patience import pause
from odc_stats_gpu.ingest._s3 import REMEDY, gdal_session
from odc_stats_gpu.ingest._sources import local_path
from odc_stats_gpu.ingest._window import Window

_ATTEMPTS = 5
_MAX_WAIT = 10.0
"""Seconds between two attempts, at most."""
_MAX_IDLE = 128
_ABSENT = ("code: 404", "key does not exist", "bucket does not exist", "no such file")
_FORBIDDEN = ("code: 401", "code: 403", "access denied", "access key", "credentials", "forbidden")
_OPTIONS: dict[str, Any] = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_PAM_ENABLED": False,
    "GDAL_HTTP_MAX_RETRY": 3,
    "GDAL_HTTP_RETRY_DELAY": 0.5,
    "GDAL_HTTP_CONNECTTIMEOUT": 20,
    "GDAL_HTTP_LOW_SPEED_LIMIT": 1000,
    "GDAL_HTTP_LOW_SPEED_TIME": 60,
}
_lock = threading.Lock()
_idle: OrderedDict[tuple[str, int], Any] = OrderedDict()
_serial = 0


def gdal_path(uri: str) -> str:
    """The address as GDAL writes it: local path or /vsi..."""
    path = local_path(uri)
    if path is not None:
        return path
    if uri.startswith("s3://"):
        return f"/vsis3/{uri.removeprefix('s3://')}"
    return f"/vsicurl/{uri}" if uri.startswith(("http://", "https://")) else uri


def is_remote(uri: str) -> bool:
    """Whether a read can fail for a moment only."""
    return gdal_path(uri).startswith(("/vsis3/", "/vsicurl/", "/vsigs/", "/vsiaz/"))


def gdal_options() -> dict[str, Any]:
    """Options of every read: no listing per file, retries; variables with these names win."""
    return {k: v for k, v in _OPTIONS.items() if k not in os.environ}


def gdal_env(uri: str) -> Any:
    """GDAL's settings of this thread for reading an address; S3 as our own requests go there."""
    if not uri.startswith("s3://"):
        return rasterio.Env(**gdal_options())
    session, options = gdal_session(uri)
    return rasterio.Env(session, **gdal_options(), **options)


class GdalFile:
    """One file, opened as often as threads read it at the same time."""

    def __init__(self, uri: str) -> None:
        self._uri, self._path = uri, gdal_path(uri)
        with self._open() as src:
            self.shape: tuple[int, int] = (src.height, src.width)
            self.layers: int = src.count
            self.dtypes = tuple(src.dtypes)
            self.nodatas = tuple(src.nodatavals)
            self.transform = (
                None if src.crs is None and src.transform.is_identity else src.transform
            )
            self.crs_wkt: str | None = src.crs.to_wkt() if src.crs else None

    def read(self, layer: int, window: Window) -> npt.NDArray[Any]:
        """Pixels of one band (counted from 1); raises DataError."""
        rows, cols = window.shape

        def attempt() -> npt.NDArray[Any]:
            with self._open() as src:
                return src.read(
                    layer, window=rasterio.windows.Window(window.c0, window.r0, cols, rows)
                )

        return self._retried(attempt)

    @contextmanager
    def _open(self) -> Iterator[Any]:
        """A handle that nobody else uses; kept for the next read unless this one failed."""
        with gdal_env(self._uri):
            src = _take(self._path) or self._retried(lambda: rasterio.open(self._path))
            try:
                yield src
            except BaseException:
                src.close()
                raise
            _put(self._path, src)

    def _retried(self, attempt: Any) -> Any:
        tries = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(_ATTEMPTS if is_remote(self._uri) else 1),
            wait=tenacity.wait_random_exponential(multiplier=0.2, max=_MAX_WAIT),
            sleep=pause,
            retry=tenacity.retry_if_exception(_is_transient),
            reraise=True,
        )

        try:
            return tries(attempt)
        except rasterio.errors.RasterioError as exc:
            cause = str(exc.__cause__ or exc).splitlines()[0]
            remedy = _remedy(cause, self._uri)
            raise DataError(f"can't read {self._uri}: {cause}", remedy) from None


def _is_transient(exc: BaseException) -> bool:
    text = f"{exc} {exc.__cause__ or ''}".lower()
    return isinstance(exc, rasterio.errors.RasterioError) and not any(
        word in text for word in _ABSENT + _FORBIDDEN
    )


def _remedy(cause: str, uri: str) -> str:
    low = cause.lower()
    if any(word in low for word in _FORBIDDEN):
        return REMEDY if uri.startswith("s3://") else "check the address and its rights"
    if any(word in low for word in _ABSENT):
        return "restore the file or save the tasks again without that dataset"
    return "restore the file from the archive"


def _take(path: str) -> Any:
    with _lock:
        for key in _idle:
            if key[0] == path:
                return _idle.pop(key)
    return None


def _put(path: str, src: Any) -> None:
    global _serial  # noqa: PLW0603 - numbers the idle handles
    old = None
    with _lock:
        _serial += 1
        _idle[path, _serial] = src
        if len(_idle) > _MAX_IDLE:
            _, old = _idle.popitem(last=False)
    if old is not None:
        old.close()


def close_gdal_files() -> None:
    """Close what is idle."""
    with _lock:
        handles = list(_idle.values())
        _idle.clear()
    for src in handles:
        src.close()
