"""Band files: cloud-optimised GeoTIFFs of 512-pixel blocks, deflate with predictor 2."""

from __future__ import annotations

from pathlib import Path

import rasterio
import rasterio.shutil
from affine import Affine
from rasterio.enums import Resampling

from odc_stats_gpu.demo._fields import Array


def write_cog(
    path: Path,
    image: Array,
    transform: Affine,
    crs: str,
    nodata: int,
    *,
    classes: bool,
    zlevel: int,
) -> None:
    """Write one band; overviews average, or keep the nearest where values are classes."""
    height, width = image.shape
    with rasterio.Env(GDAL_NUM_THREADS=1), rasterio.open(
        "", "w", driver="MEM", height=height, width=width, count=1, dtype=image.dtype,
        crs=crs, transform=transform, nodata=nodata,
    ) as mem:  # fmt: skip
        mem.write(image, 1)
        factors = [2**k for k in range(1, 8) if max(height, width) > 512 * 2 ** (k - 1)]
        if factors:
            mem.build_overviews(factors, Resampling.nearest if classes else Resampling.average)
        # copying out of memory lets two threads compress at once: writing to COG directly doesn't
        rasterio.shutil.copy(
            mem, path, driver="COG", COMPRESS="DEFLATE", PREDICTOR="YES", LEVEL=zlevel,
            BLOCKSIZE=512, OVERVIEWS="FORCE_USE_EXISTING", BIGTIFF="NO",
        )  # fmt: skip
