"""From native planes to the tile: our kernels, or GDAL for what they don't offer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from odc.geo.geobox import GeoBox

from odc_stats_gpu import kernels
from odc_stats_gpu.errors import ConfigError
from odc_stats_gpu.ingest._frames import GDAL_TAPS, TAPS, Frame
from odc_stats_gpu.ingest._window import Window
from odc_stats_gpu.model import Block, InputSpec

KERNELS = ("nearest", "bilinear", "cubic", "average")
GDAL = (
    "cubic_spline", "lanczos", "mode", "max", "min", "med", "q1", "q3", "sum", "rms",
)  # fmt: skip


def check_resampling(spec: InputSpec) -> None:
    """Raise ConfigError for a resampling that nobody knows or that can't do what else is asked."""
    name = spec.resampling
    if name in GDAL and (spec.transform_code or spec.area_of_interest):
        raise ConfigError(
            f"resampling {name!r} can't use a PROJ operation of your choice",
            f"take one of {', '.join(KERNELS)}, or leave transform_code and area_of_interest out",
        )
    if name not in KERNELS + GDAL:
        raise ConfigError(
            f"no resampling {name!r}", f"known: {', '.join(KERNELS)}; by GDAL {', '.join(GDAL)}"
        )


def taps(resampling: str) -> int:
    """Source pixels around a point that a resampling may read."""
    return TAPS if resampling in KERNELS else GDAL_TAPS


def resample(
    src: Any,
    out: Any,
    *,
    frame: Frame,
    window: Window,
    geobox: GeoBox,
    block: Block,
    resampling: str,
    nodata: float | None,
    fill: float | None,
    upload: Callable[[Any], Any],
) -> None:
    """Warp planes (n, y, x) of a window of the frame into `out` (n, rows, columns) of a block.

    `nodata` marks missing pixels of `src` (None: none is), `fill` those of `out`. What only GDAL
    does is done on the host: `upload` brings it to where `out` is.
    """
    fill = 0 if fill is None else fill
    lattice = frame.lattice.window(block.y0, block.y1, block.x0, block.x1, window.r0, window.c0)
    if resampling in KERNELS:
        if src.dtype == out.dtype:
            kernels.warp(src, nodata, lattice, resampling, out=out, fill=fill)
        else:
            made = kernels.warp(src, nodata, lattice, resampling, fill=_held(fill, src.dtype))
            out[...] = made
        return
    from odc_stats_gpu.ingest._gdal_warp import gdal_warp  # rasterio costs 0.1 s at start

    host = src.get() if hasattr(src, "get") else np.asarray(src)
    part = geobox[block.slices]
    made = np.stack(
        [gdal_warp(plane, frame, window, part, resampling, nodata, fill) for plane in host]
    ).astype(out.dtype)
    out[...] = upload(made)


def _held(fill: float, dtype: Any) -> float | int:
    """The fill if the type holds it."""
    return fill if np.dtype(dtype).kind != "b" else bool(fill)
