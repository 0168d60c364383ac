"""What CUDA kernels are made of: device functions, raw memory, bits of floats, on GPU and simulator.

A kernel is a plain Python function built by a factory, with the number of bands as a constant of its
closure; `device` and `specialised` write its loops over constants out. Array indexing in Numba tests
for negative indices and counts in 64 bits; `peek` and `poke` do neither.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
from numba import config, cuda

from odc_stats_gpu.kernels._unroll import fixed, pure, unrolled

__all__ = [
    "FULL", "LINES", "SIMULATED", "WARP", "bits_of", "device", "fixed", "float_of", "forget", "peek", "peek_float", "pixel_of",
    "poke", "poke_float", "pure", "rsqrt", "toolbox", "unrolled",
]  # fmt: skip

SIMULATED = bool(config.ENABLE_CUDASIM)
"""whether kernels run as Python, one thread after another, without warps (NUMBA_ENABLE_CUDASIM=1)"""
LINES = {"lineinfo": True} if os.environ.get("ODC_STATS_LINEINFO") == "1" and not SIMULATED else {}
"""options of whatever is compiled: line numbers, when a profiler shall show the source"""
FULL = 0xFFFFFFFF
"""all lanes of a warp"""
WARP = 32

Device = Callable[..., Any]


def device(function: Device) -> Device:
    """Make a function that kernels can call; it becomes part of whatever calls it."""
    options = {} if SIMULATED else {"forceinline": True}  # the simulator knows no such option
    compiled: Device = cuda.jit(device=True, fastmath=True, **options, **LINES)(unrolled(function))
    return compiled


def toolbox(**pieces: Device) -> ModuleType:
    """Return device functions as attributes of a module, the one namespace that Numba looks into."""
    box = ModuleType("toolbox")
    vars(box).update(pieces)
    return box


@device
def forget() -> None:
    """Make the compilers read memory again: what they kept in registers they would spill."""
    cuda.threadfence_block()


if SIMULATED:  # neither libdevice nor intrinsics have a meaning there

    def rsqrt(x):  # type: ignore[no-untyped-def]
        """1/sqrt(x)"""
        with np.errstate(divide="ignore"):
            return np.float32(1) / np.sqrt(x)

    def bits_of(x):  # type: ignore[no-untyped-def]
        """The bits of a float32 as int32."""
        return np.float32(x).view(np.int32)

    def float_of(bits):  # type: ignore[no-untyped-def]
        """The float32 that has these bits."""
        return np.int32(bits).view(np.float32)

    def peek(words, at, k):  # type: ignore[no-untyped-def]
        """words[at + k]"""
        return words[at + k]

    def peek_float(words, at, k):  # type: ignore[no-untyped-def]
        """The float32 at words[at + k]"""
        return float_of(words[at + k])

    def poke(words, at, k, value):  # type: ignore[no-untyped-def]
        """words[at + k] = value"""
        words[at + k] = value

    def poke_float(words, at, k, value):  # type: ignore[no-untyped-def]
        """The bits of a float32 to words[at + k]"""
        words[at + k] = bits_of(value)

    def pixel_of(stack, b, t, i, j):  # type: ignore[no-untyped-def]
        """stack[b, t, i, j] as int32"""
        return np.int32(stack[b, t, i, j])

else:
    from llvmlite import ir
    from numba.cuda import libdevice, types
    from numba.cuda.extending import intrinsic

    @device
    def rsqrt(x):  # type: ignore[no-untyped-def]
        """1/sqrt(x), as the hardware approximates it: 1.3e-7."""
        return libdevice.rsqrtf(x)

    @device
    def bits_of(x):  # type: ignore[no-untyped-def]
        """The bits of a float32 as int32."""
        return libdevice.float_as_int(x)

    @device
    def float_of(bits):  # type: ignore[no-untyped-def]
        """The float32 that has these bits."""
        return libdevice.int_as_float(bits)

    def _place(context: Any, builder: Any, kind: Any, array: Any, at: Any, k: Any, to: Any) -> Any:
        """Pointer to element at + k, k constant, of a contiguous array, without any test."""
        data = context.make_array(kind)(context, builder, array).data
        first = builder.gep(data, [at])
        return builder.bitcast(builder.gep(first, [k]), to.as_pointer())

    def _loader(kind: Any, native: Any) -> Any:
        def make(_typing: Any, words: Any, at: Any, k: Any) -> Any:
            def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
                return builder.load(_place(context, builder, sig.args[0], *args, native), align=4)

            return kind(words, types.int64, types.int64), emit

        return intrinsic(make)

    def _storer(kind: Any, native: Any) -> Any:
        def make(_typing: Any, words: Any, at: Any, k: Any, value: Any) -> Any:
            def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
                place = _place(context, builder, sig.args[0], *args[:3], native)
                builder.store(args[3], place, align=4)
                return context.get_dummy_value()

            return types.void(words, types.int64, types.int64, kind), emit

        return intrinsic(make)

    peek = _loader(types.int32, ir.IntType(32))
    peek_float = _loader(types.float32, ir.FloatType())
    poke = _storer(types.int32, ir.IntType(32))
    poke_float = _storer(types.float32, ir.FloatType())

    @intrinsic
    def pixel_of(_typing: Any, stack: Any, b: Any, t: Any, i: Any, j: Any) -> Any:
        """stack[b, t, i, j] as int32"""

        def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            array = context.make_array(sig.args[0])(context, builder, args[0])
            strides = [builder.extract_value(array.strides, k) for k in range(4)]
            offset = ir.Constant(ir.IntType(64), 0)
            # the pixel first, the band last: loops move the constant parts out of their way
            for index, stride in zip(
                (*args[3:], args[2], args[1]), (*strides[2:], strides[1], strides[0]), strict=True
            ):
                offset = builder.add(offset, builder.mul(index, stride))
            start = builder.bitcast(array.data, ir.IntType(8).as_pointer())
            native = array.data.type
            place = builder.bitcast(builder.gep(start, [offset]), native)
            loaded = builder.load(place)
            return context.cast(builder, loaded, stack.dtype, types.int32)

        wide = types.int64
        return types.int32(stack, wide, wide, wide, wide), emit
