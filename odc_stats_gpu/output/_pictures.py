"""Pictures for the report: numbers to colours, colours to PNG, PNG to text."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import imagecodecs
import numpy as np

Array = np.ndarray[Any, Any]

SCALES = {
    "spread": (
        "#0b0724", "#3a0f63", "#731a6d", "#ab2f5e", "#dd5139", "#f58a1f", "#fbc94a", "#fdfcb4",
    ),
    "count": ("#0d1b3d", "#16436f", "#1c6f86", "#2c9a86", "#63bf74", "#b2d95c", "#f4ec6a"),
}  # fmt: skip
"""Colours from low to high; lightness rises evenly, so they also read in grey."""
_BINS = 48


@dataclass(frozen=True, slots=True)
class Map:
    """One band as a picture with its scale."""

    name: str
    title: str
    png: str
    """data: URI."""
    low: str
    high: str
    unit: str
    gradient: str
    """CSS colours of the scale."""
    bars: tuple[int, ...]
    """Histogram between low and high, 0..100."""
    mean: str
    valid: float
    """Share of pixels with a value, 0..1."""


def draw_map(
    name: str,
    values: Array,
    *,
    title: str = "",
    unit: str = "",
    scale: str = "spread",
    limits: tuple[float, float] | None = None,
) -> Map:
    """Draw (y, x) floats, NaN where there is nothing; limits: by default percentiles 2 and 98."""
    good = values[np.isfinite(values)]
    if limits is None:
        low, high = np.percentile(good, (2, 98)) if good.size else (0.0, 1.0)
    else:
        low, high = limits
    if not high > low:
        high = low + (abs(low) or 1) * 0.01
    share = np.clip((values - low) / (high - low), 0, 1)
    colors = _palette(SCALES[scale])
    index = np.where(np.isfinite(share), share * 255, 0).astype(np.uint8)
    rgba = np.concatenate(
        [colors[index], np.where(np.isfinite(values), 255, 0).astype(np.uint8)[..., None]], axis=-1
    )
    bins = _BINS
    if scale == "count" and high - low < _BINS:  # one bar for each number
        bins, low, high = int(high - low) + 1, low - 0.5, high + 0.5
    counts = np.histogram(good, bins, (low, high))[0] if good.size else np.zeros(bins)
    if bins != _BINS:
        low, high = low + 0.5, high - 0.5
    top = counts.max() or 1
    return Map(
        name=name,
        title=title or name,
        png=png(rgba),
        low=number(low),
        high=number(high),
        unit="" if unit == "1" else unit,
        gradient=", ".join(SCALES[scale]),
        bars=tuple(round(100 * float(c) / float(top)) for c in counts),
        mean=number(float(good.mean())) if good.size else "-",
        valid=good.size / values.size,
    )


def png(pixels: Array) -> str:
    """(y, x, 3 or 4) uint8 as a data: URI."""
    data = imagecodecs.png_encode(np.ascontiguousarray(pixels), level=6)
    return "data:image/png;base64," + base64.b64encode(bytes(data)).decode()


def number(value: float) -> str:
    """Three significant digits, whole numbers as such."""
    if abs(value) >= 100 or float(value).is_integer():
        return f"{value:.0f}"
    return f"{value:.3g}"


def _palette(colors: Sequence[str]) -> Array:
    """256 colours (256, 3) between the given ones."""
    anchors = np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in colors], float)
    at = np.linspace(0, len(colors) - 1, 256)
    steps = np.arange(len(colors))
    return np.stack([np.interp(at, steps, anchors[:, i]) for i in range(3)], -1).astype(np.uint8)
