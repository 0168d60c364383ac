"""A machine that has NumPy, Numba, CuPy and pytest and nothing else: other packages aren't found.

As a program: `python refuse_imports.py -m pytest ...` or `python refuse_imports.py FILE`.
"""

from __future__ import annotations

import runpy
import sys
from importlib.abc import MetaPathFinder

ALLOWED = frozenset(
    {
        "numpy", "numba", "llvmlite", "numba_cuda", "cuda", "cupy", "cupyx", "cupy_backends",
        "cuda_pathfinder", "nvidia", "pynvml", "pytest", "_pytest", "pluggy", "iniconfig",
        "packaging", "pygments", "pytest_timeout", "hypothesis", "sortedcontainers", "attr",
        "attrs", "py", "fastrlock", "odc_stats_gpu", "bench",
    }
)  # fmt: skip
"""Packages of a bare CUDA machine with the carried test tools."""


class Refuse(MetaPathFinder):
    """Finds nothing, loudly, for what is installed but not allowed."""

    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top in sys.stdlib_module_names or top in ALLOWED or top.startswith("_"):
            return
        for finder in sys.meta_path:
            spec = finder.find_spec(name, path, target) if finder is not self else None
            if spec is not None and "site-packages" in str(
                spec.origin or spec.submodule_search_locations
            ):
                raise ModuleNotFoundError(f"No module named {name!r} (refused)", name=name)


def install() -> None:
    """Refuse from now on."""
    sys.meta_path.insert(0, Refuse())


if __name__ == "__main__":
    install()
    sys.argv = sys.argv[1:]
    sys.path[0] = ""
    if sys.argv[0] == "-m":
        sys.argv = sys.argv[1:]
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    elif sys.argv[0] == "-c":
        exec(sys.argv[1])
    else:
        runpy.run_path(sys.argv[0], run_name="__main__")
