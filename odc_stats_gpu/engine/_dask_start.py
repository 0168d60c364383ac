"""Which Dask cluster a run gets, and how it is started."""

from __future__ import annotations

import importlib.util
import os
from typing import Any

from odc_stats_gpu.engine._cuda_cluster import (
    HOST_FLOOR,
    WORKER_MODULE,
    Gpu,
    Pool,
    Share,
    cluster_arguments,
    near_cpus,
    parse_pool,
    pool_bytes,
    share,
    visible,
)
from odc_stats_gpu.engine._cuda_device import CUDA_CONTEXT
from odc_stats_gpu.engine._dask import Connect
from odc_stats_gpu.engine._dask_cluster import ForeignWorkers, OwnWorkers, Workers
from odc_stats_gpu.engine._device import gpu_problem
from odc_stats_gpu.engine._gpus import list_gpus
from odc_stats_gpu.engine._job import CancelToken, Prepared
from odc_stats_gpu.engine._limits import DeviceMemory, read_limits
from odc_stats_gpu.engine._prepare import check_part
from odc_stats_gpu.errors import ConfigError
from odc_stats_gpu.model import RunConfig
from odc_stats_gpu.telemetry import log

_TIMEOUT = 120.0
"""Seconds in which all workers must be there; a cold disk can be slow."""
_INSTALL = "pip install 'odc-stats-gpu[cuda13]' (or cuda12)"


def need_dask(option: str) -> None:
    """Raises ConfigError when Dask is missing."""
    if importlib.util.find_spec("distributed") is None:
        raise ConfigError(f"{option} needs Dask", "pip install 'odc-stats-gpu[dask]'")


def foreign(address: str) -> Connect:
    """`--scheduler ADDRESS`: the workers' threads and memory are their own affair."""
    need_dask("--scheduler")

    def connect(_prepared: Prepared, token: CancelToken) -> tuple[Workers, Share | None]:
        workers = ForeignWorkers(address)
        try:
            workers.wait(token, _TIMEOUT)
        except BaseException:
            workers.close()
            raise
        return workers, None

    return connect


def local(config: RunConfig) -> Connect:
    """`--cluster dask`: one worker with all threads, or as many as `workers` says."""
    need_dask("--cluster dask")

    def connect(prepared: Prepared, token: CancelToken) -> tuple[Workers, Share | None]:
        parts = _local_share(config, prepared.threads, prepared.memory_limit)
        for job in prepared.jobs[:1]:
            check_part(config, job, workers=parts.workers, threads=parts.threads,
                       memory=parts.memory)  # fmt: skip

        def build(scratch: str) -> Any:
            from distributed import LocalCluster

            return LocalCluster(
                n_workers=parts.workers, threads_per_worker=1, processes=True, memory_limit=0,
                dashboard_address=config.dashboard or None, local_directory=scratch,
                silence_logs=40, preload=[WORKER_MODULE],
            )  # fmt: skip

        remedy = "look for other processes that take all memory or CPUs, or use --cluster worker"
        return OwnWorkers(build, parts.workers, token=token, timeout=_TIMEOUT, remedy=remedy), parts

    return connect


def cuda(config: RunConfig) -> Connect:
    """`--cluster dask-cuda`: one worker per GPU. Raises ConfigError when there is none."""
    gpus, simulated = _gpus(config)
    pool = Pool(0) if simulated else parse_pool(config.rmm_pool)

    def connect(prepared: Prepared, token: CancelToken) -> tuple[Workers, Share | None]:
        parts = _cuda_share(config, gpus, prepared.threads, prepared.memory_limit)
        if parts.why:
            log(parts.why, level="warning")

        def build(scratch: str) -> Any:
            from dask_cuda import LocalCUDACluster

            arguments = cluster_arguments(
                gpus, workers=parts.workers, pool=pool, scratch=scratch, dashboard=config.dashboard
            )
            return LocalCUDACluster(**arguments)

        return OwnWorkers(
            build, parts.workers, token=token, timeout=_TIMEOUT, remedy=_remedy(gpus, pool)
        ), parts

    return connect


def _gpus(config: RunConfig) -> tuple[list[Gpu], bool]:
    """The GPUs to be used, and whether they are simulated; raises ConfigError without any."""
    simulated = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"
    if config.device == "cpu" or (simulated and config.device != "cuda"):
        raise ConfigError(
            f"--cluster dask-cuda and --device {config.device} exclude each other"
            + (" in the CUDA simulator" if simulated else ""),
            "give --device cuda, or another --cluster",
        )
    if importlib.util.find_spec("dask_cuda") is None:
        raise ConfigError("--cluster dask-cuda needs dask-cuda", _INSTALL)
    problem, remedy = ("", "") if simulated else gpu_problem()
    if problem:
        raise ConfigError(f"--cluster dask-cuda: {problem}", remedy)
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = visible(list_gpus(), listed)
    if not gpus:
        raise ConfigError(
            "--cluster dask-cuda: no GPU"
            + (f" in CUDA_VISIBLE_DEVICES={listed}" if listed is not None else ""),
            "see `odc-stats-gpu doctor`, or use --device cpu",
        )
    return gpus, simulated


def one_worker(cluster: str, config: RunConfig) -> tuple[Share, DeviceMemory | None]:
    """What each worker of `dask` or `dask-cuda` would get, and find on the fullest of the GPUs.

    Raises ConfigError as a run would.
    """
    limits = read_limits(config.memory_limit)
    threads = config.threads if config.threads > 0 else limits.cpus
    if cluster == "dask":
        return _local_share(config, threads, limits.memory), None
    gpus, _ = _gpus(config)
    part = _cuda_share(config, gpus, threads, limits.memory)
    gpu = min(gpus[: part.workers], key=lambda gpu: gpu.free)
    if pool := pool_bytes(gpus[: part.workers], parse_pool(config.rmm_pool).fraction):
        return part, DeviceMemory(pool, f"RMM pool on {gpu.name}")
    free = DeviceMemory(gpu.free, f"free on {gpu.name}", CUDA_CONTEXT)
    return part, free if gpu.free else None


def _local_share(config: RunConfig, threads: int, memory: int) -> Share:
    return share(max(1, config.workers), wanted=config.workers, threads=threads, memory=memory)


def _cuda_share(config: RunConfig, gpus: list[Gpu], threads: int, memory: int) -> Share:
    near = near_cpus(gpus, os.sched_getaffinity(0))
    return share(len(gpus), wanted=config.workers, threads=threads, memory=memory,
                 floor=HOST_FLOOR, near=near)  # fmt: skip


def _remedy(gpus: list[Gpu], pool: Pool) -> str:
    """What to do when a GPU has no worker."""
    hint = "see nvidia-smi for a GPU that is taken or broken and leave it out of"
    smaller = ", or lower --rmm-pool" if pool.fraction else ""
    return f"{hint} CUDA_VISIBLE_DEVICES ({len(gpus)} visible){smaller}"
