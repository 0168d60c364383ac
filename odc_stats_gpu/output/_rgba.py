"""Pictures of a tile: bands stretched between the clamp's ends to 8 bits."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def valid_mask(band: Array, nodata: float | None) -> Array:
    """Pixels that hold a value: neither nodata nor NaN."""
    valid = np.ones(band.shape, bool) if band.dtype.kind != "f" else ~np.isnan(band)
    if nodata is not None and nodata == nodata:  # noqa: PLR0124 - NaN is the one unequal to itself
        valid &= band != nodata
    return valid


def stretch(band: Array, clamp: Sequence[float]) -> Array:
    """Clip to the clamp and scale it to 0..255, truncated as the incumbent does, top included."""
    lo, hi = (np.float32(v) for v in clamp)
    if not hi > lo:
        return np.zeros(band.shape, np.uint8)
    scaled = np.clip(np.nan_to_num(band.astype(np.float32), nan=float(lo)), lo, hi) - lo
    # multiplying first keeps the clamp's upper end at exactly 255
    return (scaled * np.float32(255) / (hi - lo)).astype(np.uint8)


def to_rgba(
    bands: Sequence[Array], nodata: Sequence[float | None], clamp: Sequence[float]
) -> Array:
    """Three bands (y, x) to uint8 (4, y, x): red, green, blue, alpha 255 where all are valid."""
    valid = np.logical_and.reduce([valid_mask(b, n) for b, n in zip(bands, nodata, strict=True)])
    colors = [np.where(valid, stretch(b, clamp), np.uint8(0)) for b in bands]
    return np.stack([*colors, np.where(valid, np.uint8(255), np.uint8(0))])


class Thumbnail:
    """Means of step x step pixels of an rgba image, collected block by block in any order."""

    def __init__(self, shape: tuple[int, int], side: int = 512) -> None:
        self._step = max(1, -(-max(shape) // side))
        height, width = (-(-n // self._step) for n in shape)
        self._sums = np.zeros((4, height, width), np.uint32)  # integers: order doesn't matter
        self._lock = threading.Lock()

    def put(self, row: int, col: int, rgba: Array) -> None:
        """Add (4, y, x) uint8."""
        valid = (rgba[3] != 0).astype(np.uint8)
        sums = np.stack([*(rgba[:3] * valid), valid]).astype(np.uint32)
        for axis, first in ((1, row), (2, col)):
            size = sums.shape[axis]
            # columns of the small image that this block touches begin at these of its own
            starts = np.arange(-(first % self._step), size, self._step).clip(0)
            sums = np.add.reduceat(sums, starts, axis)
        y, x = row // self._step, col // self._step
        with self._lock:
            self._sums[:, y : y + sums.shape[1], x : x + sums.shape[2]] += sums

    def rgb(self) -> Array:
        """The picture (y, x, 3) uint8, black without data."""
        sums = self._sums.astype(np.int64)
        count = np.maximum(sums[3], 1)
        mean = (2 * sums[:3] + count) // (2 * count)
        return np.ascontiguousarray(mean.astype(np.uint8).transpose(1, 2, 0))

    def jpeg(self) -> bytes:
        """The picture as JPEG, quality 85 as the incumbent's."""
        import imagecodecs

        return bytes(imagecodecs.jpeg8_encode(self.rgb(), level=85))
