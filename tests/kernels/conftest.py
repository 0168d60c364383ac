"""One suite for all implementations of the kernels: tests call operations on `impl`."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from board import device_count

from odc_stats_gpu import kernels
from odc_stats_gpu.kernels import _dispatch, reference


def on_cuda(operation: str) -> bool:
    entry = _dispatch._TABLE.get(operation)
    return entry is not None and entry.cuda is not None


@dataclass(frozen=True)
class Implementation:
    """Operations by name, NumPy arrays in and out: `impl.warp(src, ...)`."""

    name: str
    module: ModuleType
    upload: Callable[[Any], Any] = lambda array: array
    """Makes the array type that selects the implementation; `download` is the way back."""
    download: Callable[[Any], Any] = lambda array: array

    def __getattr__(self, operation: str) -> Callable[..., Any]:
        function = getattr(self.module, operation)
        if self.name not in {"reference", "cpu"} and not on_cuda(operation):
            pytest.skip(f"no CUDA version of {operation}")

        def move(value: Any) -> Any:
            return self.upload(value) if isinstance(value, np.ndarray) else value

        def call(*args: Any, **kwargs: Any) -> Any:
            return self.download(
                function(*map(move, args), **{key: move(value) for key, value in kwargs.items()})
            )

        return call


SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"
CUDA_HERE = SIMULATED or find_spec("numba_cuda") is not None


def to_simulated(array: np.ndarray) -> Any:
    return array.view(kernels.SimulatedDeviceArray)


def to_gpu(array: np.ndarray) -> Any:
    import cupy

    return cupy.asarray(array)


def from_gpu(result: Any) -> Any:
    import cupy

    if isinstance(result, tuple):
        return type(result)(*map(from_gpu, result))
    assert isinstance(result, cupy.ndarray)
    return cupy.asnumpy(result)


def checked(result: Any) -> Any:
    """NumPy arrays, after a look at the type: device arrays in, device arrays out."""
    if isinstance(result, tuple):
        return type(result)(*map(checked, result))
    assert isinstance(result, kernels.SimulatedDeviceArray)
    return np.asarray(result)


REFERENCE, CPU = Implementation("reference", reference), Implementation("cpu", kernels)
CUDA = Implementation("simulator" if SIMULATED else "cuda", kernels, to_simulated, checked)
"""The CUDA kernels: as Python in Numba's simulator, else their own IR on this CPU."""
PTX = Implementation("ptx", kernels, to_simulated, checked)
"""The CUDA kernels: the PTX that an assembler gets, on this CPU."""
GPU = Implementation("gpu", kernels, to_gpu, from_gpu)
IMPLEMENTATIONS = (
    REFERENCE,
    CPU,
    *((CUDA,) if CUDA_HERE else ()),
    *((pytest.param(PTX, marks=pytest.mark.slow),) if CUDA_HERE and not SIMULATED else ()),
)


ON_GPU = (pytest.param(GPU, marks=pytest.mark.gpu),) if device_count()[0] else ()


@pytest.fixture(params=[*IMPLEMENTATIONS, *ON_GPU], ids=lambda implementation: implementation.name)
def impl(request, monkeypatch):
    if request.param is PTX:
        import ptxhost

        ptxhost.use(monkeypatch)
    if request.param is CUDA and not SIMULATED:
        import hostlaunch

        hostlaunch.use(monkeypatch)
    return request.param
