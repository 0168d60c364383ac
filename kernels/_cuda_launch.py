"""How CUDA kernels get memory and are started: CuPy and its current stream, or the simulator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numba import config, cuda, types

from odc_stats_gpu.kernels._cuda import LINES
from odc_stats_gpu.kernels._cuda_ahead import ahead
from odc_stats_gpu.kernels._dispatch import SimulatedDeviceArray

try:
    from numba.cuda.core import config as cuda_config  # numba-cuda's own
except ImportError:
    cuda_config = config
cuda_config.CUDA_LOW_OCCUPANCY_WARNINGS = 0  # blocks of a few pixels are legitimate here

BLOCK = (32, 8)
"""Threads of a block over (columns, rows), for kernels with one thread per pixel."""

Function = Callable[..., Any]
Listed = tuple[str, Function, tuple[Any, ...]]
"""A kernel's name, the plain function, and types of arguments that it is used with.

Each module of CUDA kernels has a tuple `KERNELS` of these, for tables and budgets of costs."""


class Memory(Protocol):
    """Where arrays of one kind live."""

    def array(self, given: Any) -> Any:
        """The array as one of this kind, without a copy if it lives here already."""

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """An uninitialised array."""

    def contiguous(self, array: Any) -> Any:
        """The array itself if its elements lie in order without gaps, else a copy that does so."""

    def copyto(self, out: Any, array: Any) -> None:
        """Copy the elements of one array into another."""


class _Simulated:
    """Host memory, for Numba's simulator and for kernels compiled for the host."""

    def array(self, given: Any) -> Any:
        return np.asarray(given).view(SimulatedDeviceArray)

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        return np.empty(shape, dtype).view(SimulatedDeviceArray)

    def contiguous(self, array: Any) -> Any:
        return np.ascontiguousarray(array).reshape(array.shape).view(SimulatedDeviceArray)

    def copyto(self, out: Any, array: Any) -> None:
        np.copyto(out, array)


class _Device:
    """The current CUDA device, through CuPy."""

    def array(self, given: Any) -> Any:
        import cupy

        return cupy.asarray(given)

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        import cupy

        return cupy.empty(shape, dtype)

    def contiguous(self, array: Any) -> Any:
        import cupy

        return cupy.ascontiguousarray(array).reshape(array.shape)

    def copyto(self, out: Any, array: Any) -> None:
        import cupy

        cupy.copyto(out, array)


def memory_of(array: Any) -> Memory:
    """The kind of memory of an array that has `__cuda_array_interface__` or is simulated."""
    return _Simulated() if isinstance(array, SimulatedDeviceArray) else _Device()


def kernel(function: Function) -> Any:
    """Declare a kernel; it is compiled for the types of its arguments when first launched."""
    return ahead(cuda.jit(**LINES)(function))


def exact(function: Function) -> Any:
    """Declare a function that kernels call, without liberties in its arithmetic: NaN is found."""
    return cuda.jit(device=True, **LINES)(function)


def strided(kind: str, dimensions: int) -> Any:
    """Type of an array with any strides, e.g. a block of a stack."""
    return types.Array(getattr(types, kind), dimensions, "A")


def packed(kind: str, dimensions: int = 1) -> Any:
    """Type of a contiguous array."""
    return types.Array(getattr(types, kind), dimensions, "C")


def over(shape: tuple[int, ...], block: tuple[int, ...] = BLOCK) -> tuple[int, ...]:
    """Blocks that cover an array of (..., rows, columns): (columns, rows, product of the rest)."""
    rest = int(np.prod(shape[:-2], dtype=np.int64))
    grid = (-(-shape[-1] // block[0]), -(-shape[-2] // block[1]))
    return (*grid, rest) if len(shape) > 2 else grid


def launch(
    function: Any, grid: tuple[int, ...], block: tuple[int, ...], *arguments: Any, shared: int = 0
) -> None:
    """Start a kernel on CuPy's current stream, without waiting for it.

    Args:
        function: from `kernel`.
        grid: blocks, columns first.
        block: threads of a block.
        arguments: arrays of one kind of memory, and NumPy scalars.
        shared: bytes of dynamic shared memory of a block.
    """
    if any(isinstance(argument, SimulatedDeviceArray) for argument in arguments):
        simulate(function, grid, block, arguments, shared)
        return
    import cupy

    stream = cuda.external_stream(cupy.cuda.get_current_stream().ptr)
    # not synchronised: all our work on these arrays is on the current stream
    given = [
        cuda.as_cuda_array(a, sync=False) if hasattr(a, "__cuda_array_interface__") else a
        for a in arguments
    ]
    function[grid, block, stream, shared](*given)


def simulate(
    function: Any,
    grid: tuple[int, ...] | int,
    block: tuple[int, ...] | int,
    arguments: tuple[Any, ...],
    shared: int,
) -> None:
    """Run a kernel on host arrays in Numba's simulator.

    Raises:
        RuntimeError: the simulator is not on.
    """
    if not config.ENABLE_CUDASIM:
        raise RuntimeError("simulated device arrays need NUMBA_ENABLE_CUDASIM=1 in the environment")
    from odc_stats_gpu.kernels._cuda_simulator import run

    run(function, grid, block, arguments, shared)
