"""A CuPy without a GPU that is as strict as the real one: its rules are read off the real classes.

A `DeviceArray` lies in host memory, but has only the attributes that `cupy.ndarray` has, becomes no
NumPy array by itself, and meets NumPy arrays nowhere; what CuPy or its array-API namespace lacks is
refused. Kernels run as their own IR on this CPU, through the launcher that a GPU sees.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import Any

import array_api_compat
import array_api_compat.cupy as real_namespace
import cupy as real
import hostlaunch
import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

_KNOWN = frozenset(dir(real.ndarray))
_ONE = threading.Lock()
"""the runtime on the host has one set of fibres"""


class DeviceArray(NDArrayOperatorsMixin):
    """Device memory as CuPy shows it."""

    __slots__ = ("_base", "_host")

    def __init__(self, host: np.ndarray, base: DeviceArray | None = None) -> None:
        self._host, self._base = host, base

    def __getattr__(self, name: str) -> Any:
        if name not in _KNOWN:
            raise AttributeError(f"'cupy.ndarray' object has no attribute {name!r}")
        found = getattr(self._host, name)
        return partial(_call, found, owner=self) if callable(found) else found

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return self._host.__array_interface__ | {"version": 3, "stream": 1}

    @property
    def base(self) -> Any:
        return self._base

    @property
    def device(self) -> Any:
        return Device(0)

    def get(self, stream=None, order="C", out=None, blocking=True):
        if out is None:
            return self._host.copy(order)
        np.copyto(out, self._host)
        return out

    def set(self, arr, stream=None):
        if type(arr) is not np.ndarray:
            raise TypeError("Only numpy.ndarray can be set to cupy.ndarray")
        if (arr.dtype, arr.shape) != (self.dtype, self.shape) or not self._host.flags.c_contiguous:
            raise ValueError("type, shape or layout differs")
        np.copyto(self._host, arr)

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError("Implicit conversion to a NumPy array is not allowed")

    def __len__(self) -> int:
        return len(self._host)

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def __bool__(self) -> bool:
        return bool(self._host)

    def __setitem__(self, at, value):
        _check(at, value)
        _no_mask(at)
        self._host[_plain(at)] = _plain(value)

    def __getitem__(self, at):
        _no_mask(at)
        return _call(self._host.__getitem__, at, owner=self)

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **options):
        _check(*inputs, *(out or ()))
        if out is not None:
            options["out"] = _plain(tuple(out))
        made = getattr(ufunc, method)(*_plain(inputs), **options)
        return out[0] if out is not None else _device(made)

    def __array_function__(self, function, _types, args, options):
        if not hasattr(real, function.__name__):
            raise TypeError(f"CuPy has no function {function.__name__}")
        return _call(function, *args, **options)


class Device:
    """The only one."""

    def __init__(self, number: int = 0) -> None:
        assert number == 0
        self.id = number
        self.attributes = {
            "MultiProcessorCount": 4, "MaxSharedMemoryPerMultiprocessor": 100 << 10,
            "MaxBlocksPerMultiprocessor": 16,
        }  # fmt: skip

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        pass


class Event:
    def __init__(self, block=False, disable_timing=False, interprocess=False) -> None:
        pass

    def record(self, stream=None) -> None:
        pass

    def synchronize(self) -> None:
        pass

    done = True


def _call(function: Any, *args: Any, owner: DeviceArray | None = None, **options: Any) -> Any:
    _check(*args, *options.values())
    made = function(*_plain(args), **_plain(options))
    if owner is not None and isinstance(made, np.ndarray) and made.base is not None:
        return _device(made, owner if owner._base is None else owner._base)
    return _device(made)


def _device(made: Any, base: DeviceArray | None = None) -> Any:
    """A result; CuPy has no scalars of its own."""
    if isinstance(made, np.ndarray | np.generic):
        return DeviceArray(np.asarray(made), base)
    return type(made)(map(_device, made)) if type(made) in {tuple, list} else made


def _plain(value: Any) -> Any:
    if isinstance(value, DeviceArray):
        return value._host
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return type(value)(map(_plain, value)) if type(value) in {tuple, list} else value


def _check(*values: Any) -> None:
    for value in values:
        if isinstance(value, tuple | list):
            _check(*value)
        elif isinstance(value, np.ndarray):
            raise TypeError(f"Unsupported type {type(value)}")


def _no_mask(at: Any) -> None:
    """CuPy counts a mask that is an index, and waits for the device: ours must never."""
    if isinstance(at, DeviceArray) and at.dtype == np.bool_:
        raise TypeError("a mask as an index makes CuPy wait for the device: choose with where")


class _Namespace(ModuleType):
    """NumPy's functions on device arrays, as far as the real module has them."""

    def __init__(self, name: str, like: ModuleType, functions: ModuleType, **own: Any) -> None:
        super().__init__(name)
        self.__dict__.update(own, _like=like, _functions=functions)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or not hasattr(self._like, name):
            raise AttributeError(f"module {self.__name__} has no attribute {name!r}")
        found = getattr(self._functions, name)
        return partial(_call, found) if callable(found) and not isinstance(found, type) else found


def install(monkeypatch: Any) -> ModuleType:
    """Be `cupy` for the time of a test; returns the module."""
    from numba import cuda
    from numba.cuda.dispatcher import CUDADispatcher

    pool = SimpleNamespace(
        free_bytes=lambda: 0, free_all_blocks=lambda: None, get_limit=lambda: 0,
        used_bytes=lambda: 0, total_bytes=lambda: 0,
    )  # fmt: skip
    stream = SimpleNamespace(ptr=0)
    runtime = SimpleNamespace(
        memGetInfo=lambda: (4 << 30, 8 << 30), deviceSynchronize=lambda: None,
        getDeviceCount=lambda: 1, getDeviceProperties=lambda _: {"name": b"none"},
    )  # fmt: skip
    module = _Namespace(
        "cupy", real, np, ndarray=DeviceArray,
        asarray=lambda a: a if isinstance(a, DeviceArray) else DeviceArray(np.array(a)),
        empty=lambda shape, dtype: DeviceArray(np.empty(shape, dtype)),
        ascontiguousarray=lambda a: a if a._host.flags.c_contiguous
        else DeviceArray(np.ascontiguousarray(_plain(a))),
        get_default_memory_pool=lambda: pool, get_default_pinned_memory_pool=lambda: pool,
        lib=SimpleNamespace(stride_tricks=SimpleNamespace(
            as_strided=lambda a, shape, strides: _call(
                np.lib.stride_tricks.as_strided, a, shape, strides, owner=a))),
        cuda=SimpleNamespace(
            Device=Device, Event=Event, Stream=lambda **_: contextlib.nullcontext(stream),
            get_current_stream=lambda: stream, runtime=runtime,
            alloc_pinned_memory=bytearray,
        ),
    )  # fmt: skip
    namespace = _Namespace(
        "array_api_compat.cupy", real_namespace, array_api_compat.numpy, lib=module.lib
    )
    monkeypatch.setitem(sys.modules, "cupy", module)
    monkeypatch.delitem(sys.modules, "rmm", raising=False)  # another test may have loaded it
    monkeypatch.setitem(sys.modules, "array_api_compat.cupy", namespace)
    monkeypatch.setattr(array_api_compat, "cupy", namespace)
    monkeypatch.setattr(cuda, "external_stream", lambda ptr: ptr)
    monkeypatch.setattr(cuda, "as_cuda_array", lambda array, sync: array)
    monkeypatch.setattr(CUDADispatcher, "__getitem__", _launcher)
    return module


def _launcher(kernel: Any, configuration: tuple[Any, ...]) -> _Launcher:
    return _Launcher(kernel, configuration)


class _Launcher:
    """What `kernel[grid, block, stream, shared]` gives."""

    def __init__(self, kernel: Any, configuration: tuple[Any, ...]) -> None:
        self._kernel, (self._grid, self._block, _, self._shared) = kernel, configuration

    def __call__(self, *arguments: Any) -> None:
        given = [_plain(a) if isinstance(a, DeviceArray) else a for a in arguments]
        with _ONE:
            hostlaunch.run(self._kernel, self._grid, self._block, given, self._shared)
