"""The geomedian family: clouds erased per scene, geometric median, MADs and count per stack."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import xarray as xr

from odc_stats_gpu import kernels
from odc_stats_gpu.errors import ConfigError
from odc_stats_gpu.model import InputSpec, NativeBand, OutputBand, Product, as_stack
from odc_stats_gpu.plugins._base import Numerics, StatsPlugin, flat_coords
from odc_stats_gpu.plugins._classes import ClassTest, class_test, nodata_classes
from odc_stats_gpu.plugins._config import PluginConfig
from odc_stats_gpu.plugins._filters import margin_of
from odc_stats_gpu.plugins._geomedian_config import (
    GeomedianConfig,
    LandsatConfig,
    Sentinel2Config,
)
from odc_stats_gpu.plugins._planes import common_dtype, native_planes
from odc_stats_gpu.plugins._rounding import to_pixels, to_pixels_compat


class GeomedianGeneric(StatsPlugin):
    """Geometric median of any bands under any mask band, with SMAD, EMAD, BCMAD and count."""

    Config: ClassVar[type[PluginConfig]] = GeomedianConfig
    name = "gm"
    version = "0.0.0"
    product_family = "geomedian"
    config: GeomedianConfig

    def __init__(
        self,
        config: GeomedianConfig | Mapping[str, Any] | None = None,
        *,
        numerics: Numerics = "exact",
    ) -> None:
        """Check the configuration; raises ConfigError naming the key, the value and the remedy."""
        super().__init__(config, numerics=numerics)
        self.rgb_bands = self.config.colours
        self.numerics = self.config.numerics or numerics
        self._types: dict[str, str] = {}

    # what is read -------------------------------------------------------------------------------

    def bands_of(self, product: Product) -> tuple[str, ...]:
        """Bands of the geomedian, then the mask, then contiguity."""
        contiguity = self.config.contiguity_band
        wanted = (*self._data_bands(product), self.config.mask_band, contiguity)
        return tuple(dict.fromkeys(name for name in wanted if name))

    def optional_bands(self) -> frozenset[str]:
        """Contiguity, and what the configuration calls optional."""
        contiguity = self.config.contiguity_band
        return super().optional_bands() | ({contiguity} if contiguity else frozenset())

    def margin(self) -> int:
        """Reach of the mask cleaning, pixels of the basis band."""
        return margin_of(rule.operations for rule in self.config.rules)

    def basis(self) -> str | None:
        """The configured band; None: the first."""
        return self.config.basis_band or self.config.basis

    def inputs(self, product: Product) -> InputSpec:
        """What to read of a scene.

        Raises:
            ConfigError: a band or class that the product lacks, listing the known ones, or a band
                whose missing pixels can't be told from others.
        """
        spec = super().inputs(product)
        self._planes_as_read({product.name: product})
        self._tests(product)
        return replace(spec, native_bands=self.config.native_bands)

    # what is kept per scene ---------------------------------------------------------------------

    def stack_planes(self, products: Mapping[str, Product]) -> tuple[NativeBand, ...]:
        """Bands of the geomedian, all in the one type that holds them."""
        planes = self._planes_as_read(products)
        dtype = common_dtype(p.dtype for p in planes)
        return tuple(replace(p, dtype=dtype) for p in planes)

    def native_bands(self, products: Mapping[str, Product]) -> tuple[NativeBand, ...]:
        """Planes of the stack; remembered with the types of the outputs."""
        self._types = {p.name: p.dtype for p in self._planes_as_read(products)}
        return super().native_bands(products)

    def native_transform(self, scene: xr.Dataset, product: Product) -> xr.Dataset:
        """Erase nodata classes, contiguity 0 and cleaned cloud classes in native pixels."""
        mask = scene[self.config.mask_band].data
        nodata, clouds = self._tests(product)
        bad = nodata(mask)
        for rule, test in zip(self.config.rules, clouds, strict=True):
            found = test(mask)
            bad = bad | (kernels.clean_mask(found, rule.operations) if rule.operations else found)
        contiguity = self.config.contiguity_band
        if contiguity and contiguity in scene:
            bad = bad | (scene[contiguity].data == 0)
        return self.as_planes(scene, product, bad)

    # what is made -------------------------------------------------------------------------------

    def output_bands(self, products: Mapping[str, Product]) -> tuple[OutputBand, ...]:
        """The bands in their input type, then three MADs (float32, NaN) and count (uint16)."""
        bands = []
        for plane in self._planes_as_read(products):
            found = next(m for p in products.values() if (m := p.find(plane.name)))
            bands.append(OutputBand(plane.name, plane.dtype, plane.nodata, units=found.units))
        aux = self.config.aux
        mads = [OutputBand(aux[k], "float32", math.nan) for k in ("smad", "emad", "bcmad")]
        count = OutputBand(aux["count"], "uint16", None, categorical=True)
        return self.with_colours((*bands, *mads, count))

    def reduce(self, stack: xr.Dataset) -> xr.Dataset:
        """Geomedian in the bands' own type, MADs and count of every pixel.

        A pixel without an observation that is valid in every band is nodata in all bands, NaN in
        the MADs and 0 in the count.
        """
        config, aux = self.config, self.config.aux
        scaling = {"scale": config.scale, "offset": config.offset}
        variables = {str(name): variable for name, variable in stack.data_vars.items()}
        nodata = {name: variable.attrs["nodata"] for name, variable in variables.items()}
        found = kernels.geomad(as_stack(stack), list(nodata.values()), **scaling)
        dims = next(iter(variables.values())).dims[1:]
        out: dict[str, Any] = {}
        for index, (name, variable) in enumerate(variables.items()):
            dtype = self._types.get(name, str(variable.dtype))
            plane = found.geomedian[index, ...]
            if self.numerics == "compat":
                pixels = to_pixels_compat(plane, dtype, nodata[name], **scaling)
            else:
                pixels = to_pixels(plane, dtype, nodata[name])
            out[name] = (dims, pixels, {"nodata": nodata[name]})
        for key in ("smad", "emad", "bcmad"):
            out[aux[key]] = (dims, getattr(found, key), {"nodata": math.nan})
        out[aux["count"]] = (dims, found.count, {"nodata": None})
        return xr.Dataset(out, coords=flat_coords(stack), attrs=stack.attrs)

    # inside -------------------------------------------------------------------------------------

    def _data_bands(self, product: Product) -> tuple[str, ...]:
        """Bands of the geomedian: those listed, but contiguity under no name."""
        gaps = product.find(self.config.contiguity_band or "")
        return tuple(n for n in self.config.data_bands if gaps is None or product.find(n) != gaps)

    def _planes_as_read(self, products: Mapping[str, Product]) -> tuple[NativeBand, ...]:
        """Bands of the geomedian in the types of the product definitions."""
        wanted = [set(self._data_bands(p)) for p in products.values()]
        names = [n for n in self.config.data_bands if all(n in w for w in wanted)]
        planes = native_planes(names, products, self.optional_bands())
        for plane in planes:
            if plane.nodata is None:
                raise ConfigError(
                    f"band {plane.name!r} ({plane.dtype}) of {', '.join(products)} has no nodata",
                    "a masked pixel needs one: add it to the product definition",
                )
        return planes

    def _tests(self, product: Product) -> tuple[ClassTest, tuple[ClassTest, ...]]:
        """Tests of a mask pixel: no data, and each rule's classes."""
        config, band = self.config, self.config.mask_band
        names = config.nodata_classes
        if names is None:
            names = nodata_classes(product, band)
        return (
            class_test(product, band, names),
            tuple(class_test(product, band, rule.classes) for rule in config.rules),
        )


class GeomedianSentinel2(GeomedianGeneric):
    """Geomedian of Sentinel-2 under SCL: `gm-s2`."""

    Config: ClassVar[type[PluginConfig]] = Sentinel2Config
    name = "gm_s2_annual"


class GeomedianLandsat(GeomedianGeneric):
    """Geomedian of Landsat ARD under fmask and contiguity: `gm-ls`."""

    Config: ClassVar[type[PluginConfig]] = LandsatConfig
    name = "gm_ls_annual"
    version = "3.0.1"
