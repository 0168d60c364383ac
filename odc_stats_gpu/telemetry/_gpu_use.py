"""What one tile asks of its GPU: NVML read five times per second while the tile is made."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import fmean
from typing import Any, NamedTuple

from odc_stats_gpu.telemetry._nvml import ask_nvml, open_nvml

EVERY = 0.2
"""Seconds between two readings; the driver's own share of busy time covers 1/6 to 1 s."""
_PATIENCE = 2.0
"""Seconds that a call into a driver in trouble may still take at the end."""


class _Reading(NamedTuple):
    """What the driver said at one time; None where it doesn't tell, as for MIG instances."""

    busy: float | None
    memory: int | None
    watts: float | None
    sm_mhz: float | None


class GpuWatch:
    """Readings of one device, as means and peaks."""

    def __init__(self) -> None:
        self._readings: list[_Reading] = []
        self._seconds = 0.0
        self._joules: float | None = None

    @contextmanager
    def watch(self, uuid: str) -> Iterator[None]:
        """Read the device of that UUID meanwhile; nothing without one, without NVML, or if unknown.

        A thread of its own asks, with a handle of its own: NVML makes no CUDA context.
        """
        opened = _open(uuid) if uuid else None
        if opened is None:
            yield
            return
        nvml, handle = opened
        leave = threading.Event()

        def read() -> None:
            while True:
                self._readings.append(_read(nvml, handle))
                if leave.wait(EVERY):
                    break
            self._readings.append(_read(nvml, handle))

        thread = threading.Thread(target=read, name="gpu-watch", daemon=True)
        began, energy = (
            time.monotonic(),
            ask_nvml(nvml, "nvmlDeviceGetTotalEnergyConsumption", handle),
        )
        thread.start()
        try:
            yield
        finally:
            leave.set()
            thread.join(_PATIENCE)
            self._seconds = time.monotonic() - began
            if not thread.is_alive():  # else the next call would hang, too
                after = ask_nvml(nvml, "nvmlDeviceGetTotalEnergyConsumption", handle)
                if energy is not None and after is not None:
                    self._joules = (after - energy) / 1000
                nvml.nvmlShutdown()

    def facts(self) -> dict[str, float]:
        """Means and peaks; empty where nothing was read.

        `busy_mean` and `busy_max`: share of time with a kernel running; `memory_peak_mib`: device
        memory in use by everybody, a pool counts as a whole; `watts_mean`; `joules`: by the board's
        counter, else watts times seconds; `sm_mhz_mean`; `readings`: how many these are.
        """
        seen = list(self._readings)
        busy, memory, watts, clock = (
            [value for reading in seen if (value := reading[k]) is not None] for k in range(4)
        )
        facts: dict[str, float] = {}
        if busy:
            facts |= {"busy_mean": round(fmean(busy), 3), "busy_max": round(max(busy), 3)}
        if memory:
            facts["memory_peak_mib"] = int(max(memory)) >> 20
        if watts:
            facts["watts_mean"] = round(fmean(watts), 1)
        if self._joules is not None:
            facts["joules"] = round(self._joules, 1)
        elif watts:
            facts["joules"] = round(fmean(watts) * self._seconds, 1)
        if clock:
            facts["sm_mhz_mean"] = round(fmean(clock))
        return facts | {"readings": len(seen)} if facts else {}


def _open(uuid: str) -> tuple[Any, Any] | None:
    """NVML and the handle; None when either can't be had."""
    nvml = open_nvml()
    if nvml is None:
        return None
    handle = ask_nvml(nvml, "nvmlDeviceGetHandleByUUID", uuid)
    if handle is None:
        nvml.nvmlShutdown()
        return None
    return nvml, handle


def _read(nvml: Any, handle: Any) -> _Reading:
    rates = ask_nvml(nvml, "nvmlDeviceGetUtilizationRates", handle)
    memory = ask_nvml(nvml, "nvmlDeviceGetMemoryInfo", handle)
    milliwatts = ask_nvml(nvml, "nvmlDeviceGetPowerUsage", handle)
    return _Reading(
        busy=None if rates is None else rates.gpu / 100,
        memory=None if memory is None else int(memory.used),
        watts=None if milliwatts is None else milliwatts / 1000,
        sm_mhz=ask_nvml(nvml, "nvmlDeviceGetClockInfo", handle, nvml.NVML_CLOCK_SM),
    )
