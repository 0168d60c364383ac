"""Compression of one tile: predictor, then deflate, zstd or LZW, byte-compatible with TIFF."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import imagecodecs
import numpy as np

_TAGS = {"NONE": 1, "LZW": 5, "DEFLATE": 8, "ZSTD": 50000}
_LEVELS = {0: 0, 1: 1, 12: 12}
"""GDAL's zlevel to libdeflate's; between 1 and 12 GDAL's is one lower."""
_HARMLESS = frozenset({"JPEG_QUALITY", "WEBP_LEVEL", "WEBP_LOSSLESS", "NUM_THREADS", "TILED"})
"""Creation options that don't change a file compressed by one of these."""


@dataclass(frozen=True, slots=True)
class Codec:
    """How tiles are compressed."""

    compress: str
    predictor: int
    level: int

    @classmethod
    def from_options(cls, creation: Mapping[str, Any], dtype: np.dtype[Any]) -> Self | None:
        """The codec for GTiff creation options, or None where only GDAL can honour them."""
        rest = set(creation) - _HARMLESS - {"COMPRESS", "PREDICTOR", "ZLEVEL", "ZSTD_LEVEL"}
        compress = str(creation["COMPRESS"])
        if rest or compress not in _TAGS or dtype.kind not in "iuf" or dtype.itemsize > 8:
            return None
        try:
            predictor = int(creation.get("PREDICTOR", 1))
            zlevel = int(creation.get("ZLEVEL", 6))
            zstd = int(creation.get("ZSTD_LEVEL", 9))
        except (TypeError, ValueError):
            return None
        fits = predictor == 1 or predictor == 2 or (predictor == 3 and dtype.kind == "f")  # noqa: PLR1714
        if not fits or not 0 <= zlevel <= 12 or not 1 <= zstd <= 22:
            return None
        if compress == "NONE":
            predictor = 1
        level = zstd if compress == "ZSTD" else _LEVELS.get(zlevel, zlevel + 1)
        return cls(compress, predictor, level)

    @property
    def tag(self) -> int:
        """Value of the TIFF tag Compression."""
        return _TAGS[self.compress]

    def encode(self, pixels: np.ndarray[Any, Any]) -> bytes:
        """Compress a whole tile (y, x); releases the GIL."""
        data: Any = np.ascontiguousarray(pixels)
        if self.predictor == 2:
            # differences of the bits: equal to those of the values for integers
            data = imagecodecs.delta_encode(data.view(f"u{data.itemsize}"), axis=-1)
        elif self.predictor == 3:
            data = imagecodecs.floatpred_encode(data, axis=-1)
        if self.compress == "DEFLATE":
            return bytes(imagecodecs.deflate_encode(data, level=self.level))
        if self.compress == "ZSTD":
            return bytes(imagecodecs.zstd_encode(data, level=self.level))
        if self.compress == "LZW":
            return bytes(imagecodecs.lzw_encode(data))
        return bytes(data.tobytes())
