"""Mask operations on CUDA: one thread per pixel."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numba import cuda, types

from odc_stats_gpu.kernels._cuda_launch import (
    BLOCK,
    Listed,
    kernel,
    launch,
    memory_of,
    over,
    packed,
)
from odc_stats_gpu.kernels._nodata import one_per_band
from odc_stats_gpu.kernels.masks._arguments import FlagRule, blanked, class_values, field_masks

# mypy: allow-untyped-defs
# Kernels are typed by the compiler.

LINE = (256,)
"""Threads of a block, for kernels that don't care where a pixel lies."""


def decode_enum(mask: Any, values: Iterable[float]) -> Any:
    """Where a mask of classes has one of some values; see `odc_stats_gpu.kernels.decode_enum`."""
    return _decode(_classes, mask, class_values(values, mask.dtype))


def decode_flags(mask: Any, rules: Iterable[FlagRule]) -> Any:
    """Where a bit field has some value; see `odc_stats_gpu.kernels.decode_flags`."""
    fields = field_masks(rules, mask.dtype).astype(np.uint32)
    return _decode(_fields, mask, fields.reshape(-1))


def _decode(function: Any, mask: Any, wanted: Any) -> Any:
    memory = memory_of(mask)
    mask = memory.array(mask)
    if mask.dtype == np.bool_:
        mask, wanted = mask.view(np.uint8), wanted.view(np.uint8)
    out = memory.empty(mask.shape, np.bool_)
    if not wanted.size:
        out[...] = False
    elif out.size:
        launch(
            function,
            (-(-out.size // LINE[0]),),
            LINE,
            memory.contiguous(mask).reshape(-1),
            memory.array(wanted),
            out.view(np.uint8).reshape(-1),
        )
    return out


def classes(mask, values, out):
    """Write 1 where the mask has one of the values (NaN is NaN), else 0; all 1-d."""
    k = np.uint64(cuda.grid(1))
    if k >= np.uint64(out.size):
        return
    pixel, found = mask[k], np.uint8(0)
    for n in range(values.size):
        value = values[np.uint64(n)]
        if pixel == value or (pixel != pixel and value != value):
            found = np.uint8(1)
    out[k] = found


def fields(mask, rules, out):
    """Write 1 where one of the pairs (bits, what they must be) of `rules` holds; all 1-d."""
    k = np.uint64(cuda.grid(1))
    if k >= np.uint64(out.size):
        return
    pixel, found = np.uint32(mask[k]), np.uint8(0)
    for n in range(0, rules.size, 2):
        if pixel & rules[np.uint64(n)] == rules[np.uint64(n + 1)]:
            found = np.uint8(1)
    out[k] = found


def mask_where(
    bands: Any, bad: Any, nodata: float | Sequence[float], *, out: Any | None = None
) -> Any:
    """Write nodata where a mask is set; see `odc_stats_gpu.kernels.mask_where`."""
    memory = memory_of(bands)
    bands, bad = memory.array(bands), memory.array(bad)
    values = one_per_band(nodata, len(bands) if bands.ndim > 2 else 1, bands.dtype)
    result = blanked(memory, bands, bad, out)
    if not result.size:
        return result
    plane = np.dtype("uint8") if bands.dtype == np.bool_ else bands.dtype
    planes, flags = result.view(plane), bad.view(np.uint8)
    if planes.ndim == 2:
        planes = planes[None]
    for n, (band, value) in enumerate(zip(planes, values, strict=True)):
        here = flags[n] if flags.ndim == planes.ndim else flags
        for at in np.ndindex(band.shape[:-3]):
            layers = band[at] if band.ndim > 2 else band[None]
            over_them = here[at[len(at) - (here.ndim - 3) :]] if here.ndim > 3 else here
            if over_them.ndim == 2:
                over_them = over_them[None]
            launch(_blank, over(layers.shape), BLOCK, layers, over_them, plane.type(value))
    return result


def blank(layers, bad, value):
    """Write the value where `bad`, (layer, row, column) with all layers or one, isn't 0."""
    c, r, n = cuda.grid(3)
    if r >= layers.shape[1] or c >= layers.shape[2]:
        return
    layer = np.uint64(n) if bad.shape[0] > 1 else np.uint64(0)
    if bad[layer, np.uint64(r), np.uint64(c)] != 0:
        layers[np.uint64(n), np.uint64(r), np.uint64(c)] = value


_classes, _fields, _blank = kernel(classes), kernel(fields), kernel(blank)

KERNELS: tuple[Listed, ...] = (
    ("decode_enum uint8", classes, (packed("uint8"), packed("uint8"), packed("uint8"))),
    ("decode_flags uint16", fields, (packed("uint16"), packed("uint32"), packed("uint8"))),
    ("mask_where int16", blank, (packed("int16", 3), packed("uint8", 3), types.int16)),
)
