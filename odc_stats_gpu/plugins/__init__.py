"""What a product computes, and how it is found by name. docs/plugins.md shows how to add one."""

from odc_stats_gpu.plugins._base import StatsPlugin
from odc_stats_gpu.plugins._classes import ClassTest, class_test, nodata_classes
from odc_stats_gpu.plugins._config import PluginConfig
from odc_stats_gpu.plugins._geomedian import (
    GeomedianGeneric,
    GeomedianLandsat,
    GeomedianSentinel2,
)
from odc_stats_gpu.plugins._pixel_quality import PixelQuality
from odc_stats_gpu.plugins._registry import load_plugin, registered_plugins

__all__ = [
    "ClassTest",
    "GeomedianGeneric",
    "GeomedianLandsat",
    "GeomedianSentinel2",
    "PixelQuality",
    "PluginConfig",
    "StatsPlugin",
    "class_test",
    "load_plugin",
    "nodata_classes",
    "registered_plugins",
]
