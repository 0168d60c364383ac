"""Arguments of `dask_cuda.LocalCUDACluster`, from facts alone: nothing is asked or started.

Facts come from `_gpus.py` (NVML), `_limits.py` (control groups) and the configuration.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from odc_stats_gpu.errors import ConfigError

WORKER_MODULE = "odc_stats_gpu.engine._dask_worker"
"""Preloaded in every worker of ours: signals, output and environment as we want them."""
HOST_FLOOR = 3 << 30
"""Bytes of host memory per GPU worker: what a tile of 9600x9600 pixels and ten bands needs."""
CONTEXT = 1 << 30
"""Bytes of device memory that stay outside the pool: context, kernels, what others may start."""
POOL_FLOOR = 512 << 20
"""A smaller pool is not worth having: the driver allocates."""
_ALIGNMENT = 256
_MOST = 0.95
_NONE = ("", "-1", "none", "void", "nodevfiles")
"""Values of CUDA_VISIBLE_DEVICES that hide every GPU."""
_ERROR = 40


@dataclass(frozen=True, slots=True)
class Gpu:
    """One device that can have a worker: a GPU, or an instance of one in MIG mode."""

    index: int
    """NVML's number of the GPU, in order of the PCI bus; of the parent for a MIG instance."""
    uuid: str
    """GPU-... or MIG-..."""
    memory: int
    """Bytes in all; 0 where host and device share theirs."""
    free: int
    """Bytes that nobody uses now."""
    cpus: tuple[int, ...] = ()
    """CPUs next to it; empty when the driver doesn't tell."""
    name: str = ""
    parent: str = ""
    """UUID of the GPU whose instance it is, else empty."""


@dataclass(frozen=True, slots=True)
class Pool:
    """The memory pool of a worker."""

    fraction: float
    """Of the device memory that is free; 0: no pool."""
    asynchronous: bool = False
    """The driver's own pool (cudaMallocAsync): grows with use, keeps up to `fraction`."""


@dataclass(frozen=True, slots=True)
class Share:
    """What each of several workers on one machine may use."""

    workers: int
    threads: int
    """Of one worker."""
    memory: int
    """Bytes of host memory of one worker."""
    why: str = ""
    """One line when there are fewer workers than GPUs."""


def parse_pool(text: str) -> Pool:
    """`0.8`: that fraction of the free device memory; `0`: none; `async` or `async:0.5`.

    Raises ConfigError.
    """
    head, colon, tail = text.strip().lower().partition(":")
    asynchronous = head == "async"
    number = (tail if colon else "0.8") if asynchronous else text
    try:
        fraction = float(number)
    except ValueError:
        fraction = math.nan
    if not 0 <= fraction <= _MOST:
        raise ConfigError(
            f"can't use rmm_pool {text!r}",
            f"a fraction of the free device memory from 0 (no pool) to {_MOST}, or async",
        )
    return Pool(fraction, asynchronous and fraction > 0)


def visible(gpus: Sequence[Gpu], listed: str | None) -> list[Gpu]:
    """The GPUs that CUDA_VISIBLE_DEVICES names, in its order; all of them for None.

    As the driver does: a number counts along the PCI bus, a UUID may be shortened as long as one
    device has it, and the list ends at the first entry that names none. The number or UUID of a
    GPU in MIG mode stands for all of its instances. Raises ConfigError for one named twice.
    """
    if listed is None:
        return list(gpus)
    found: list[Gpu] = []
    for entry in (part.strip() for part in listed.split(",")):
        if entry.lower() in _NONE:
            break
        named = _named(gpus, entry)
        if not named:
            break
        found += named
    if len({gpu.uuid for gpu in found}) < len(found):
        raise ConfigError(
            f"CUDA_VISIBLE_DEVICES={listed} names a GPU twice", "name each of them once"
        )
    return found


def _named(gpus: Sequence[Gpu], entry: str) -> list[Gpu]:
    if entry.isdecimal():
        return [gpu for gpu in gpus if gpu.index == int(entry)]
    if not entry.upper().startswith(("GPU-", "MIG-")):
        return []
    for uuid in ("uuid", "parent"):
        found = [gpu for gpu in gpus if getattr(gpu, uuid).lower().startswith(entry.lower())]
        if len({getattr(gpu, uuid) for gpu in found}) == 1:
            return found
    return []


def share(
    places: int, *, wanted: int, threads: int, memory: int, floor: int = 0, near: int = 0
) -> Share:
    """Divide CPUs and host memory of this machine among the workers.

    `places`: how many there can be; `wanted`: how many there should be, 0 for all; `floor`: host
    memory without which a worker can't live; `near`: CPUs that a worker is pinned to, 0 if to none.
    There is always one worker.
    """
    asked = min(wanted, places) if wanted > 0 else places
    room = max(1, memory // floor) if floor else asked
    workers = max(1, min(asked, room))
    why = ""
    if workers < asked:
        why = (
            f"{workers} of {asked} GPUs used: {memory / 2**30:.1f} GiB of host memory, "
            f"each worker needs {floor / 2**30:.0f} GiB"
        )
    elif wanted > places:
        why = f"{workers} workers: there are no more GPUs"
    each = min(threads // workers, near or threads)
    return Share(workers, max(1, each), memory // workers, why)


def near_cpus(gpus: Sequence[Gpu], allowed: Collection[int]) -> int:
    """CPUs that the worst placed of these GPUs can use when its worker is pinned next to it.

    Where the driver tells none, or none that is `allowed` here, the worker is not pinned.
    """
    counts = [len(set(gpu.cpus) & set(allowed)) or len(allowed) for gpu in gpus]
    return min(counts, default=len(allowed))


def pool_bytes(gpus: Sequence[Gpu], fraction: float) -> int:
    """Bytes of a pool that fits each of these GPUs, a multiple of 256; 0 for no pool."""
    if not gpus or fraction <= 0:
        return 0
    free = min(gpu.free for gpu in gpus)
    size = min(int(free * fraction), free - CONTEXT)
    return size // _ALIGNMENT * _ALIGNMENT if size >= POOL_FLOOR else 0


def cluster_arguments(
    gpus: Sequence[Gpu],
    *,
    workers: int,
    pool: Pool,
    scratch: str,
    dashboard: str = "",
) -> dict[str, Any]:
    """Keyword arguments of LocalCUDACluster: one single-threaded worker on each of the first GPUs.

    Devices are named by UUID: numbers mean one order to NVML and another one to CUDA. Dask spills
    nothing and supervises no memory: tiles never become Dask's data, blocks are cut to fit, and
    its limits would pause or kill workers that are within ours. `scratch` is the folder of the
    workers' working directories, `dashboard` an address like `:8787`, none by default.
    """
    chosen = list(gpus[:workers])
    size = pool_bytes(chosen, pool.fraction)
    return {
        "CUDA_VISIBLE_DEVICES": [gpu.uuid for gpu in chosen],
        "n_workers": len(chosen),
        "threads_per_worker": 1,  # one tile at a time: its threads are ours
        "memory_limit": 0,
        "device_memory_limit": 0,
        "rmm_pool_size": size if size and not pool.asynchronous else None,
        "rmm_async": bool(size) and pool.asynchronous,
        "rmm_maximum_pool_size": size if size and pool.asynchronous else None,
        "rmm_track_allocations": bool(size),  # so that a worker knows what is left
        "rmm_release_threshold": size if size and pool.asynchronous else None,
        "rmm_allocator_external_lib_list": ["cupy"] if size else None,
        "local_directory": scratch,
        "protocol": "tcp",  # nothing larger than a task's name travels
        "dashboard_address": dashboard or None,
        "silence_logs": _ERROR,  # what matters is said in our own log
        "preload": [WORKER_MODULE],
    }
