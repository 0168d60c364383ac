"""Frozen types that the rooms hand to each other. Nothing here reads, writes or computes pixels."""

from odc_stats_gpu.model._access import ReadAccess, read_access, set_read_access
from odc_stats_gpu.model._config import COG_DEFAULTS, RunConfig, explain, parse_config
from odc_stats_gpu.model._dataset import (
    BandFile,
    Dataset,
    Grid,
    Measurement,
    Product,
    as_utc,
    resolve,
)
from odc_stats_gpu.model._plugin import (
    Block,
    InputSpec,
    NativeBand,
    OutputBand,
    Plugin,
    RunInfo,
    as_stack,
)
from odc_stats_gpu.model._product import OutputProduct
from odc_stats_gpu.model._task import Task, TileIndex
from odc_stats_gpu.model._time import TimeRange, add_months

__all__ = [
    "COG_DEFAULTS",
    "BandFile",
    "Block",
    "Dataset",
    "Grid",
    "InputSpec",
    "Measurement",
    "NativeBand",
    "OutputBand",
    "OutputProduct",
    "Plugin",
    "Product",
    "ReadAccess",
    "RunConfig",
    "RunInfo",
    "Task",
    "TileIndex",
    "TimeRange",
    "add_months",
    "as_stack",
    "as_utc",
    "explain",
    "parse_config",
    "read_access",
    "resolve",
    "set_read_access",
]
