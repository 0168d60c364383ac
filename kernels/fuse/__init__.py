"""Merging of scenes of one day into one layer."""

from odc_stats_gpu.kernels.fuse._face import any_true, first_valid

__all__ = ["any_true", "first_valid"]
