"""Which executor a run gets, and a worker process that is started before anything is known."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from odc_stats_gpu.engine._job import CancelToken, OnProgress, RunRequest
from odc_stats_gpu.errors import ConfigError
from odc_stats_gpu.telemetry import log

if TYPE_CHECKING:
    from odc_stats_gpu.engine._dask import Connect
    from odc_stats_gpu.engine._executor import Executor
    from odc_stats_gpu.engine._process import WorkerProcess

_started: list[WorkerProcess] = []
CLUSTERS = ("worker", "none", "dask", "dask-cuda")


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
    """The executor of `--cluster worker|none|dask|dask-cuda` or `--scheduler ADDRESS`.

    Without either: dask-cuda where there is a GPU to be used, unless tasks come from a queue;
    else worker. Raises ConfigError for an unknown cluster, a missing extra or a missing GPU.
    """
    config = request.config
    cluster, scheduler = str(config.get("cluster") or ""), str(config.get("scheduler") or "")
    if cluster not in ("", *CLUSTERS):
        raise ConfigError(f"unknown cluster {cluster!r}", f"one of {', '.join(CLUSTERS)}")
    if scheduler and cluster not in ("", "dask"):
        raise ConfigError(
            f"--cluster {cluster} and --scheduler {scheduler} exclude each other", "give one"
        )
    if request.queue and (scheduler or cluster.startswith("dask")):
        raise ConfigError(
            "a Dask cluster takes no tasks from a queue",
            "leave out --cluster: one process per GPU, each with --from-sqs",
        )
    limit = _seconds(config.get("max_processing_time", 0))
    cluster = cluster or _default(request)
    if scheduler or cluster in ("dask", "dask-cuda"):
        drop_prestarted()
        from odc_stats_gpu.engine._dask import DaskExecutor

        return DaskExecutor(
            _connect(cluster, scheduler, request), time_limit=limit, token=token,
            progress=progress, device="cuda" if cluster == "dask-cuda" else "",
        )  # fmt: skip
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


def one_of_the_workers(request: RunRequest) -> RunRequest:
    """The request as each of several workers on this machine would get it: for a dry run."""
    cluster = str(request.config.get("cluster") or "") or _default(request)
    if cluster not in ("dask", "dask-cuda"):
        return request
    from odc_stats_gpu.engine._dask_start import one_worker
    from odc_stats_gpu.model import parse_config

    try:
        part, room = one_worker(cluster, parse_config(request.config))
    except ConfigError:  # the machine that will run may have what this one lacks
        return request
    if part.workers > 1:
        log(f"{part.workers} workers, this is the plan of each", threads=part.threads,
            memory_limit_mib=part.memory >> 20)  # fmt: skip
    changed: dict[str, Any] = {"threads": part.threads, "memory_limit": str(part.memory)}
    if cluster == "dask-cuda":
        changed["device"] = "cuda"
    return replace(request, config={**request.config, **changed}, device_memory=room)


def _default(request: RunRequest) -> str:
    """What takes the place of a cluster that is not named."""
    if request.config.get("scheduler") or request.queue:
        return ""
    return "dask-cuda" if _gpu_at_hand(request.config.get("device", "auto")) else ""


def _connect(cluster: str, scheduler: str, request: RunRequest) -> Connect:
    from odc_stats_gpu.engine import _dask_start as start
    from odc_stats_gpu.model import parse_config

    config = parse_config(request.config)
    if scheduler:
        return start.foreign(scheduler)
    return start.cuda(config) if cluster == "dask-cuda" else start.local(config)


def _gpu_at_hand(device: object) -> bool:
    """Whether the run would use a real GPU; NVML is asked first: most machines have none."""
    if device == "cpu" or os.environ.get("NUMBA_ENABLE_CUDASIM") == "1":
        return False
    if importlib.util.find_spec("pynvml") is None:
        return False
    from odc_stats_gpu.engine._device import gpu_problem, missing_kernels

    if gpu_problem()[0] or missing_kernels():
        return False
    if importlib.util.find_spec("dask_cuda") is None:
        log("dask-cuda is not installed: one worker process, which uses the first GPU",
            level="warning")  # fmt: skip
        return False
    return True


def _seconds(value: object) -> float:
    """The time limit; anything odd is left to the validation of the configuration."""
    return float(value) if isinstance(value, (int, float)) else 0.0
