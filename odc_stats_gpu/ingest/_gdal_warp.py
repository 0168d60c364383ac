"""The resamplings that our kernels don't offer, by GDAL: slower, never refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import rasterio
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling
from rasterio.io import MemoryFile
from rasterio.vrt import WarpedVRT

from odc_stats_gpu.ingest._frames import Frame
from odc_stats_gpu.ingest._window import Window, moved

_TOLERANCE = 1e-9
"""Source pixels: as good as exact, blocks agree bit for bit. GDAL 3.10 makes no VRT with 0."""


def gdal_warp(
    plane: Any,
    frame: Frame,
    window: Window,
    part: GeoBox,
    resampling: str,
    nodata: float | None,
    fill: float,
) -> Any:
    """GDAL's exact warp of one host plane (y, x) onto the geobox of a block.

    Plane by plane, because GDAL takes a pixel for missing only where all bands of a file are; and
    through a WarpedVRT, because `rasterio.warp.reproject` of rasterio 1.4 ignores `tolerance`.
    """
    boolean = plane.dtype == np.bool_
    pixels = plane.view(np.uint8) * np.uint8(128) if boolean else plane
    profile = {
        "driver": "GTiff",
        "count": 1,
        "height": pixels.shape[0],
        "width": pixels.shape[1],
        "dtype": pixels.dtype,
        "transform": moved(frame.transform, window.c0, window.r0),
        "crs": frame.crs,
        "nodata": nodata,
        "bigtiff": "if_safer",
    }
    with rasterio.Env(GDAL_NUM_THREADS=1), MemoryFile() as memory:
        with memory.open(**profile) as file:
            file.write(pixels, 1)
        with (
            memory.open() as file,
            WarpedVRT(
                file,
                crs=str(part.crs),
                transform=part.affine,
                height=int(part.shape[0]),
                width=int(part.shape[1]),
                resampling=Resampling[resampling],
                src_nodata=nodata,
                nodata=None if nodata is None else fill,
                tolerance=_TOLERANCE,
                XSCALE=1,
                YSCALE=1,
            ) as warped,
        ):
            made = warped.read(1)
    return made > 64 if boolean else made  # the incumbent's threshold of one half
