"""Counts of clear observations under any mask band, with and without cleaned clouds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import xarray as xr
from array_api_compat import array_namespace
from pydantic import PrivateAttr, field_validator, model_validator

from odc_stats_gpu import kernels
from odc_stats_gpu.errors import ConfigError
from odc_stats_gpu.model import InputSpec, Measurement, NativeBand, OutputBand, Product
from odc_stats_gpu.plugins._base import StatsPlugin, flat_coords, fused
from odc_stats_gpu.plugins._classes import (
    ClassTest,
    class_test,
    known_band,
    names_value,
    nodata_classes,
)
from odc_stats_gpu.plugins._config import PluginConfig
from odc_stats_gpu.plugins._filters import (
    ClassName,
    Operation,
    margin_of,
    parse_class_names,
    parse_operations,
)

_DEFAULT_FILTERS = {
    "clear_2_5": [["opening", 2], ["dilation", 5]],
    "clear_0_5": [["opening", 0], ["dilation", 5]],
}
_DEFAULT_CLASSES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("s2cloudless", ("cloud",)),
    ("fmask", ("cloud", "shadow")),
    (
        "scl",
        ("cloud shadows", "cloud medium probability", "cloud high probability", "thin cirrus"),
    ),
)


class PixelQualityConfig(PluginConfig):
    """Keys of pq."""

    resampling: str = "nearest"
    mask_band: str = "SCL"
    """Band whose classes are counted."""
    nodata_classes: tuple[ClassName, ...] | None = None
    """Classes without observation; default: those that the product calls nodata."""
    cloud_classes: tuple[ClassName, ...] | None = None
    """Classes that aren't clear; default by mask band: SCL, fmask or s2cloudless."""
    filters: Any = None
    """Output name -> [[operation, radius], ...], or [[r1, r2], ...] for clear_r1_r2."""

    _cleaned: dict[str, tuple[Operation, ...]] = PrivateAttr(default_factory=dict)

    @field_validator("nodata_classes", "cloud_classes", mode="before")
    @classmethod
    def _classes(cls, value: Any, info: Any) -> Any:
        return None if value is None else parse_class_names(value, info.field_name)

    @model_validator(mode="after")
    def _pq_rules(self) -> PixelQualityConfig:
        if self.cloud_classes == ():
            raise ConfigError("no mask class is configured", "give cloud_classes: [class, ...]")
        raw = _DEFAULT_FILTERS if self.filters is None else self.filters
        if isinstance(raw, Mapping):
            named = {str(k): parse_operations(v, f"filters.{k}") for k, v in raw.items()}
        else:
            named = dict(_pair(item) for item in (raw if isinstance(raw, (list, tuple)) else [raw]))
        for name in named:
            if name in ("total", "clear") or not name.replace("-", "_").isidentifier():
                raise ConfigError(
                    f"filters: {name!r} can't be an output band",
                    "name it like clear_2_5; total and clear are always there",
                )
        self._cleaned = named
        return self

    @classmethod
    def ignored_keys(cls) -> tuple[str, ...]:
        """What follows from the mask band and the filters."""
        return ("chunks", "input_bands", "measurements")

    @property
    def cleaned(self) -> dict[str, tuple[Operation, ...]]:
        """Output name -> operations on the day's cloud mask."""
        return self._cleaned


class PixelQuality(StatsPlugin):
    """Days observed (total), clear (clear), and clear of cleaned clouds (clear_*): `pq`."""

    Config: ClassVar[type[PluginConfig]] = PixelQualityConfig
    name = "pc_s2_annual"
    version = "0.0.1"
    product_family = "pixel_quality_statistics"
    config: PixelQualityConfig

    def bands_of(self, product: Product) -> tuple[str, ...]:
        """The mask band alone."""
        del product  # the same for every product
        return (self.config.mask_band,)

    def margin(self) -> int:
        """Reach of the cleaning, pixels of the mask band."""
        return margin_of(self.config.cleaned.values())

    def inputs(self, product: Product) -> InputSpec:
        """What to read; raises ConfigError for a band or class that the product lacks."""
        spec = super().inputs(product)
        self._tests(product)
        return spec

    def stack_planes(self, products: Mapping[str, Product]) -> tuple[NativeBand, ...]:
        """Planes of 0 and 1: observed, clouded, and clouded after each cleaning."""
        del products  # the same for every mask band
        names = ("valid", "erased", *(_erased(name) for name in self.config.cleaned))
        return tuple(NativeBand(name, "uint8", None) for name in names)

    def native_transform(self, scene: xr.Dataset, product: Product) -> xr.Dataset:
        """Decode the mask; clouds are cleaned later, when the day's scenes are together."""
        variable = scene[self.config.mask_band]
        nodata, clouds = self._tests(product)
        valid = ~nodata(variable.data)
        erased = _bytes(clouds(variable.data) & valid)
        planes = {"valid": _bytes(valid), "erased": erased}
        planes |= {_erased(name): erased for name in self.config.cleaned}
        return xr.Dataset(
            {k: (variable.dims, v, {"nodata": None}) for k, v in planes.items()},
            coords=scene.coords,
            attrs=scene.attrs,
        )

    def native_fuse(self, scenes: xr.Dataset) -> xr.Dataset:
        """Unite the day's scenes, then clean the united clouds in native pixels."""
        day = self.fuse(scenes)
        for name, operations in self.config.cleaned.items():
            if operations:
                erased = kernels.clean_mask(day["erased"].data != 0, operations)
                day[_erased(name)] = (day["erased"].dims, _bytes(erased), {"nodata": None})
        return day

    def fuse(self, scenes: xr.Dataset) -> xr.Dataset:
        """Observed, or clouded, in any of the scenes."""
        return fused(scenes, lambda planes, _: _bytes(kernels.any_true(planes)))

    def output_bands(self, products: Mapping[str, Product]) -> tuple[OutputBand, ...]:
        """Counts, uint16 without nodata: 0 is never seen."""
        del products  # the same for every mask band
        names = ("total", "clear", *self.config.cleaned)
        return self.with_colours(
            tuple(OutputBand(name, "uint16", None, categorical=True) for name in names)
        )

    def reduce(self, stack: xr.Dataset) -> xr.Dataset:
        """Count the days of every pixel."""
        valid = stack["valid"].data
        out = {
            "total": kernels.count_true(valid),
            "clear": kernels.count_true(valid, unless=stack["erased"].data),
        }
        for name in self.config.cleaned:
            out[name] = kernels.count_true(valid, unless=stack[_erased(name)].data)
        dims = stack["valid"].dims[1:]
        return xr.Dataset(
            {k: (dims, v, {"nodata": None}) for k, v in out.items()},
            coords=flat_coords(stack),
            attrs=stack.attrs,
        )

    def _tests(self, product: Product) -> tuple[ClassTest, ClassTest]:
        """Tests of a mask pixel: not observed, and not clear."""
        band = self.config.mask_band
        found = known_band(product, band)
        clouds = class_test(
            product, band, self.config.cloud_classes or _default_classes(band, found)
        )
        names: tuple[ClassName, ...] | None = self.config.nodata_classes
        if names is None:
            names = nodata_classes(product, band)
        fill = found.nodata
        known = fill is None or math.isnan(fill) or names_value(product, band, fill)
        if fill is not None and not known:
            names = (*names, int(fill))
        if not names:
            raise ConfigError(
                f"band {found.name!r} of product {product.name!r} has no nodata class",
                "give nodata_classes: names of the mask band or pixel values",
            )
        return class_test(product, band, names), clouds


def _default_classes(band: str, found: Measurement) -> tuple[str, ...]:
    """What isn't clear, by the kind of mask."""
    called = [n.lower() for n in (found.name, band, *found.aliases)]
    for kind, classes in _DEFAULT_CLASSES:
        if any(name == kind if kind == "scl" else kind in name for name in called):
            return classes
    raise ConfigError(
        f"no mask class is configured for the mask band {band!r}",
        "give cloud_classes: [class, ...]",
    )


def _pair(item: Any) -> tuple[str, tuple[Operation, ...]]:
    """`[r1, r2]` of the old list form as (clear_r1_r2, operations)."""
    operations = parse_operations(item, "filters")
    if not isinstance(item, (list, tuple)) or any(isinstance(v, (list, tuple)) for v in item):
        raise ConfigError(
            f"filters: {item!r} has no name",
            "write a mapping name: [[opening, 2], [dilation, 5]], or pairs [[2, 5], [0, 5]]",
        )
    return f"clear_{item[0]}_{item[1]}", operations


def _erased(name: str) -> str:
    """Plane of the clouds that an output leaves out."""
    return f"erased_{name}"


def _bytes(mask: Any) -> Any:
    """Boolean as 0 and 1."""
    xp = array_namespace(mask)
    return xp.astype(mask, xp.uint8)
