"""What the tests of CUDA kernels share."""

from __future__ import annotations

import sys
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
from board import find_board

if find_spec("numba_cuda") is None:
    collect_ignore_glob = ["test_kernel_*", "test_ptx_*"]

SCRIPT = Path(__file__).parents[2] / "bench" / "kernel_ptx.py"


@pytest.fixture(scope="session")
def kernel_ptx():
    """The script that writes kernels with a launch of each."""
    spec = spec_from_file_location("kernel_ptx", SCRIPT)
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def found_board():
    return find_board()


@pytest.fixture
def board(found_board, monkeypatch):
    """What kernels run on; the test skips where that is nothing."""
    if found_board.kind == "host":
        import hostlaunch

        hostlaunch.use(monkeypatch)
    return found_board


@pytest.fixture
def cupy(found_board):
    """CuPy on a real device: for what has no stand-in, as streams and pools."""
    if not found_board.real:
        pytest.skip(f"a rehearsal ({found_board.kind}) has no streams and no memory pool")
    import cupy

    return cupy
