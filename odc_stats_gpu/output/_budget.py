"""How much memory a tile on its way out needs, for the memory plan."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from odc_stats_gpu.model import COG_DEFAULTS, OutputBand
from odc_stats_gpu.output._backlog import LIMIT
from odc_stats_gpu.output._spool import IN_MEMORY


def writer_bytes(
    shape: tuple[int, int], bands: Sequence[OutputBand], block_shape: tuple[int, int]
) -> int:
    """Peak host bytes of a TileWriter whose blocks come row by row, an upper estimate.

    Pixels wait for the rest of their COG tile, then for a thread; compressed ones and the rgba
    picture stay in memory up to 64 MiB each and go to the scratch folder beyond.
    """
    side = int(COG_DEFAULTS["blocksize"])
    height, width = shape
    sizes = [np.dtype(b.dtype).itemsize for b in bands]
    row = width * sum(sizes)  # one row of pixels of all bands
    whole = height * row
    touched = side * (-(-block_shape[0] // side) + 1)
    overviews = 2 * 256 * row  # a row of 256-pixel tiles at half, a quarter, ... of the width
    waiting = LIMIT + side * side * max(sizes, default=0)
    window = min(whole * 4 // 3, min(touched, height) * row + overviews + waiting)
    picture = 4 * height * width
    gdal = picture * 10 // 3 if picture <= IN_MEMORY else IN_MEMORY // 2
    return window + min(whole, IN_MEMORY) + gdal
