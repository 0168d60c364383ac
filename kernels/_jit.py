"""How the CPU kernels are compiled: cached where possible, GIL released, pieces inlined."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from numba import njit

Function = TypeVar("Function", bound=Callable[..., Any])


def inlined(function: Function) -> Function:
    """Compile a piece of a kernel; it becomes part of whatever calls it."""
    compiled: Any = njit(forceinline=True, error_model="numpy")(function)
    piece: Function = compiled
    return piece


def kernel(function: Function) -> Function:
    """Compile an entry point: it releases the GIL and is cached beside its source or for the user.

    Numba finds a cached kernel stale only if the entry point's own file changed. Its pieces live in
    other files, so that a digest of those becomes part of the name it is cached under.
    """
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
    function.__qualname__ += f"-{_digest(Path(function.__code__.co_filename).parent)}"
    try:
        compiled: Any = njit(cache=True, **options)(function)
    except RuntimeError:  # nowhere to write a cache, as in a read-only container: compile each time
        compiled = njit(**options)(function)
    done: Function = compiled
    return done


@cache
def _digest(folder: Path) -> str:
    """Hash of the sources that a CPU kernel in `folder` can be made of."""
    digest = hashlib.sha256()
    for source in (*sorted(Path(__file__).parent.glob("_*.py")), *sorted(folder.glob("*.py"))):
        if "cuda" not in source.stem:
            digest.update(source.read_bytes())
    return digest.hexdigest()[:12]
