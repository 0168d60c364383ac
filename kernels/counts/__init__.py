"""Counts of observations."""

from odc_stats_gpu.kernels.counts._face import count_true

__all__ = ["count_true"]
