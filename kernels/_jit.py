"""How the CPU kernels are compiled: cached where a cache can be written, GIL released, pieces inlined."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from numba import njit

Function = TypeVar("Function", bound=Callable[..., Any])


def inlined(function: Function) -> Function:
    """Compile a piece of a kernel; it becomes part of whatever calls it."""
    compiled: Function = njit(forceinline=True, no_cpython_wrapper=True, error_model="numpy")(function)
    return compiled


def kernel(function: Function) -> Function:
    """Compile an entry point: releases the GIL and is cached beside the source or in the user's cache."""
    options = {"nogil": True, "error_model": "numpy"}
    try:
        compiled: Function = njit(cache=True, **options)(function)
    except RuntimeError:  # nowhere to write a cache, as in a read-only container: compile each time
        compiled = njit(**options)(function)
    return compiled
