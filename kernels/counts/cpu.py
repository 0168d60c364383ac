"""Counting compiled for the CPU: layer by layer over rows, SIMD over x."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from odc_stats_gpu.kernels._jit import kernel
from odc_stats_gpu.kernels.counts._arguments import check


def count_true(
    stack: npt.NDArray[Any],
    where: npt.NDArray[Any] | None = None,
    *,
    unless: npt.NDArray[Any] | None = None,
) -> npt.NDArray[np.uint16]:
    """Count the layers in which each pixel is set; see `odc_stats_gpu.kernels.count_true`."""
    check(stack, where, unless)
    out = np.zeros(stack.shape[1:], np.uint16)
    flags = _bytes(stack)
    _count(
        flags,
        flags if where is None else _bytes(where),
        flags if unless is None else _bytes(unless),
        unless is not None,
        out,
    )
    return out


def _bytes(flags: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Flags as bytes, so that one kernel serves all types; bool and uint8 without a copy."""
    if flags.dtype.itemsize == 1:
        return flags.view(np.uint8)
    return (flags != 0).view(np.uint8)


@kernel
def _count(flags: Any, where: Any, unless: Any, excludes: Any, out: Any) -> None:
    for r in range(out.shape[0]):
        line = out[r]
        for t in range(flags.shape[0]):
            a, b, e = flags[t, r], where[t, r], unless[t, r]
            if excludes:
                for c in range(line.size):
                    line[c] += np.uint16((a[c] != 0) & (b[c] != 0) & (e[c] == 0))
            else:
                for c in range(line.size):
                    line[c] += np.uint16((a[c] != 0) & (b[c] != 0))
