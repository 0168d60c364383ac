"""One table from operation and array type to implementation; device code is imported when used."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Backend = Literal["cpu", "cuda"]


class SimulatedDeviceArray(np.ndarray[Any, Any]):
    """Host memory treated as device memory, so that Numba's simulator runs the CUDA kernels.

    Make one with `array.view(SimulatedDeviceArray)`; CUDA kernels return results of the same type.
    """


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """The implementations of one operation, each as "module:function"."""

    cpu: str
    cuda: str | None


_TABLE: dict[str, _Entry] = {}
_LOADED: dict[tuple[str, Backend], Callable[..., Any]] = {}


def register(name: str, *, cpu: str, cuda: str | None = None) -> None:
    """Enter an operation: `register("warp", cpu="pkg.warp.cpu:warp", cuda="pkg.warp.cuda:warp")`.

    Both are given as "module:function" and imported by the first call that needs them, so that
    importing the kernels costs neither a compiler nor a driver.
    """
    _TABLE[name] = _Entry(cpu=cpu, cuda=cuda)


def backend_of(array: Any) -> Backend:
    """Which implementation an array selects: "cuda" for device arrays, "cpu" for NumPy arrays.

    Raises:
        TypeError: for anything else.
    """
    if isinstance(array, SimulatedDeviceArray):
        return "cuda"
    if isinstance(array, np.ndarray):
        return "cpu"
    if hasattr(array, "__cuda_array_interface__"):
        return "cuda"
    kind = type(array)
    raise TypeError(f"kernels take NumPy or CuPy arrays, got {kind.__module__}.{kind.__qualname__}")


def implementation(name: str, array: Any) -> Callable[..., Any]:
    """Return the function that performs operation `name` on arrays of this type.

    Raises:
        KeyError: unknown operation.
        TypeError: not an array type of ours.
        NotImplementedError: the operation has no CUDA implementation.
    """
    backend = backend_of(array)
    found = _LOADED.get((name, backend))
    if found is None:
        path = getattr(_TABLE[name], backend)
        if path is None:
            raise NotImplementedError(f"{name} has no {backend} implementation")
        module, _, function = path.partition(":")
        found = getattr(importlib.import_module(module), function)
        _LOADED[name, backend] = found
    return found
