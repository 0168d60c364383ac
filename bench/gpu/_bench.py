"""Where a benchmark's arrays live and how it is timed: CUDA events; no times in the simulator."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Bench:
    """The device, or the simulator, which says that everything runs and nothing of speed."""

    simulate: bool
    quick: bool

    def pick(self, full: Any, quick: Any, tiny: Any) -> Any:
        """A size for the device, for a quick look, or for the simulator."""
        return tiny if self.simulate else quick if self.quick else full

    def put(self, array: np.ndarray) -> Any:
        """A device array."""
        if self.simulate:
            from odc_stats_gpu.kernels import SimulatedDeviceArray

            return array.view(SimulatedDeviceArray)
        import cupy

        return cupy.asarray(array)

    def get(self, array: Any) -> np.ndarray:
        """A NumPy array."""
        if self.simulate:
            return np.asarray(array)
        import cupy

        return cupy.asnumpy(array)

    def repeat(self, array: Any, times: int) -> Any:
        """A device array with the rows (the last axis but one) of an array `times` times."""
        if self.simulate:
            return self.put(np.tile(array, (times, 1)))
        import cupy

        return cupy.tile(cupy.asarray(array), (times, 1))

    def wait(self) -> None:
        """Until the device has done everything."""
        if not self.simulate:
            import cupy

            cupy.cuda.runtime.deviceSynchronize()

    def seconds(self, call: Callable[[], Any]) -> dict[str, float] | None:
        """Median and spread of device seconds of a call, after a warm-up; None when simulated."""
        if self.simulate:
            call()
            return None
        import cupy

        def once() -> float:
            start, stop = cupy.cuda.Event(), cupy.cuda.Event()
            start.record()
            call()
            stop.record()
            stop.synchronize()
            return float(cupy.cuda.get_elapsed_time(start, stop)) / 1e3

        until = time.perf_counter() + 0.3
        for _ in range(50):  # clocks rise, pools fill
            last = once()
            if time.perf_counter() > until:
                break
        budget = 0.5 if self.quick else 1.5
        times = sorted(once() for _ in range(max(7, min(100, int(budget / max(last, 1e-6))))))
        return {
            "median": statistics.median(times),
            "fastest": times[0],
            "slowest": times[-1],
            "repeats": len(times),
        }
