"""Counting in plain NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from odc_stats_gpu.kernels.counts._arguments import check


def count_true(
    stack: npt.NDArray[Any],
    where: npt.NDArray[Any] | None = None,
    *,
    unless: npt.NDArray[Any] | None = None,
) -> npt.NDArray[np.uint16]:
    """Count the layers in which each pixel is set; see `odc_stats_gpu.kernels.count_true`."""
    check(stack, where, unless)
    counted = stack != 0
    if where is not None:
        counted &= where != 0
    if unless is not None:
        counted &= unless == 0
    return counted.sum(axis=0).astype(np.uint16)
