"""Mask operations in plain NumPy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from odc_stats_gpu.kernels._nodata import one_per_band
from odc_stats_gpu.kernels.masks._arguments import (
    FlagRule,
    blanked,
    class_values,
    field_masks,
)

Bools = npt.NDArray[np.bool_]


def decode_enum(mask: npt.NDArray[Any], values: Iterable[float]) -> Bools:
    """Where a mask of classes has one of some values; see `odc_stats_gpu.kernels.decode_enum`."""
    found = np.zeros(mask.shape, bool)
    for value in class_values(values, mask.dtype):
        found |= (mask == value) | (np.isnan(mask) if np.isnan(value) else False)
    return found


def decode_flags(mask: npt.NDArray[Any], rules: Iterable[FlagRule]) -> Bools:
    """Where a bit field has some value; see `odc_stats_gpu.kernels.decode_flags`."""
    found = np.zeros(mask.shape, bool)
    for bits, wanted in field_masks(rules, mask.dtype):
        found |= (mask.astype(np.int64) & bits) == wanted
    return found


def mask_where(
    bands: npt.NDArray[Any],
    bad: Bools,
    nodata: float | Sequence[float],
    *,
    out: npt.NDArray[Any] | None = None,
) -> npt.NDArray[Any]:
    """Write nodata where a mask is set; see `odc_stats_gpu.kernels.mask_where`."""
    values = one_per_band(nodata, len(bands) if bands.ndim > 2 else 1, bands.dtype)
    result = blanked(np, bands, bad, out)
    planes = result if result.ndim > 2 else result[None]
    for n, (plane, value) in enumerate(zip(planes, values, strict=True)):
        plane[..., bad[n] if bad.ndim == planes.ndim else bad] = value
    return result
