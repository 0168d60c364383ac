"""The public face: what goes in, what comes out, and which implementation does it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from odc_stats_gpu.kernels._dispatch import implementation, register

_HERE = "odc_stats_gpu.kernels.geomedian"
register("geomad", cpu=f"{_HERE}.cpu:geomad", cuda=f"{_HERE}.cuda:geomad")

Nodata = float | Sequence[float | None] | None
"""A band's missing value: one for all bands, or one per band; None where every number counts."""


class Geomad(NamedTuple):
    """Geometric median and spread of a stack; arrays of the same kind as the stack."""

    geomedian: Any
    """float32 (band, y, x) in input units, not rounded; NaN without observations"""
    smad: Any
    """float32 (y, x) median cosine distance to the geomedian, unitless; NaN where undefined"""
    emad: Any
    """float32 (y, x) median Euclidean distance in input units; NaN without observations"""
    bcmad: Any
    """float32 (y, x) median Bray-Curtis distance, unitless; NaN where undefined"""
    count: Any
    """uint16 (y, x) observations used: those valid in every band"""


def geomad(stack: Any, nodata: Nodata, *, scale: float = 1e-4, offset: float = -1e-4) -> Geomad:
    """Return geometric median, SMAD, EMAD, BCMAD and count over the dates of a stack.

    Args:
        stack: (band, time, y, x) int16, uint16 or float32, NumPy (CPU) or CuPy (CUDA), any strides;
            1 to 16 bands. NaN counts as missing in float stacks.
        nodata: the missing value, one number or one per band; None if there is none.
        scale: reflectance per input unit: SMAD and BCMAD are taken on `x * scale + offset`.
            Integers are DN whatever it says. A float stack's geomedian is as good as 0.1 DN are at
            1e-4: reflectance in 0..1 needs `scale=1, offset=0`.
        offset: reflectance of input value 0.

    Raises:
        TypeError: an array type or dtype that is not supported.
        ValueError: wrong number of dimensions, bands, dates or nodata values; scale not positive.
    """
    result: Geomad = implementation("geomad", stack)(stack, nodata, scale=scale, offset=offset)
    return result
