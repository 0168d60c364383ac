"""Fusing compiled for the CPU: layer by layer over rows, SIMD over x."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from odc_stats_gpu.kernels._jit import kernel
from odc_stats_gpu.kernels._nodata import one_per_band
from odc_stats_gpu.kernels.fuse._arguments import as_stack


def first_valid(
    stack: npt.NDArray[Any], nodata: float | Sequence[float] | None
) -> npt.NDArray[Any]:
    """Take the first value in order of time; see `odc_stats_gpu.kernels.first_valid`."""
    bands = as_stack(stack)
    values = one_per_band(0 if nodata is None else nodata, len(bands), stack.dtype)
    shape = stack.shape[:-3] + stack.shape[-2:]
    if nodata is None and bands.shape[1]:
        return bands[:, 0].reshape(shape).copy()
    plane = np.dtype("uint8") if stack.dtype == np.bool_ else stack.dtype
    out = np.empty((len(bands), *stack.shape[-2:]), stack.dtype)
    for n, value in enumerate(values):
        _first(bands[n].view(plane), plane.type(value), out[n].view(plane))
    return out.reshape(shape)


@kernel
def _first(layers: Any, nodata: Any, out: Any) -> None:
    for r in range(out.shape[0]):
        line = out[r]
        line[:] = nodata
        for t in range(layers.shape[0]):
            layer = layers[t, r]
            for c in range(line.size):
                value, old = layer[c], line[c]
                # selects, not branches: this runs in SIMD. NaN leaves a pixel open, as nodata does
                value = nodata if value != value else value  # noqa: PLR0124
                line[c] = value if (old == nodata) | (old != old) else old  # noqa: PLR0124


def any_true(stack: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Set every pixel that is set in any layer; see `odc_stats_gpu.kernels.any_true`."""
    bands = as_stack(stack)
    plane = np.dtype("uint8") if stack.dtype == np.bool_ else stack.dtype
    out = np.zeros((len(bands), *stack.shape[-2:]), np.uint8)
    for n in range(len(bands)):
        _any(bands[n].view(plane), out[n])
    return out.view(np.bool_).reshape(stack.shape[:-3] + stack.shape[-2:])


@kernel
def _any(layers: Any, out: Any) -> None:
    for r in range(out.shape[0]):
        line = out[r]
        for t in range(layers.shape[0]):
            layer = layers[t, r]
            for c in range(line.size):
                line[c] |= layer[c] != 0
