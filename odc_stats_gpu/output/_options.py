"""What `cog_opts` asks for one band: merged, named as GDAL names it, checked before any work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from odc_stats_gpu.errors import ConfigError
from odc_stats_gpu.model import COG_DEFAULTS, OutputBand

_OWN = frozenset({"blocksize", "ovr_blocksize", "overview_resampling", "overview_levels"})
_IGNORED = frozenset({"use_windowed_writes", "intermediate_compression", "overrides"})
"""How the incumbent writes its temporary file: no effect on the result."""
_COMPRESS = frozenset(
    {"DEFLATE", "ZSTD", "LZW", "NONE", "JPEG", "WEBP", "LERC", "LERC_DEFLATE", "LERC_ZSTD",
     "LZMA", "PACKBITS", "JXL"}
)  # fmt: skip
_RESAMPLINGS = frozenset(
    {"nearest", "average", "mode", "bilinear", "cubic", "cubic_spline", "lanczos", "gauss", "rms"}
)
_RANGES = {"ZLEVEL": (0, 12), "ZSTD_LEVEL": (1, 22), "PREDICTOR": (1, 3),
           "JPEG_QUALITY": (1, 100), "WEBP_LEVEL": (1, 100)}  # fmt: skip
_LEVELS = (2, 4, 8, 16, 32)


@dataclass(frozen=True, slots=True)
class CogOptions:
    """How one file is laid out and compressed."""

    block: tuple[int, int]
    """Rows and columns of a tile at full resolution, multiples of 16."""
    ovr_block: int
    """Side of a tile of an overview."""
    levels: tuple[int, ...]
    """Decimation of each overview."""
    resampling: str
    """Of the overviews, as GDAL names it."""
    creation: Mapping[str, Any] = field(hash=False)
    """GTiff creation options with upper-case keys, COMPRESS and PREDICTOR among them."""


def merge_options(cog: Mapping[str, Any], band: str) -> dict[str, Any]:
    """Defaults, top-level keys, then the band's own: a dict-valued key or one of `overrides`."""
    merged = {k: v for k, v in {**COG_DEFAULTS, **cog}.items() if not isinstance(v, Mapping)}
    for group in (cog, cog.get("overrides") or {}):
        if isinstance(group.get(band), Mapping):
            merged.update(group[band])
    return {k: v for k, v in merged.items() if k not in _IGNORED}


def asks_for(cog: Mapping[str, Any], band: str) -> bool:
    """Whether `overrides` has the key `band` (how the incumbent switches the rgba file on)."""
    return band in (cog.get("overrides") or {}) or isinstance(cog.get(band), Mapping)


def check_cog_options(cog: Mapping[str, Any]) -> None:
    """Say before any work, and whatever the bands are called, what no file could be written with.

    Raises ConfigError.
    """
    overrides = cog.get("overrides") or {}
    if not isinstance(overrides, Mapping):
        raise ConfigError(
            f"cog_opts: overrides = {overrides!r}", "give options by band, {rgba: {compress: JPEG}}"
        )
    own = [k for k, v in cog.items() if k != "overrides" and isinstance(v, Mapping)]
    for name in ("every band", *own, *overrides):
        cog_options(cog, OutputBand(str(name), "uint16", 0), (1024, 1024))


def cog_options(cog: Mapping[str, Any], band: OutputBand, shape: tuple[int, int]) -> CogOptions:
    """Options of one band for an image of that shape; raises ConfigError naming key and value."""
    merged = {str(k).lower(): v for k, v in merge_options(cog, band.name).items()}
    if "compression" in merged:  # a common misspelling in published configurations
        merged["compress"] = merged.pop("compression")
    where = f"cog_opts of {band.name!r}"
    creation = {k.upper(): v for k, v in merged.items() if k not in _OWN and v is not None}
    compress = str(merged.get("compress") or "NONE").upper()
    if compress not in _COMPRESS:
        raise ConfigError(f"{where}: compress = {compress}", f"use one of {sorted(_COMPRESS)}")
    creation["COMPRESS"] = compress
    for key, (low, high) in _RANGES.items():
        _within(creation.get(key, low), low, high, f"{where}: {key.lower()}")
    if compress in ("DEFLATE", "ZSTD", "LZW"):
        creation.setdefault("PREDICTOR", 3 if np.dtype(band.dtype).kind == "f" else 2)
    size = _whole(merged.get("blocksize"), 512, f"{where}: blocksize")
    return CogOptions(
        block=_block(size, shape),
        ovr_block=_align(_whole(merged.get("ovr_blocksize"), size, f"{where}: ovr_blocksize")),
        levels=_levels(merged.get("overview_levels"), shape, where),
        resampling=_resampling(cog, band, merged, where),
        creation=creation,
    )


def _resampling(
    cog: Mapping[str, Any], band: OutputBand, merged: Mapping[str, Any], where: str
) -> str:
    """Counts and classes have no meaningful average: nearest unless their own override says so."""
    name = str(merged.get("overview_resampling") or "nearest").lower()
    if name not in _RESAMPLINGS:
        raise ConfigError(
            f"{where}: overview_resampling = {name}", f"use one of {sorted(_RESAMPLINGS)}"
        )
    counted = band.nodata is None and np.dtype(band.dtype).kind in "iu"
    if (band.categorical or counted) and name not in ("nearest", "mode"):
        own: dict[str, Any] = {}
        for group in (cog, cog.get("overrides") or {}):
            if isinstance(group.get(band.name), Mapping):
                own.update(group[band.name])
        if "overview_resampling" not in own:
            return "nearest"
    return name


def _levels(asked: Any, shape: tuple[int, int], where: str) -> tuple[int, ...]:
    if asked is not None:
        try:
            levels = tuple(sorted(int(v) for v in asked))
        except (TypeError, ValueError):
            levels = (0,)
        if any(v < 2 for v in levels):
            raise ConfigError(
                f"{where}: overview_levels = {asked}", "list factors such as [2, 4, 8]"
            )
        return tuple(v for v in levels if v <= max(shape))
    # the incumbent asks that the shorter side be 512; a strict COG needs them beyond 512 on either
    if min(shape) >= 512 or max(shape) > 512:
        return tuple(v for v in _LEVELS if v <= max(shape))
    return ()


def _block(size: int, shape: tuple[int, int]) -> tuple[int, int]:
    """Tile shape: shrunk for small images, as the incumbent does."""
    rows, cols = (_align(min(size, n)) for n in shape)
    if cols == shape[1] and max(shape) > 512:
        cols = _align((cols + 1) // 2)  # one tile across is "not tiled" to a strict validator
        if rows == shape[0]:
            rows = _align((rows + 1) // 2)
    return rows, cols


def _align(value: int) -> int:
    return -(-value // 16) * 16


def _within(value: Any, low: int, high: int, where: str) -> None:
    """GDAL would ignore such a value, with a warning for every file and overview."""
    try:
        fits = low <= int(value) <= high
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise ConfigError(f"{where} = {value!r}", f"give a whole number from {low} to {high}")


def _whole(value: Any, default: int, where: str) -> int:
    if value is None:
        return default
    try:
        number = int(value)
    except (TypeError, ValueError):
        number = 0
    if number < 1:
        raise ConfigError(f"{where} = {value!r}", "give a positive number of pixels")
    return number
