"""One overview from the next finer one, pixel for pixel as GDAL makes it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import rasterio
from numba import njit
from rasterio.enums import Resampling
from rasterio.io import MemoryFile

Array = np.ndarray[Any, Any]
AVERAGED = frozenset({"uint8", "int8", "uint16", "int16", "uint32", "int32", "float32"})
"""Pixel types for which `halve` is known to equal GDAL; float64 differs in the last bit."""


def halve(pixels: Array, nodata: float | None, resampling: str) -> Array:
    """(y, x) with even sides to (y/2, x/2), by `nearest` (top left) or `average`.

    Averages are of the valid pixels; integers round half away from zero. A mean that would be
    taken for nodata moves to the next value above it.
    """
    if resampling == "nearest":
        return np.ascontiguousarray(pixels[::2, ::2])
    out = np.empty((pixels.shape[0] // 2, pixels.shape[1] // 2), pixels.dtype)
    if pixels.dtype.kind == "f":
        empty = np.float32(math.nan if nodata is None else nodata)
        _average_float(pixels, empty, np.nextafter(empty, np.float32(math.inf)), out)
    else:
        marked = nodata is not None and float(nodata).is_integer()
        low, high = np.iinfo(pixels.dtype).min, np.iinfo(pixels.dtype).max
        marked = marked and low <= int(nodata or 0) <= high
        _average_int(pixels, marked, np.int64(nodata if marked and nodata is not None else 0), out)
    return out


@njit(nogil=True, cache=True)
def _average_int(src: Array, marked: bool, nodata: Any, out: Array) -> None:
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            total = np.int64(0)
            count = 0
            for dy in range(2):
                for dx in range(2):
                    value = np.int64(src[2 * y + dy, 2 * x + dx])
                    if not marked or value != nodata:
                        total += value
                        count += 1
            if count == 0:
                out[y, x] = nodata
                continue
            # half away from zero: floor((2|t| + n) / 2n) with the sign of t
            mean = (2 * abs(total) + count) // (2 * count)
            if total < 0:
                mean = -mean
            if marked and mean == nodata:
                mean += 1
            out[y, x] = mean


@njit(nogil=True, cache=True)
def _average_float(src: Array, nodata: Any, above: Any, out: Array) -> None:
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            total = 0.0
            count = 0
            for dy in range(2):
                for dx in range(2):
                    value = src[2 * y + dy, 2 * x + dx]
                    if value != nodata and not np.isnan(value):
                        total += value
                        count += 1
            if count == 0:
                out[y, x] = nodata
            else:
                mean = np.float32(total / count)
                out[y, x] = above if mean == nodata else mean


def gdal_overviews(
    pixels: Array, nodata: float | None, factors: list[int], resampling: str
) -> list[Array]:
    """Overviews of (y, x) by GDAL, each from the one before: any size, factor and resampling."""
    profile = {
        "driver": "GTiff",
        "width": pixels.shape[1],
        "height": pixels.shape[0],
        "count": 1,
        "dtype": pixels.dtype.name,
        "nodata": nodata,
        "tiled": True,
        "transform": rasterio.Affine.scale(2),  # anything but the identity, which warns
        "bigtiff": "IF_SAFER",
    }
    out = []
    with rasterio.Env(GDAL_NUM_THREADS="1"), MemoryFile() as file:
        with file.open(**profile) as dst:
            dst.write(pixels, 1)
            dst.build_overviews(factors, Resampling[resampling])
        for level in range(len(factors)):
            with file.open(overview_level=level) as src:
                out.append(src.read(1))
    return out
