"""Resampling of bands from a scene's grid onto a tile's, at the points of a lattice."""

from odc_stats_gpu.kernels.warp._face import nearest_onto, warp
from odc_stats_gpu.kernels.warp._lattice import Lattice, refine

__all__ = ["Lattice", "nearest_onto", "refine", "warp"]
