"""Per-pixel numerics: NumPy arrays in and out on the CPU, CuPy arrays on CUDA; no I/O."""

from odc_stats_gpu.kernels._dispatch import SimulatedDeviceArray
from odc_stats_gpu.kernels.counts import count_true
from odc_stats_gpu.kernels.fuse import any_true, first_valid
from odc_stats_gpu.kernels.geomedian import Geomad, geomad
from odc_stats_gpu.kernels.masks import FlagRule, decode_enum, decode_flags, mask_where
from odc_stats_gpu.kernels.morphology import clean_mask, mask_margin
from odc_stats_gpu.kernels.warp import Lattice, nearest_onto, refine, warp

__all__ = [
    "FlagRule",
    "Geomad",
    "Lattice",
    "SimulatedDeviceArray",
    "any_true",
    "clean_mask",
    "count_true",
    "decode_enum",
    "decode_flags",
    "first_valid",
    "geomad",
    "mask_margin",
    "mask_where",
    "nearest_onto",
    "refine",
    "warp",
]
