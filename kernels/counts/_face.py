"""The public function of counting: documentation and choice of the implementation."""

from __future__ import annotations

from typing import Any

from odc_stats_gpu.kernels._dispatch import implementation, register

_ROOM = "odc_stats_gpu.kernels.counts"
register("count_true", cpu=f"{_ROOM}.cpu:count_true", cuda=f"{_ROOM}.cuda:count_true")


def count_true(stack: Any, where: Any | None = None, *, unless: Any | None = None) -> Any:
    """Count the layers in which each pixel is set (not zero).

    Args:
        stack: (time, y, x), bool or integer.
        where: bool or integer of stack's shape: only layers in which this is set, too.
        unless: the same: only layers in which this is not set.

    Returns:
        uint16 (y, x). `count_true(valid)` is the number of observations,
        `count_true(valid, unless=cloud)` that of the clear ones.

    Raises:
        ValueError: wrong shape, float type, or more layers than the 65535 that the result can
            count.
        TypeError: not an array.
    """
    return implementation("count_true", stack)(stack, where, unless=unless)
