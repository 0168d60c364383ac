"""pytest plugin: ends a worker of pytest-xdist whose CUDA context is lost; another one takes over.

After an illegal access every further call in the process fails, and tests with it that are right.
"""

from __future__ import annotations

import os
import sys


def pytest_runtest_logfinish() -> None:
    """After each test."""
    cupy = sys.modules.get("cupy")
    if cupy is None or "PYTEST_XDIST_WORKER" not in os.environ:
        return
    try:
        cupy.cuda.runtime.deviceSynchronize()
    except cupy.cuda.runtime.CUDARuntimeError as exc:
        if not str(exc).startswith(("cudaErrorNoDevice", "cudaErrorInsufficientDriver")):
            os._exit(70)
