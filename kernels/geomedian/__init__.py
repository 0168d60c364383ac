"""Geometric median, its three MADs and the observation count of a stack of dates."""

from odc_stats_gpu.kernels.geomedian._face import Geomad, geomad

__all__ = ["Geomad", "geomad"]
