"""The public functions of the warp: documentation and choice of the implementation."""

from __future__ import annotations

from typing import Any

from odc_stats_gpu.kernels._dispatch import implementation, register
from odc_stats_gpu.kernels.warp._arguments import Resampling
from odc_stats_gpu.kernels.warp._lattice import Lattice

_ROOM = "odc_stats_gpu.kernels.warp"
register("warp", cpu=f"{_ROOM}.cpu:warp", cuda=f"{_ROOM}.cuda:warp")
register("nearest_onto", cpu=f"{_ROOM}.cpu:nearest_onto", cuda=f"{_ROOM}.cuda:nearest_onto")


def warp(
    src: Any,
    src_nodata: float | None,
    lattice: Lattice,
    resampling: Resampling | str,
    *,
    out: Any | None = None,
    fill: float | None = None,
) -> Any:
    """Resample one band or several of the same grid onto a tile.

    Args:
        src: (y, x) or (n, y, x), bool, 8- to 32-bit integer or float: the source, or the window of
            it that begins at `lattice.origin`. Bands given together share the work on coordinates.
        src_nodata: value of missing pixels, of the result's as well; None: every pixel counts.
            With a nodata value NaN is missing too.
        lattice: the source point of every destination pixel.
        resampling: nearest, bilinear, cubic (Catmull-Rom) or average.
        out: written to and returned, if given: (rows, columns) or (n, rows, columns) of src's type,
            any strides.
        fill: value of missing pixels in the result, if not nodata (0 without nodata).

    Returns:
        Array of src's type, (rows, columns) or (n, rows, columns) of `lattice.shape`.

    For nearest, bilinear and cubic a pixel has a value exactly where the source pixel that contains
    its centre has one. Other missing taps drop out and the bilinear weights are scaled up; cubic
    with a missing tap becomes bilinear. `average` is the mean over the box between the images of
    the pixel's upper left and lower right corner, missing where that box has no valid pixel.
    Integers are rounded half up, clamped, and moved by one where they would read as nodata; a bool
    is set where more than half of the weight is. This is GDAL's warper with an exact transform and
    XSCALE = YSCALE = 1.

    Releases the GIL and starts no threads: call it from many at once.

    Raises:
        ValueError: unknown resampling, wrong shape or type, fill that the type can't hold.
        TypeError: not an array.
    """
    run = implementation("warp", src)
    return run(src, src_nodata, lattice, resampling, out=out, fill=fill)


def nearest_onto(src: Any, row_index: Any, col_index: Any, *, fill: float = 0) -> Any:
    """Look a band up on a finer or coarser grid of its CRS: `src[..., row_index[r], col_index[c]]`.

    Args:
        src: (y, x) or (n, y, x).
        row_index: source row of every row of the result, integers; outside of src gives `fill`.
        col_index: source column of every column of the result.
        fill: value of pixels outside of src.

    Returns:
        Array of src's type, (rows, columns) or (n, rows, columns).

    With 20 m onto 10 m, for instance, `row_index = (first_row + np.arange(rows)) // 2`.
    """
    return implementation("nearest_onto", src)(src, row_index, col_index, fill=fill)
