"""How busy the GPU is while something else runs: NVML readings by a thread, a few per second."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import Any, Self

EVERY = 0.1
"""seconds; NVML's own utilisation is an average over 1/6 s to 1 s"""


class GpuWatch:
    """Collects readings between `with` and its end; nothing where NVML is not there."""

    def __init__(self) -> None:
        self.problem = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="nvml", daemon=True)
        self._readings: list[dict[str, float]] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(5)

    def summary(self, since: float = 0.0) -> dict[str, Any]:
        """Means and extremes of what was read after `since` (monotonic seconds)."""
        if self.problem:
            return {"nvml": self.problem}
        readings = [r for r in self._readings if r["at"] >= since]
        if not readings:
            return {"nvml": "no reading"}
        found: dict[str, Any] = {"readings": len(readings)}
        for name, key in (("busy", "busy_share"), ("memory_busy", "memory_busy_share")):
            values = [r[name] for r in readings if name in r]
            if values:
                found[key] = sum(values) / len(values)
        for name, pick in (("memory_bytes", max), ("watts", max), ("sm_mhz", max), ("sm_mhz", min)):
            values = [r[name] for r in readings if name in r]
            if values:
                found[f"{pick.__name__}_{name}"] = pick(values)
        return found

    def _watch(self) -> None:
        try:
            import pynvml as nvml

            nvml.nvmlInit()
            handle = nvml.nvmlDeviceGetHandleByIndex(0)
        except Exception as exc:  # noqa: BLE001 - a run without readings is still a run
            self.problem = f"{type(exc).__name__}: {exc}"
            return
        while not self._stop.wait(EVERY):
            reading: dict[str, float] = {"at": time.monotonic()}
            with suppress(nvml.NVMLError):
                rates = nvml.nvmlDeviceGetUtilizationRates(handle)
                reading |= {"busy": rates.gpu / 100, "memory_busy": rates.memory / 100}
            with suppress(nvml.NVMLError):
                reading["memory_bytes"] = nvml.nvmlDeviceGetMemoryInfo(handle).used
            with suppress(nvml.NVMLError):
                reading["watts"] = nvml.nvmlDeviceGetPowerUsage(handle) / 1000
            with suppress(nvml.NVMLError):
                reading["sm_mhz"] = nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM)
            self._readings.append(reading)
        nvml.nvmlShutdown()
