"""Where and when tiles are made: device, memory plan, block pipeline, executors, life of a task.

Importing this loads nothing heavy: the process that supervises needs neither NumPy nor GDAL.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from odc_stats_gpu.engine._doctor import examine
    from odc_stats_gpu.engine._executor import Executor
    from odc_stats_gpu.engine._fetch import local_database, read_url
    from odc_stats_gpu.engine._finding import Finding
    from odc_stats_gpu.engine._fleet import QueueTerms, work_queue
    from odc_stats_gpu.engine._heartbeat import first_beat, heartbeat
    from odc_stats_gpu.engine._inline import InlineExecutor
    from odc_stats_gpu.engine._job import (
        CancelToken,
        Prepared,
        RunRequest,
        RunSummary,
        TaskJob,
        TaskResult,
    )
    from odc_stats_gpu.engine._lifecycle import process_task
    from odc_stats_gpu.engine._prepare import dry_run
    from odc_stats_gpu.engine._profiler import ProfiledRun, Profiler, execute, profiled
    from odc_stats_gpu.engine._run import run_tasks
    from odc_stats_gpu.engine._spot import spot_notice
    from odc_stats_gpu.engine._start import (
        drop_prestarted,
        one_of_the_workers,
        open_executor,
        prestart,
    )
    from odc_stats_gpu.engine._worker import WorkerExecutor

_HOMES = {
    "CancelToken": "_job",
    "Executor": "_executor",
    "Finding": "_finding",
    "InlineExecutor": "_inline",
    "Prepared": "_job",
    "ProfiledRun": "_profiler",
    "Profiler": "_profiler",
    "QueueTerms": "_fleet",
    "RunRequest": "_job",
    "RunSummary": "_job",
    "TaskJob": "_job",
    "TaskResult": "_job",
    "spot_notice": "_spot",
    "work_queue": "_fleet",
    "WorkerExecutor": "_worker",
    "drop_prestarted": "_start",
    "dry_run": "_prepare",
    "examine": "_doctor",
    "execute": "_profiler",
    "first_beat": "_heartbeat",
    "heartbeat": "_heartbeat",
    "local_database": "_fetch",
    "one_of_the_workers": "_start",
    "open_executor": "_start",
    "prestart": "_start",
    "process_task": "_lifecycle",
    "profiled": "_profiler",
    "read_url": "_fetch",
    "run_tasks": "_run",
}

__all__ = [
    "CancelToken",
    "Executor",
    "Finding",
    "InlineExecutor",
    "Prepared",
    "ProfiledRun",
    "Profiler",
    "QueueTerms",
    "RunRequest",
    "RunSummary",
    "TaskJob",
    "TaskResult",
    "WorkerExecutor",
    "drop_prestarted",
    "dry_run",
    "examine",
    "execute",
    "first_beat",
    "heartbeat",
    "local_database",
    "one_of_the_workers",
    "open_executor",
    "prestart",
    "process_task",
    "profiled",
    "read_url",
    "run_tasks",
    "spot_notice",
    "work_queue",
]


def __getattr__(name: str) -> Any:
    """Import a name's module on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
