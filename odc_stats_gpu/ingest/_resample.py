"""From native planes to the tile: our kernels, or GDAL for what they don't offer."""

from __future__ import annotations

from typing import Any

import numpy as np
import rasterio
import rasterio.warp
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling

from odc_stats_gpu import kernels
from odc_stats_gpu.errors import ConfigError
from odc_stats_gpu.ingest._frames import GDAL_TAPS, TAPS, Frame
from odc_stats_gpu.ingest._window import Window, moved
from odc_stats_gpu.model import Block

KERNELS = ("nearest", "bilinear", "cubic", "average")
GDAL = (
    "cubic_spline", "lanczos", "mode", "max", "min", "med", "q1", "q3", "sum", "rms",
)  # fmt: skip


def check_resampling(name: str) -> None:
    """Raise ConfigError for a name that nobody knows."""
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
) -> None:
    """Warp planes (n, y, x) of a window of the frame into `out` (n, rows, columns) of a block.

    `nodata` marks missing pixels of `src` (None: none is), `fill` those of `out`.
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
    host = src.get() if hasattr(src, "get") else np.asarray(src)
    made = _by_gdal(host, frame, window, geobox, block, resampling, nodata, fill)
    if hasattr(out, "set"):
        out.set(made.astype(out.dtype))
    else:
        out[...] = made


def _held(fill: float, dtype: Any) -> float | int:
    """The fill if the type holds it."""
    return fill if np.dtype(dtype).kind != "b" else bool(fill)


def _by_gdal(
    src: Any,
    frame: Frame,
    window: Window,
    geobox: GeoBox,
    block: Block,
    resampling: str,
    nodata: float | None,
    fill: float,
) -> Any:
    """GDAL's exact warp. Planes without nodata take what lies outside of the source as missing."""
    boolean = src.dtype == np.bool_
    planes = (src.view(np.uint8) * np.uint8(128)) if boolean else src
    out = np.full((len(planes), *block.shape), fill, dtype=planes.dtype)
    part = geobox[block.slices]
    for plane, made in zip(planes, out, strict=True):
        with rasterio.Env(GDAL_NUM_THREADS=1):
            rasterio.warp.reproject(
                np.ascontiguousarray(plane),
                made,
                src_transform=moved(frame.transform, window.c0, window.r0),
                src_crs=frame.crs,
                src_nodata=nodata,
                dst_transform=part.affine,
                dst_crs=str(geobox.crs),
                dst_nodata=fill,
                resampling=Resampling[resampling],
                tolerance=0,
                num_threads=1,
                init_dest_nodata=True,
                XSCALE=1,
                YSCALE=1,
            )
    return out > 64 if boolean else out  # the incumbent's threshold of one half
