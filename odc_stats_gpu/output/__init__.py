"""Finished tiles: COGs, STAC items, checksums, the stores they go to, proof and report."""

from odc_stats_gpu.output._budget import writer_bytes
from odc_stats_gpu.output._findings import Finding, Report, TileFindings
from odc_stats_gpu.output._options import check_cog_options
from odc_stats_gpu.output._publish import OvertakenError, read_back
from odc_stats_gpu.output._report import write_report
from odc_stats_gpu.output._store import ChangedError, Store, open_store
from odc_stats_gpu.output._verify import verify
from odc_stats_gpu.output._writer import TileWriter, Written, is_done, item_uri

__all__ = [
    "ChangedError",
    "Finding",
    "OvertakenError",
    "Report",
    "Store",
    "TileFindings",
    "TileWriter",
    "Written",
    "check_cog_options",
    "is_done",
    "item_uri",
    "open_store",
    "read_back",
    "verify",
    "write_report",
    "writer_bytes",
]
