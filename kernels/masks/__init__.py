"""Decoding of class and bit-field masks, and blanking of bands by masks."""

from odc_stats_gpu.kernels.masks._arguments import FlagRule
from odc_stats_gpu.kernels.masks._face import decode_enum, decode_flags, mask_where

__all__ = ["FlagRule", "decode_enum", "decode_flags", "mask_where"]
