"""What all implementations of the warp do to their arguments before the first pixel."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal, get_args

import numpy as np

from odc_stats_gpu.kernels._nodata import fits
from odc_stats_gpu.kernels.warp._lattice import Lattice

Resampling = Literal["nearest", "bilinear", "cubic", "average"]
RESAMPLINGS: tuple[str, ...] = get_args(Resampling)
DTYPES = ("bool", "uint8", "int8", "int16", "uint16", "int32", "uint32", "float32", "float64")

MORE_THAN_HALF = 0.5 - 1e-9
"""Rounding of a share of set pixels to bool: set only where more than half is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """A warp whose arguments fit together, as planes of numbers."""

    src: Any
    """(n, source rows, source columns); bool seen as uint8."""
    out: Any
    """(n, rows, columns) of the same type: what the caller gets, seen as planes."""
    result: Any
    """`out` in the shape and type of the caller's source."""
    nodata: Any
    """The value that marks a pixel as missing, a scalar of the source's type; 0 without any."""
    has_nodata: bool
    fill: Any
    """What missing pixels become, a scalar of the source's type."""
    half: float
    """Added before rounding down to an integer."""


def plan(
    xp: Any,
    src: Any,
    src_nodata: float | None,
    lattice: Lattice,
    resampling: str,
    *,
    out: Any | None,
    fill: float | None,
) -> Request:
    """Check the arguments of `warp` and make its result; `xp` is the array module (NumPy or CuPy).

    Raises:
        TypeError: no lattice, or a nodata that isn't one number.
        ValueError: unknown resampling, wrong shape or type, a nodata that the type can't hold.
    """
    if not isinstance(lattice, Lattice):
        raise TypeError(f"no lattice {lattice!r}: make one with kernels.refine")
    if not (src_nodata is None or isinstance(src_nodata, Real)):
        raise TypeError(f"no nodata {src_nodata!r}: give one number for all bands, or None")
    if resampling not in RESAMPLINGS:
        raise ValueError(f"no resampling {resampling!r}: use one of {', '.join(RESAMPLINGS)}")
    if src.ndim not in {2, 3}:
        raise ValueError(f"src must be (y, x) or (n, y, x), got shape {src.shape}")
    dtype = src.dtype
    if dtype.name not in DTYPES or not dtype.isnative:
        raise ValueError(f"no warp of {dtype}: convert to one of {', '.join(DTYPES)}")
    shape = (*src.shape[:-2], *lattice.shape)
    if out is None:
        out = xp.empty(shape, dtype)
    elif out.shape != shape or out.dtype != dtype:
        raise ValueError(f"out must be {dtype} {shape}, got {out.dtype} {out.shape}")
    marker = src_nodata if src_nodata is not None and fits(src_nodata, dtype) else None
    if fill is None:
        fill = 0 if src_nodata is None else src_nodata
    if not fits(fill, dtype):
        raise ValueError(f"{dtype} can't hold {fill} for missing pixels: give another fill")
    plane = np.dtype("uint8") if dtype == np.bool_ else dtype
    return Request(
        src=_planes(src.view(plane)),
        out=_planes(out.view(plane)),
        result=out,
        nodata=plane.type(0 if marker is None else marker),
        has_nodata=marker is not None,
        fill=plane.type(fill),
        half=MORE_THAN_HALF if dtype == np.bool_ else 0.5,
    )


def _planes(bands: Any) -> Any:
    """Bands with a leading axis, always as a view: results are written to it."""
    return bands[None] if bands.ndim == 2 else bands
