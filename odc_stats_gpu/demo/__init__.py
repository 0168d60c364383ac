"""A synthetic archive in real formats, and the tour that runs the whole chain on it."""

from odc_stats_gpu.demo._archive import Archive
from odc_stats_gpu.demo._tour import run_demo
from odc_stats_gpu.demo._write import write_archive

__all__ = ["Archive", "run_demo", "write_archive"]
