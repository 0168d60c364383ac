"""What the tests of CUDA kernels share."""

from __future__ import annotations

from importlib.util import find_spec

if find_spec("numba_cuda") is None:
    collect_ignore_glob = ["test_kernel_*"]
