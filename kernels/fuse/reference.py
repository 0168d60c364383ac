"""Fusing in plain NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from odc_stats_gpu.kernels._nodata import one_per_band
from odc_stats_gpu.kernels.fuse._arguments import as_stack


def first_valid(
    stack: npt.NDArray[Any], nodata: float | Sequence[float] | None
) -> npt.NDArray[Any]:
    """Take the first value in order of time; see `odc_stats_gpu.kernels.first_valid`."""
    bands = as_stack(stack)
    values = one_per_band(0 if nodata is None else nodata, len(bands), stack.dtype)
    out = np.empty((len(bands), *stack.shape[-2:]), stack.dtype)
    for plane, band, value in zip(out, bands, values, strict=True):
        plane[...] = value
        found = np.zeros(plane.shape, bool)
        for layer in band:
            valid = np.ones(plane.shape, bool)
            if nodata is not None:
                valid = (layer != value) & (layer == layer)  # noqa: PLR0124 - false for NaN only
            plane[valid & ~found] = layer[valid & ~found]
            found |= valid
    return out.reshape(stack.shape[:-3] + stack.shape[-2:])


def any_true(stack: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Set every pixel that is set in any layer; see `odc_stats_gpu.kernels.any_true`."""
    bands = as_stack(stack)
    return (bands != 0).any(axis=1).reshape(stack.shape[:-3] + stack.shape[-2:])
