"""Median NDVI of the clear observations: a plugin in a file of its own.

Run it with `plugin: docs/examples/ndvi_median.py:NdviMedian` in the configuration.
"""

from __future__ import annotations

import math
from typing import ClassVar

import xarray as xr
from array_api_compat import array_namespace

from odc_stats_gpu.model import NativeBand, OutputBand, Product
from odc_stats_gpu.plugins import PluginConfig, StatsPlugin, class_test


class NdviConfig(PluginConfig):
    """Keys of `plugin_config`: the base keys with other defaults, and one of our own."""

    input_bands: tuple[str, ...] = ("nbart_red", "nbart_nir", "fmask")
    bad_classes: tuple[str | int, ...] = ("nodata", "cloud", "shadow")


class NdviMedian(StatsPlugin):
    """NDVI of every scene, masked in native pixels; then the median over the days."""

    Config: ClassVar[type[PluginConfig]] = NdviConfig
    name = "ndvi_median"
    version = "1.0.0"
    product_family = "ndvi"
    planes = (NativeBand("ndvi", "float32", math.nan),)
    outputs = (OutputBand("ndvi_median", "float32", math.nan),)
    config: NdviConfig

    def native_transform(self, scene: xr.Dataset, product: Product) -> xr.Dataset:
        """Make the plane: dims (y, x) in, (y, x) out."""
        red_name, nir_name, mask_name = self.config.input_bands
        xp = array_namespace(scene[red_name].data)
        red, nir = (xp.astype(scene[name].data, xp.float32) for name in (red_name, nir_name))
        bad = class_test(product, mask_name, self.config.bad_classes)(scene[mask_name].data)
        for name in (red_name, nir_name):
            bad = bad | (scene[name].data == scene[name].attrs["nodata"])
        bad = bad | (nir + red == 0)
        ndvi = (nir - red) / xp.where(bad, xp.ones_like(red), nir + red)
        ndvi = xp.where(bad, xp.full_like(ndvi, math.nan), ndvi)
        return xr.Dataset({"ndvi": (("y", "x"), ndvi, {"nodata": math.nan})}, coords=scene.coords)

    def reduce(self, stack: xr.Dataset) -> xr.Dataset:
        """Make the product: dims (time, y, x) in, (y, x) out."""
        median = stack["ndvi"].median("time").assign_attrs(nodata=math.nan)
        return xr.Dataset({"ndvi_median": median})
