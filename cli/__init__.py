"""The command line: parsing and printing only."""

from odc_stats_gpu.cli._main import main, redrive

__all__ = ["main", "redrive"]
