"""COGs by GDAL: whatever our own encoder doesn't write (JPEG, WebP, LERC, rgba, odd overviews)."""

from __future__ import annotations

import uuid
from typing import Any

import numpy as np
import rasterio
from odc.geo.geobox import GeoBox
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import RasterioError
from rasterio.io import MemoryFile
from rasterio.shutil import copy as gdal_copy

from odc_stats_gpu.errors import ConfigError
from odc_stats_gpu.output._options import CogOptions


def encode_gdal(
    pixels: np.ndarray[Any, Any],
    geobox: GeoBox,
    nodata: float | None,
    options: CogOptions,
    *,
    mask: np.ndarray[Any, Any] | None = None,
    colors: tuple[ColorInterp, ...] = (),
) -> bytes:
    """Encode (band, y, x) as a COG in memory; `mask` (y, x) uint8 becomes an internal mask.

    The overviews are built in a MEM dataset first: the COG driver would write and compress a
    temporary copy of them. Raises ConfigError when GDAL refuses the creation options.
    """
    count, height, width = pixels.shape
    profile = {
        "driver": "MEM",
        "width": width,
        "height": height,
        "count": count,
        "dtype": pixels.dtype.name,
        "crs": rasterio_crs(geobox),
        "transform": geobox.transform,
        "nodata": nodata,
    }
    creation = {
        "TILED": "YES",
        "BLOCKYSIZE": options.block[0],
        "BLOCKXSIZE": options.block[1],
        **options.creation,
    }
    env = {
        "GDAL_TIFF_OVR_BLOCKSIZE": _power_of_two(options.ovr_block),
        "GDAL_TIFF_INTERNAL_MASK": True,
        "GDAL_NUM_THREADS": "1",
    }
    try:
        with rasterio.Env(**env), MemoryFile() as out:
            with rasterio.open(f"tile-{uuid.uuid4().hex}", "w", **profile) as src:
                if colors:
                    src.colorinterp = colors
                src.write(pixels)
                if mask is not None:
                    src.write_mask(mask)
                if options.levels:
                    src.build_overviews(list(options.levels), Resampling[options.resampling])
                gdal_copy(src, out.name, driver="GTiff", copy_src_overviews=True, **creation)
            return bytes(out.getbuffer())
    except RasterioError as exc:
        raise ConfigError(
            f"GDAL can't write a COG with {dict(options.creation)}: {exc}", "check cog_opts"
        ) from exc


def rasterio_crs(geobox: GeoBox) -> Any:
    """The geobox's CRS as rasterio wants it, by EPSG code where it has one."""
    crs = geobox.crs
    if crs is None:
        return None
    epsg = crs.to_epsg()
    return rasterio.crs.CRS.from_epsg(epsg) if epsg else rasterio.crs.CRS.from_wkt(crs.to_wkt())


def _power_of_two(size: int) -> int:
    """GDAL takes only powers of two from 64 to 4096 for tiles of overviews."""
    return min(4096, max(64, 1 << (size - 1).bit_length()))
