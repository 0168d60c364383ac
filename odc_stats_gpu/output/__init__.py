"""Finished tiles: COGs, STAC items, checksums, the stores they go to, proof and report."""

from odc_stats_gpu.output._budget import writer_bytes
from odc_stats_gpu.output._findings import Finding, Report, TileFindings
from odc_stats_gpu.output._report import write_report
from odc_stats_gpu.output._store import Store, open_store
from odc_stats_gpu.output._verify import verify
from odc_stats_gpu.output._writer import TileWriter, Written, is_done, item_uri

__all__ = [
    "Finding",
    "Report",
    "Store",
    "TileFindings",
    "TileWriter",
    "Written",
    "is_done",
    "item_uri",
    "open_store",
    "verify",
    "write_report",
    "writer_bytes",
]
