"""Which executor a run gets, and a worker process that is started before anything is known."""

from __future__ import annotations

from typing import TYPE_CHECKING

from odc_stats_gpu.engine._job import CancelToken, OnProgress, RunRequest
from odc_stats_gpu.errors import ConfigError

if TYPE_CHECKING:
    from odc_stats_gpu.engine._executor import Executor
    from odc_stats_gpu.engine._process import WorkerProcess

_started: list[WorkerProcess] = []
CLUSTERS = ("worker", "none", "dask")


def prestart() -> None:
    """Start a worker now: it imports while the command line is being read."""
    from odc_stats_gpu.engine._process import WorkerProcess

    _started.append(WorkerProcess())


def drop_prestarted() -> None:
    """End a worker that nobody took."""
    while _started:
        _started.pop().stop(0)


def open_executor(
    request: RunRequest, *, token: CancelToken, progress: OnProgress | None = None
) -> Executor:
    """The executor of `--cluster worker|none|dask` or `--scheduler ADDRESS`.

    Raises ConfigError for an unknown cluster or a missing extra.
    """
    config = request.config
    cluster, scheduler = str(config.get("cluster") or ""), str(config.get("scheduler") or "")
    if cluster not in ("", *CLUSTERS):
        raise ConfigError(f"unknown cluster {cluster!r}", f"one of {', '.join(CLUSTERS)}")
    if scheduler and cluster not in ("", "dask"):
        raise ConfigError(
            f"--cluster {cluster} and --scheduler {scheduler} exclude each other", "give one"
        )
    limit = _seconds(config.get("max_processing_time", 0))
    if scheduler or cluster == "dask":
        drop_prestarted()
        from odc_stats_gpu.engine._dask import DaskExecutor

        return DaskExecutor(request, scheduler=scheduler, time_limit=limit, token=token)
    if cluster == "none":
        drop_prestarted()
        from odc_stats_gpu.engine._env import pin_environment
        from odc_stats_gpu.engine._inline import InlineExecutor

        pin_environment()
        return InlineExecutor(token=token, progress=progress)
    from odc_stats_gpu.engine._worker import WorkerExecutor

    process = _started.pop() if _started else None
    return WorkerExecutor(
        request, time_limit=limit, token=token, progress=progress, process=process
    )


def _seconds(value: object) -> float:
    """The time limit; anything odd is left to the validation of the configuration."""
    return float(value) if isinstance(value, (int, float)) else 0.0
