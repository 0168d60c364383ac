"""From datasets to pixels: plan a tile, then read its blocks into one (band, time, y, x) stack."""

from odc_stats_gpu.ingest._block import load_block
from odc_stats_gpu.ingest._cost import stored_side
from odc_stats_gpu.ingest._device import Device
from odc_stats_gpu.ingest._plan import TilePlan, plan_tile
from odc_stats_gpu.ingest._reader import close_readers, on_first_read

__all__ = [
    "Device",
    "TilePlan",
    "close_readers",
    "load_block",
    "on_first_read",
    "plan_tile",
    "stored_side",
]
