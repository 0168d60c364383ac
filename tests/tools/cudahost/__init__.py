"""Run a Numba CUDA kernel's own GPU-typed LLVM IR on the CPU: no simulator, no GPU.

numba-cuda types and lowers the kernel for the CUDA target exactly as on a GPU. Instead of handing
that IR to libNVVM it is rewritten (`_ir`), compiled for this CPU and run by `runtime.c` with one
fiber per CUDA thread. Modelled: grid and block ids, static and dynamic shared memory (poisoned per
block), barriers with and without predicates, warp sync, shuffles, votes, atomics, local arrays and
the part of libdevice that our kernels use. What is not modelled is refused, never guessed. It tests
logic and typing; GPU rounding of approximate instructions it doesn't show.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import llvmlite.binding as llvm
import numpy as np
from numba import types
from numba.np import numpy_support

from cudahost._ir import host_module

__all__ = ["HostKernel", "code_library", "offline"]


@cache
def runtime():
    """The compiled runtime, loaded where the JIT finds its symbols."""
    source = Path(__file__).with_name("runtime.c")
    digest = hashlib.sha256(source.read_bytes()).hexdigest()[:12]
    library = Path(tempfile.gettempdir()) / f"cudahost-{os.getuid()}-{digest}.so"
    if not library.exists():
        part = library.with_suffix(f".{os.getpid()}")
        command = ["gcc", "-O2", "-shared", "-fPIC", "-o", str(part), str(source), "-lm"]
        subprocess.run(command, check=True)
        part.replace(library)
    lib = ctypes.CDLL(str(library))
    lib.ch_message.restype = ctypes.c_char_p
    lib.ch_switches.restype = lib.ch_warnings.restype = ctypes.c_long
    llvm.load_library_permanently(str(library))
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return lib


def offline(cc: tuple[int, int]) -> None:
    """Let numba-cuda compile device functions without asking a driver for its capability.

    A private name of numba-cuda: one reason for the pinned range of its versions.
    """
    from numba.cuda import dispatcher

    dispatcher.get_current_device = lambda: SimpleNamespace(compute_capability=cc)


@cache
def code_library(function, signature, *, cc=(9, 0), fastmath=True):
    """numba-cuda's typed and lowered kernel: its LLVM IR, and its PTX for any target.

    The IR is the same for all targets, and making it is most of the time of a compilation: hence a
    cache for all that a test session does with a kernel.
    """
    from numba.cuda import compiler

    offline(cc)
    library, _ = compiler._compile_pyfunc_with_fixup(
        function, signature, device=False, abi="numba", cc=cc, fastmath=fastmath
    )
    return library


class HostKernel:
    """A kernel function compiled for the CUDA target and callable on NumPy arrays.

    `kernel[grid, block]` becomes `HostKernel(function, signature)(grid, block, *args)`.
    """

    def __init__(self, function, signature, *, cc=(9, 0), fastmath=True):
        lib = runtime()
        self.signature = signature
        library = code_library(function, signature, cc=cc, fastmath=fastmath)
        texts = list(library.llvm_strs)
        for linked in getattr(library, "_linking_libraries", ()):
            texts += linked.llvm_strs
        self.ir, self.shared_bytes, self.fibers = host_module(
            dict.fromkeys(texts), library._entry_name
        )
        module = llvm.parse_assembly(self.ir)
        module.verify()
        missing = [
            f.name
            for f in module.functions
            if f.is_declaration and not f.name.startswith("llvm.") and not hasattr(lib, f.name)
        ]
        if missing:
            raise NotImplementedError(f"not modelled on the host: {missing}")
        self._engine = _compile(module)
        self._entry = self._engine.get_function_address("ch_entry")
        self._poison = self._engine.get_function_address("ch_poison")

    def __call__(self, grid, block, *args, shared=0):
        """Run all blocks; returns the runtime's warning or "". RuntimeError on deadlock."""
        lib = runtime()
        keep, pointers = [], []
        for kind, value in zip(self.signature, args, strict=True):
            for item in _unpack(kind, value):
                keep.append(item)
                pointers.append(ctypes.cast(ctypes.pointer(item), ctypes.c_void_p))
        argv = (ctypes.c_void_p * len(pointers))(*pointers)
        rc = lib.ch_launch(
            ctypes.c_void_p(self._entry), argv, _dim3(grid), _dim3(block),
            ctypes.c_long(shared), ctypes.c_void_p(self._poison), int(self.fibers),
        )  # fmt: skip
        message = lib.ch_message().decode()
        if rc:
            raise RuntimeError(message or f"launch failed: {rc}")
        return message


def _compile(module):
    machine = llvm.Target.from_default_triple().create_target_machine(
        opt=3,
        cpu=llvm.get_host_cpu_name(),
        features=llvm.get_host_cpu_features().flatten(),
        jit=True,
    )
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=3))
    builder.getModulePassManager().run(module, builder)
    engine = llvm.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    return engine


def _dim3(size):
    size = (*size, 1, 1) if np.iterable(size) else (size, 1, 1)
    return (ctypes.c_int * 3)(*size[:3])


def _unpack(kind, value):
    """An argument as the kernel receives it: an array is many fields, a tuple its items."""
    if isinstance(kind, types.BaseTuple):
        for item_kind, item in zip(kind, value, strict=True):
            yield from _unpack(item_kind, item)
        return
    if isinstance(kind, types.BaseTuple):
        for each, item in zip(kind, value, strict=True):
            yield from _unpack(each, item)
        return
    if not isinstance(kind, types.Array):
        scalar = numpy_support.as_dtype(kind).type(value)
        yield np.ctypeslib.as_ctypes_type(scalar.dtype)(scalar.item())
        return
    if value.dtype != numpy_support.as_dtype(kind.dtype) or value.ndim != kind.ndim:
        raise TypeError(f"{value.dtype} {value.ndim}-d given for {kind}")
    if kind.layout == "C" and not value.flags.c_contiguous:
        raise TypeError(f"a strided array given for {kind}")
    yield from (ctypes.c_void_p(0), ctypes.c_void_p(0))  # meminfo, parent
    yield from (ctypes.c_int64(value.size), ctypes.c_int64(value.itemsize))
    yield ctypes.c_void_p(value.ctypes.data)
    yield from (ctypes.c_int64(n) for n in (*value.shape, *value.strides))
