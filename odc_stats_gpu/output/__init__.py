"""Finished tiles: COGs, STAC items, checksums, the stores they go to, proof and report."""

from odc_stats_gpu.output._store import Store, open_store
from odc_stats_gpu.output._writer import TileWriter, Written, is_done, item_uri, writer_bytes

__all__ = [
    "Store",
    "TileWriter",
    "Written",
    "is_done",
    "item_uri",
    "open_store",
    "writer_bytes",
]
