"""A synthetic archive in real formats, and the tour that runs the whole chain on it."""

from odc_stats_gpu.demo._archive import Archive, write_archive

__all__ = ["Archive", "write_archive"]
