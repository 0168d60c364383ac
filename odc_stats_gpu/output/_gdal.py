"""COGs by GDAL: whatever our own encoder doesn't write (JPEG, WebP, LERC, rgba, odd overviews)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import rasterio
from odc.geo.geobox import GeoBox
from rasterio._err import CPLE_BaseError
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.io import MemoryFile
from rasterio.shutil import copy as gdal_copy

from odc_stats_gpu.errors import ConfigError
from odc_stats_gpu.output._options import CogOptions
from odc_stats_gpu.output._spool import IN_MEMORY, plane

Array = np.ndarray[Any, Any]


class GdalImage:
    """Takes rectangles of one or more bands; GDAL encodes them when all have come.

    Raises ConfigError when GDAL refuses the creation options.
    """

    job_bytes = 0

    def __init__(
        self,
        geobox: GeoBox,
        count: int,
        dtype: str,
        nodata: float | None,
        options: CogOptions,
        scratch: Path | None = None,
    ) -> None:
        self._geobox, self._nodata, self._options = geobox, nodata, options
        self._scratch = scratch
        # GDAL tells what it can't do only when it does it: ask before the hours of work
        probe = replace(options, block=(16, 16), levels=())
        encode_gdal(np.zeros((count, 16, 16), dtype), geobox, nodata, probe)
        self._pixels = plane((count, *geobox.shape), np.dtype(dtype), scratch)
        self._encoded = b""

    def put(self, row: int, col: int, pixels: Array) -> list[Callable[[], None]]:
        """Copy (y, x) or (band, y, x) in."""
        height, width = pixels.shape[-2:]
        self._pixels[:, row : row + height, col : col + width] = pixels
        return []

    def complete(self) -> None:
        """Encode all that was put."""
        self._encoded = encode_gdal(
            self._pixels, self._geobox, self._nodata, self._options, self._scratch
        )
        self._pixels = np.empty(0, np.uint8)

    def chunks(self) -> tuple[int, Iterator[bytes]]:
        """Size and bytes of the COG after `complete`."""
        return len(self._encoded), iter([self._encoded])


def encode_gdal(
    pixels: Array,
    geobox: GeoBox,
    nodata: float | None,
    options: CogOptions,
    scratch: Path | None = None,
) -> bytes:
    """Encode (band, y, x) as a COG; four bands of uint8 are red, green, blue and alpha.

    JPEG has no fourth band: there the alpha becomes an internal mask. Overviews are built in an
    uncompressed copy, each from the one before. Raises ConfigError when GDAL refuses the options.
    """
    creation = {
        "TILED": "YES",
        "BLOCKYSIZE": options.block[0],
        "BLOCKXSIZE": options.block[1],
        "BIGTIFF": "IF_SAFER",
        **options.creation,
    }
    mask = None
    if len(pixels) == 4 and creation["COMPRESS"] == "JPEG":
        pixels, mask = pixels[:3], pixels[3]
        creation = {"PHOTOMETRIC": "YCBCR", **creation}
    if len(pixels) > 1:
        creation = {"INTERLEAVE": "PIXEL", **creation}
    profile = {
        "driver": "GTiff",
        "width": pixels.shape[2],
        "height": pixels.shape[1],
        "count": len(pixels),
        "dtype": pixels.dtype.name,
        "crs": rasterio_crs(geobox),
        "transform": geobox.transform,
        "nodata": nodata,
        "tiled": True,
        "blockxsize": 256,
        "blockysize": 256,
        "bigtiff": "IF_SAFER",
    }
    if len(pixels) > 2:
        profile["photometric"] = "RGB"
    if len(pixels) == 4:
        profile["alpha"] = "YES"
    env = {
        "GDAL_TIFF_OVR_BLOCKSIZE": _power_of_two(options.ovr_block),
        "GDAL_TIFF_INTERNAL_MASK": True,
        "GDAL_NUM_THREADS": "1",
        "GDAL_CACHEMAX": IN_MEMORY,  # the default is 5 % of the machine, whatever our limit
    }
    try:
        with rasterio.Env(**env), _workplace(pixels.nbytes, scratch) as (raw, final, contents):
            with rasterio.open(raw, "w", **profile) as dst:
                dst.write(pixels)
                if mask is not None:
                    dst.write_mask(mask)
                if options.levels:
                    dst.build_overviews(list(options.levels), Resampling[options.resampling])
            with rasterio.open(raw) as src:
                gdal_copy(src, final, driver="GTiff", copy_src_overviews=True, **creation)
            with rasterio.open(final):
                pass  # refuses a file that GDAL gave up half-way
            return contents()
    except (RasterioError, CPLE_BaseError, ValueError) as exc:
        raise ConfigError(
            f"GDAL can't write a COG with {dict(options.creation)}: {exc}", "check cog_opts"
        ) from exc


@contextmanager
def _workplace(size: int, scratch: Path | None) -> Iterator[tuple[str, str, Callable[[], bytes]]]:
    """Names of an uncompressed file and of the result, in memory or on disk; reads the result."""
    if size <= IN_MEMORY:
        with MemoryFile() as raw, MemoryFile() as final:
            yield raw.name, final.name, lambda: bytes(final.getbuffer())
    else:
        with TemporaryDirectory(dir=scratch, prefix="odc-stats-gpu-") as folder:
            final_path = Path(folder, "final.tif")
            yield f"{folder}/raw.tif", str(final_path), final_path.read_bytes


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
