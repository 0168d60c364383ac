"""Pictures of a tile: bands stretched between the clamp's ends to 8 bits."""

from __future__ import annotations

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


def stretch(band: Array, clamp: tuple[float, float]) -> Array:
    """Clip to the clamp and scale it to 0..255, truncated as the incumbent does, top included."""
    lo, hi = (np.float32(v) for v in clamp)
    if not hi > lo:
        return np.zeros(band.shape, np.uint8)
    scaled = np.clip(np.nan_to_num(band.astype(np.float32), nan=float(lo)), lo, hi) - lo
    # multiplying first keeps the clamp's upper end at exactly 255
    return (scaled * np.float32(255) / (hi - lo)).astype(np.uint8)


def to_rgba(
    bands: Sequence[Array], nodata: Sequence[float | None], clamp: tuple[float, float]
) -> Array:
    """Three bands (y, x) to uint8 (4, y, x): red, green, blue, alpha 255 where all are valid."""
    valid = np.logical_and.reduce([valid_mask(b, n) for b, n in zip(bands, nodata, strict=True)])
    colors = [np.where(valid, stretch(b, clamp), np.uint8(0)) for b in bands]
    return np.stack([*colors, np.where(valid, np.uint8(255), np.uint8(0))])


def thumbnail(rgba: Array, side: int = 512) -> bytes:
    """JPEG (quality 85), longer side at most `side`: means of whole pixels, black without data."""
    step = max(1, -(-max(rgba.shape[1:]) // side))
    return jpeg(shrink(rgba, step)[:3].transpose(1, 2, 0))


def shrink(rgba: Array, step: int) -> Array:
    """Means of step x step pixels of (4, y, x), weighted by alpha; a ragged edge is dropped."""
    height, width = (max(1, n // step) for n in rgba.shape[1:])
    step_y, step_x = min(step, rgba.shape[1]), min(step, rgba.shape[2])
    cut = rgba[:, : height * step_y, : width * step_x].astype(np.float32)
    alpha = cut[3:] / 255
    cut[:3] *= alpha
    mean = cut.reshape(4, height, step_y, width, step_x).mean(axis=(2, 4))
    weight = mean[3:] / 255
    out = np.divide(mean[:3], weight, out=np.zeros_like(mean[:3]), where=weight > 0)
    return np.concatenate([np.rint(out), np.rint(mean[3:])]).astype(np.uint8)


def jpeg(picture: Array) -> bytes:
    """JPEG of (y, x, 3) uint8."""
    import imagecodecs

    return bytes(imagecodecs.jpeg8_encode(np.ascontiguousarray(picture), level=85))
