"""One overview from the next finer one, pixel for pixel as GDAL makes it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import rasterio
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
    # imported late: Numba takes most of a second, which the first read need not wait for
    from odc_stats_gpu.output._averages import average_float, average_int

    if resampling == "nearest":
        return np.ascontiguousarray(pixels[::2, ::2])
    out = np.empty((pixels.shape[0] // 2, pixels.shape[1] // 2), pixels.dtype)
    if pixels.dtype.kind == "f":
        empty = np.float32(math.nan if nodata is None else nodata)
        average_float(pixels, empty, np.nextafter(empty, np.float32(math.inf)), out)
    else:
        marked = nodata is not None and float(nodata).is_integer()
        low, high = np.iinfo(pixels.dtype).min, np.iinfo(pixels.dtype).max
        marked = marked and low <= int(nodata or 0) <= high
        average_int(pixels, marked, np.int64(nodata if marked and nodata is not None else 0), out)
    return out


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
