"""Run the PTX of a CUDA kernel on the CPU: translated to C (`_translate`), one fiber per thread.

Independent of the compiler's intermediate code: only the text that an assembler gets is read. On
top of what `cudahost`'s runtime shows (barriers that some threads miss, poisoned shared memory),
every access is checked to lie in an argument's array or in the block's shared memory, aligned, and
shared memory is watched for races. Approximate instructions err as far as the manual allows.
"""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
from cudahost import code_library, runtime

from ptxhost._operands import UnknownPtxError
from ptxhost._translate import Program, translate

__all__ = ["Program", "PtxKernel", "UnknownPtxError", "run", "translate", "use"]

_HERE = Path(__file__).parent
_SIZES = {"8": 1, "16": 2, "32": 4, "64": 8}
ROUGH = True
"""whether approximate instructions err"""


class PtxKernel:
    """The entry of a PTX module as a function of grid, block and NumPy arguments."""

    def __init__(self, ptx: str) -> None:
        self.program = translate(ptx)
        started_by = Path(runtime()._name)
        with tempfile.TemporaryDirectory() as folder:
            library = Path(folder) / "kernel.so"
            subprocess.run(
                ["gcc", "-O1", "-march=native", "-ffp-contract=off", "-fwrapv", "-w", "-shared",
                 "-fno-strict-aliasing", "-fPIC", "-x", "c", "-", "-x", "none",
                 str(started_by), f"-Wl,-rpath,{started_by.parent}", f"-I{_HERE}",
                 "-o", str(library), "-lm"],
                input=self.program.source, text=True, check=True,
            )  # fmt: skip
            self._library = ctypes.CDLL(str(library))

    def __call__(self, grid, block, *arguments, shared=0, rough=None) -> None:
        """Run all blocks.

        Raises:
            RuntimeError: a deadlock, a barrier that some threads missed, an access out of bounds or
                misaligned, a race.
            TypeError: arguments that don't fill the parameters.
        """
        lib, ranges, cells = self._library, [], []
        for argument in arguments:
            cells += _cells(argument, ranges)
        sizes = [_SIZES[kind[1:]] for kind in self.program.parameters]
        if sizes != [ctypes.sizeof(cell) for cell in cells]:
            raise TypeError(f"{len(cells)} values don't fill {self.program.parameters}")
        pointers = (ctypes.c_void_p * len(cells))(*[ctypes.addressof(cell) for cell in cells])
        ctypes.c_long.in_dll(lib, "ptx_static_shared").value = self.program.static_shared
        ctypes.c_int.in_dll(lib, "ptx_ranges").value = len(ranges)
        ctypes.c_int.in_dll(lib, "ptx_rough").value = ROUGH if rough is None else rough
        fault = (ctypes.c_char * 256).in_dll(lib, "ptx_fault")
        fault.value = b""
        for name, ends in (("ptx_low", 0), ("ptx_high", 1)):
            table = (ctypes.c_uint64 * 64).in_dll(lib, name)
            for k, pair in enumerate(ranges):
                table[k] = pair[ends]
        rc = runtime().ch_launch(
            lib.ptx_entry, pointers, _dim3(grid), _dim3(block),
            ctypes.c_long(self.program.static_shared + shared), lib.ptx_block_begins,
            int(self.program.waits),
        )  # fmt: skip
        message = fault.value.decode() or runtime().ch_message().decode()
        if rc or message:
            raise RuntimeError(message or f"launch failed: {rc}")


def _dim3(size):
    size = (*size, 1, 1) if np.iterable(size) else (size, 1, 1)
    return (ctypes.c_int * 3)(*size[:3])


def _cells(argument, ranges):
    """An argument as Numba passes it; an array's bytes are added to `ranges`."""
    if isinstance(argument, tuple):
        return [cell for each in argument for cell in _cells(each, ranges)]
    if not isinstance(argument, np.ndarray):
        scalar = np.asarray(argument)
        return [np.ctypeslib.as_ctypes_type(scalar.dtype)(scalar.item())]
    ranges.append(np.lib.array_utils.byte_bounds(argument) if argument.size else (0, 0))
    numbers = (0, 0, argument.size, argument.itemsize, argument.ctypes.data)
    return [ctypes.c_int64(n) for n in (*numbers, *argument.shape, *argument.strides)]


TARGET = (9, 0)


def use(monkeypatch, cc=TARGET) -> None:
    """Run the faces' kernels as PTX of a target for the time of a test."""
    from odc_stats_gpu.kernels import _cuda_launch

    def simulate(function, grid, block, arguments, shared):
        run(function, grid, block, arguments, shared, cc)

    monkeypatch.setattr(_cuda_launch, "simulate", simulate)


def run(function, grid, block, arguments, shared, cc=TARGET) -> None:
    """Run a kernel that a face starts; see `hostlaunch.run`."""
    from hostlaunch import type_of

    arguments = [np.asarray(a) if isinstance(a, np.ndarray) else a for a in arguments]
    fastmath = bool(function.targetoptions["fastmath"])
    kernel = compiled(function.py_func, tuple(map(type_of, arguments)), fastmath, cc)
    kernel(grid, block, *arguments, shared=shared)


@cache
def compiled(function, signature, fastmath, cc) -> PtxKernel:
    """A kernel's PTX for a target, ready to run."""
    library = code_library(function, signature, fastmath=fastmath)
    return PtxKernel(library.get_asm_str(cc))
