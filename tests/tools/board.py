"""What the tests marked `gpu` run on: a CUDA device, or a smaller stand-in, so that they don't rot.

`ODC_STATS_GPU_REHEARSAL=simulator` runs the kernels in Numba's simulator, `=host` their own IR on
this CPU. Without a device and without a rehearsal the tests skip.
"""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

REHEARSAL = os.environ.get("ODC_STATS_GPU_REHEARSAL", "")
if REHEARSAL == "simulator":  # numba reads it when it is first imported
    os.environ["NUMBA_ENABLE_CUDASIM"] = "1"


def device_count() -> tuple[int, str]:
    """CUDA devices that CuPy can use, and why there is none."""
    try:
        ctypes.CDLL("libcuda.so.1")  # CuPy, if it is asked, takes longer to say no
    except OSError:
        return 0, "no CUDA device: no NVIDIA driver"
    try:
        import cupy
    except ImportError:
        return 0, "CuPy is not installed"
    try:
        count = int(cupy.cuda.runtime.getDeviceCount())
    except Exception as exc:  # noqa: BLE001 - CuPy raises its own family
        return 0, f"no CUDA device: {str(exc).splitlines()[0]}"
    return count, "" if count else "no CUDA device"


@dataclass(frozen=True)
class Board:
    """Moves arrays to the device and back; `pick` chooses sizes."""

    kind: str
    """cuda, simulator or host"""

    @property
    def real(self) -> bool:
        """Whether there is a device."""
        return self.kind == "cuda"

    def pick(self, device: Any, stand_in: Any) -> Any:
        """The first one on a device, the second one in a rehearsal."""
        return device if self.real else stand_in

    def put(self, array: np.ndarray) -> Any:
        """An array of the device."""
        if self.real:
            import cupy

            return cupy.asarray(array)
        from odc_stats_gpu.kernels import SimulatedDeviceArray

        return array.view(SimulatedDeviceArray)

    def get(self, result: Any) -> Any:
        """NumPy arrays, after a look at the type: device arrays in, device arrays out."""
        if isinstance(result, tuple):
            return type(result)(*map(self.get, result))
        if self.real:
            import cupy

            assert isinstance(result, cupy.ndarray), type(result)
            return cupy.asnumpy(result)
        from odc_stats_gpu.kernels import SimulatedDeviceArray

        assert isinstance(result, SimulatedDeviceArray), type(result)
        return np.asarray(result)


def find_board() -> Board:
    """The device, else the rehearsal that was asked for, else the test skips."""
    if REHEARSAL:
        assert REHEARSAL in {"simulator", "host"}, f"ODC_STATS_GPU_REHEARSAL={REHEARSAL}"
        return Board(REHEARSAL)
    count, problem = device_count()
    if not count:
        pytest.skip(problem)
    return Board("cuda")
