"""Pixel types of the stack and of the product, when scenes come from one or several products."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from odc_stats_gpu.errors import ConfigError
from odc_stats_gpu.model import Measurement, NativeBand, Product
from odc_stats_gpu.plugins._classes import known_band

Number = float | int


def native_planes(
    names: Iterable[str], products: Mapping[str, Product], optional: frozenset[str]
) -> tuple[NativeBand, ...]:
    """Pixel type and nodata of bands: those of the first product that has each.

    Float bands without nodata have NaN. Optional bands that no product has are left out.

    Raises:
        ConfigError: a product lacks a band, or its values don't fit the first one's type.
    """
    out = []
    for name in names:
        found = [
            (p, m)
            for p in products.values()
            if (m := p.find(name) if name in optional else known_band(p, name)) is not None
        ]
        if found:
            out.append(_plane(name, found))
    return tuple(out)


def _plane(name: str, found: list[tuple[Product, Measurement]]) -> NativeBand:
    """The type of the first product, after a look at the others."""
    product, first = found[0]
    for other, measurement in found[1:]:
        if not np.can_cast(measurement.dtype, first.dtype, "safe"):
            raise ConfigError(
                f"band {name!r} is {measurement.dtype} in product {other.name!r} but "
                f"{first.dtype} in {product.name!r}",
                "list the product with the wider type first, or process them apart",
            )
    nodata = effective_nodata(first)
    if nodata is not None and not _fits(nodata, first.dtype):
        raise ConfigError(
            f"band {name!r} of product {product.name!r} is {first.dtype} with nodata {nodata}",
            "correct the product definition: nodata must be a value of the type",
        )
    return NativeBand(name, first.dtype, nodata)


def effective_nodata(measurement: Measurement) -> Number | None:
    """A band's nodata; NaN for a float band that declares none."""
    if measurement.nodata is None and np.dtype(measurement.dtype).kind == "f":
        return math.nan
    return measurement.nodata


def _fits(value: Number, dtype: str) -> bool:
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return True
    info = np.iinfo(kind)
    return info.min <= value <= info.max and int(value) == value


def common_dtype(dtypes: Iterable[str]) -> str:
    """The type of a stack that holds bands of these types: int16, uint16 or float32."""
    found = {np.dtype(d) for d in dtypes}
    for candidate in ("int16", "uint16"):
        if all(np.can_cast(d, candidate, "safe") for d in found):
            return candidate
    return "float32"


def same_nodata(a: Number | None, b: Number | None) -> bool:
    """Whether two nodata values are the same; NaN is NaN."""
    if a is None or b is None:
        return a is b
    return a == b or (math.isnan(a) and math.isnan(b))


def is_nodata(array: Any, nodata: Number | None) -> Any:
    """Boolean array of the missing pixels of any array-API array; NaN is always missing."""
    xp = array_namespace(array)
    floating = xp.isdtype(array.dtype, "real floating")
    if nodata is not None and not math.isnan(nodata):
        found = array == nodata
        return found | xp.isnan(array) if floating else found
    return xp.isnan(array) if floating else xp.zeros_like(array, dtype=xp.bool)


def convert(array: Any, nodata: Number | None, plane: NativeBand) -> Any:
    """Bring pixels to the type and nodata of a plane; returns the array itself where they agree."""
    xp = array_namespace(array)
    out = xp.astype(array, getattr(xp, plane.dtype), copy=False)
    if nodata is None or plane.nodata is None or same_nodata(nodata, plane.nodata):
        return out
    number = int if xp.isdtype(out.dtype, "integral") else float
    return xp.where(is_nodata(array, nodata), number(plane.nodata), out)


def empty_value(plane: NativeBand) -> Number:
    """What a masked pixel becomes: nodata, or 0 where every value counts."""
    return 0 if plane.nodata is None else plane.nodata


def empty_plane(like: Any, plane: NativeBand) -> Any:
    """An array of the shape and kind of `like` without any observation."""
    xp = array_namespace(like)
    return xp.full_like(like, empty_value(plane), dtype=getattr(xp, plane.dtype))
