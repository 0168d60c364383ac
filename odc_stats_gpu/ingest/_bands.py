"""Which files of a scene a plugin needs, and what its pixels mean."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np

from odc_stats_gpu.errors import ConfigError, DataError
from odc_stats_gpu.model import BandFile, Dataset, Grid, InputSpec, Measurement, Product

_log = logging.getLogger(__name__)
_warned: set[tuple[str, str]] = set()


@dataclass(frozen=True, slots=True)
class Band:
    """One band to read of every scene of a product."""

    name: str
    """As the configuration writes it: name or alias."""
    measurement: Measurement
    optional: bool


@dataclass(frozen=True, slots=True)
class SceneBand:
    """One band of one scene."""

    name: str
    file: BandFile
    grid: Grid
    dtype: np.dtype[np.generic]
    nodata: float | int | None
    """Of the product definition; None where it has none that the type can hold."""
    measurement: Measurement


def resolve_bands(product: Product, spec: InputSpec) -> tuple[Band, ...]:
    """Find the bands of `spec` in a product definition, basis first.

    Optional bands that the product lacks are left out with one warning per process.

    Raises:
        ConfigError: an unknown band, listing the known ones.
    """
    found = []
    for name in dict.fromkeys((spec.basis or spec.bands[0], *spec.bands)):
        measurement = product.find(name)
        if measurement is not None:
            found.append(Band(name, measurement, name in spec.optional))
        elif name not in spec.optional:
            known = [" = ".join((m.name, *m.aliases)) for m in product.measurements]
            raise ConfigError(
                f"product {product.name} has no band {name!r}", f"known: {', '.join(known)}"
            )
        elif (product.name, name) not in _warned:
            _warned.add((product.name, name))
            _log.warning("product %s has no band %r: going on without it", product.name, name)
    return tuple(found)


def scene_bands(dataset: Dataset, bands: tuple[Band, ...]) -> tuple[SceneBand, ...]:
    """Files of one scene.

    Raises:
        DataError: the document lacks a band that isn't optional.
    """
    out = []
    for band in bands:
        m = band.measurement
        names = (m.name, band.name, *m.aliases)
        key = next((n for n in names if n in dataset.measurements), None)
        if key is None:
            if band.optional:
                continue
            raise DataError(
                f"dataset {dataset.id} ({dataset.uri}) has no measurement {m.name!r}",
                f"it has {', '.join(sorted(dataset.measurements))}",
            )
        file, dtype = dataset.measurements[key], np.dtype(m.dtype)
        grid = dataset.grids[file.grid]
        out.append(SceneBand(band.name, file, grid, dtype, usable(m.nodata, dtype), m))
    return tuple(out)


def usable(nodata: float | None, dtype: np.dtype[np.generic]) -> float | int | None:
    """The nodata value if a pixel of that type can have it; NaN for floats without one."""
    if dtype.kind == "f":
        return float("nan") if nodata is None else float(nodata)
    if nodata is None or dtype.kind not in "iu" or nodata != nodata:  # noqa: PLR0124 - NaN
        return None
    info = np.iinfo(str(dtype))
    return int(nodata) if info.min <= nodata <= info.max and int(nodata) == nodata else None
