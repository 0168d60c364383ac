"""Mask operations compiled for the CPU."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from odc_stats_gpu.kernels._jit import kernel
from odc_stats_gpu.kernels._nodata import one_per_band
from odc_stats_gpu.kernels.masks import reference
from odc_stats_gpu.kernels.masks._arguments import FlagRule, blanked, field_masks

Bools = npt.NDArray[np.bool_]


def decode_enum(mask: npt.NDArray[Any], values: Iterable[float]) -> Bools:
    """Where a mask of classes has one of some values; see `odc_stats_gpu.kernels.decode_enum`."""
    if mask.dtype.kind in "iu" and mask.dtype.itemsize <= 2:
        return _look_up(mask, reference.decode_enum(_all_values(mask.dtype), values))
    return reference.decode_enum(mask, values)


def decode_flags(mask: npt.NDArray[Any], rules: Iterable[FlagRule]) -> Bools:
    """Where a bit field has some value; see `odc_stats_gpu.kernels.decode_flags`."""
    if mask.dtype.kind in "iu" and mask.dtype.itemsize <= 2:
        return _look_up(mask, reference.decode_flags(_all_values(mask.dtype), rules))
    fields = field_masks(rules, mask.dtype)
    out = np.empty(mask.shape, np.uint8)
    _fields(np.ascontiguousarray(mask).reshape(-1), fields, out.reshape(-1))
    return out.view(np.bool_)


def _all_values(dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Every value of an 8- or 16-bit type, in the order of its bits read as an unsigned number."""
    return np.arange(1 << 8 * dtype.itemsize, dtype=f"u{dtype.itemsize}").view(dtype)


def _look_up(mask: npt.NDArray[Any], table: Bools) -> Bools:
    """One decision per value, made beforehand."""
    out = np.empty(mask.shape, np.uint8)
    bits = np.ascontiguousarray(mask).view(f"u{mask.dtype.itemsize}").reshape(-1)
    _table(bits, table.view(np.uint8), out.reshape(-1))
    return out.view(np.bool_)


@kernel
def _table(mask: Any, table: Any, out: Any) -> None:
    for k in range(mask.size):
        out[k] = table[mask[k]]


@kernel
def _fields(mask: Any, fields: Any, out: Any) -> None:
    out[:] = 0
    for n in range(fields.shape[0]):
        bits, wanted = fields[n, 0], fields[n, 1]
        for k in range(mask.size):
            out[k] |= (np.int64(mask[k]) & bits) == wanted


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
        here = bad[n] if bad.ndim == planes.ndim else bad
        for at in np.ndindex(plane.shape[: plane.ndim - here.ndim]):
            _blank(_planes(plane[at]), _planes(here).view(np.uint8), value)
    return result


def _planes(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The array as (n, y, x), as a view: callers write to it."""
    view = array.view()
    view.shape = (-1, *array.shape[-2:]) if array.ndim != 2 else (1, *array.shape)
    return view


@kernel
def _blank(band: Any, bad: Any, value: Any) -> None:
    for n in range(band.shape[0]):
        for r in range(band.shape[1]):
            line, flags = band[n, r], bad[n, r]
            for c in range(line.size):
                old = line[c]  # loaded in any case: a select in SIMD instead of a branch, 30x
                line[c] = value if flags[c] != 0 else old
