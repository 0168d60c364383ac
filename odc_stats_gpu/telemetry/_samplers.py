"""What a worker reads of itself for `/metrics`: NVML of every GPU, memory of its process tree."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from odc_stats_gpu.telemetry import _metrics as metrics
from odc_stats_gpu.telemetry._nvml import ask_nvml, open_nvml

_MHZ = 1e6


def sample_memory() -> None:
    """Resident bytes of this process and its children, into the metrics."""
    import psutil

    me = psutil.Process()
    total = 0
    for process in (me, *me.children(recursive=True)):
        with suppress(psutil.Error):  # gone meanwhile
            total += process.memory_info().rss
    metrics.memory_used(total)


def gpu_sampler() -> Callable[[], None] | None:
    """A function that reads every GPU into the metrics; None where there is no NVML or no GPU."""
    nvml = open_nvml()
    if nvml is None:
        return None
    count = ask_nvml(nvml, "nvmlDeviceGetCount") or 0
    found = {k: ask_nvml(nvml, "nvmlDeviceGetHandleByIndex", k) for k in range(count)}
    handles = {k: handle for k, handle in found.items() if handle is not None}  # not of a lost one
    if not handles:
        nvml.nvmlShutdown()
        return None

    def sample() -> None:
        for k, handle in handles.items():
            _read(nvml, str(k), handle)

    return sample


def _read(nvml: Any, gpu: str, handle: Any) -> None:
    def ask(function: str, *arguments: Any) -> Any:
        return ask_nvml(nvml, function, handle, *arguments)

    name = ask("nvmlDeviceGetName") or "unknown"
    rates, memory = ask("nvmlDeviceGetUtilizationRates"), ask("nvmlDeviceGetMemoryInfo")
    milliwatts = ask("nvmlDeviceGetPowerUsage")
    sm = ask("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_SM)
    mem = ask("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_MEM)
    metrics.gpu_reading(
        gpu,
        name.decode() if isinstance(name, bytes) else str(name),
        busy=None if rates is None else rates.gpu / 100,
        memory_used=None if memory is None else int(memory.used),
        memory_total=None if memory is None else int(memory.total),
        watts=None if milliwatts is None else milliwatts / 1000,
        sm_clock_hz=None if sm is None else sm * _MHZ,
        memory_clock_hz=None if mem is None else mem * _MHZ,
        celsius=ask("nvmlDeviceGetTemperature", nvml.NVML_TEMPERATURE_GPU),
    )
