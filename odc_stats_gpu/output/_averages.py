"""Means of 2x2 pixels as GDAL rounds them, compiled."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

Array = np.ndarray[Any, Any]


@njit(nogil=True, cache=True)
def average_int(src: Array, marked: bool, nodata: Any, out: Array) -> None:
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
def average_float(src: Array, nodata: Any, above: Any, out: Array) -> None:
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
