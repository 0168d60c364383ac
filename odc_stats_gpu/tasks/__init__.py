"""Where tasks come from: sources, grids, binning, the task database, selectors.

Nothing here reads pixels; only this room knows datacube.
"""

from odc_stats_gpu.tasks._datacube import DatacubeSource
from odc_stats_gpu.tasks._eo3 import Eo3Source
from odc_stats_gpu.tasks._frequency import FREQUENCIES
from odc_stats_gpu.tasks._grids import BUILT_IN, NamedGrid, parse_grid
from odc_stats_gpu.tasks._save import SaveSummary, output_name, parse_tiles, save_tasks
from odc_stats_gpu.tasks._selectors import select
from odc_stats_gpu.tasks._source import Scene, Source
from odc_stats_gpu.tasks._taskdb import TaskDb
from odc_stats_gpu.tasks._termfilter import parse_dataset_filter

__all__ = [
    "BUILT_IN",
    "FREQUENCIES",
    "DatacubeSource",
    "Eo3Source",
    "NamedGrid",
    "SaveSummary",
    "Scene",
    "Source",
    "TaskDb",
    "output_name",
    "parse_dataset_filter",
    "parse_grid",
    "parse_tiles",
    "save_tasks",
    "select",
]
