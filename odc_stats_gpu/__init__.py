"""odc-stats-gpu: yearly composites of satellite archives, tile by tile, on GPUs and CPUs.

Importing this package loads nothing heavy; the rooms are imported by name
(`odc_stats_gpu.kernels`, `odc_stats_gpu.tasks`, ...). ARCHITECTURE.md is the map.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("odc-stats-gpu")
except PackageNotFoundError:  # a checkout on sys.path that was never installed
    __version__ = "0+unknown"

__all__ = ["__version__"]
