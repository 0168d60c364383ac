"""The oracles: NumPy float64 functions of the same names and signatures as the kernels, slow and plain."""

from odc_stats_gpu.kernels.counts.reference import count_true
from odc_stats_gpu.kernels.fuse.reference import any_true, first_valid
from odc_stats_gpu.kernels.geomedian.reference import geomad
from odc_stats_gpu.kernels.masks.reference import decode_enum, decode_flags, mask_where
from odc_stats_gpu.kernels.morphology.reference import clean_mask, mask_margin
from odc_stats_gpu.kernels.warp.reference import nearest_onto, warp

__all__ = [
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
    "warp",
]
