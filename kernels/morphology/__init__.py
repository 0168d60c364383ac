"""Cleaning of masks by Euclidean disks: opening, closing, dilation, erosion."""

from odc_stats_gpu.kernels.morphology._face import clean_mask, mask_margin

__all__ = ["clean_mask", "mask_margin"]
