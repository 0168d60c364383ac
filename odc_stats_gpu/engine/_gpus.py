"""The GPUs of this machine, as NVML tells: no CUDA context is made, no memory taken."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

from odc_stats_gpu.engine._cuda_cluster import Gpu, visible
from odc_stats_gpu.errors import ConfigError
from odc_stats_gpu.telemetry import opened_nvml

_BITS = 64


def list_gpus() -> list[Gpu]:
    """Every GPU in the order of the PCI bus; in MIG mode its instances instead. Empty without."""
    with opened_nvml() as nvml:
        if nvml is None:
            return []
        try:
            found: list[Gpu] = []
            for index in range(nvml.nvmlDeviceGetCount()):
                found += _gpu(nvml, index)
            return found
        except nvml.NVMLError:
            return []


def own_gpu() -> str:
    """UUID of the first GPU that CUDA_VISIBLE_DEVICES leaves this process; empty for none.

    Numbers count along the PCI bus; CUDA itself counts so only with CUDA_DEVICE_ORDER=PCI_BUS_ID
    where a machine has GPUs of several kinds.
    """
    try:
        seen = visible(list_gpus(), os.environ.get("CUDA_VISIBLE_DEVICES"))
    except ConfigError:
        return ""
    return seen[0].uuid if seen else ""


def _gpu(nvml: Any, index: int) -> list[Gpu]:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    uuid, cpus = _text(nvml.nvmlDeviceGetUUID(handle)), _cpus(nvml, handle)
    name = _text(nvml.nvmlDeviceGetName(handle))
    mig = False
    with suppress(nvml.NVMLError):
        mig = nvml.nvmlDeviceGetMigMode(handle)[0] == 1
    if not mig:
        total, free = _memory(nvml, handle)
        return [Gpu(index, uuid, total, free, cpus, name)]
    found = []
    for number in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        with suppress(nvml.NVMLError):  # fewer are made than there could be
            part = nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, number)
            total, free = _memory(nvml, part)
            own = _text(nvml.nvmlDeviceGetUUID(part))
            found.append(Gpu(index, own, total, free, cpus, f"{name} MIG", uuid))
    return found


def _memory(nvml: Any, handle: Any) -> tuple[int, int]:
    """Bytes in all, bytes free; zeros for a chip that shares the host's memory."""
    with suppress(nvml.NVMLError):
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        return int(memory.total), int(memory.free)
    return 0, 0


def _cpus(nvml: Any, handle: Any) -> tuple[int, ...]:
    """CPUs next to the GPU."""
    words = ((os.cpu_count() or 1) + _BITS - 1) // _BITS
    with suppress(nvml.NVMLError):
        masks = nvml.nvmlDeviceGetCpuAffinity(handle, words)
        return tuple(
            word * _BITS + bit
            for word, mask in enumerate(masks)
            for bit in range(_BITS)
            if int(mask) >> bit & 1
        )
    return ()


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
