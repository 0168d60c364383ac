"""The public functions of the morphology: documentation and choice of the implementation."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from odc_stats_gpu.kernels._dispatch import implementation, register
from odc_stats_gpu.kernels.morphology._stages import margin

_ROOM = "odc_stats_gpu.kernels.morphology"
register("clean_mask", cpu=f"{_ROOM}.cpu:clean_mask", cuda=f"{_ROOM}.cuda:clean_mask")


def clean_mask(mask: Any, ops: Iterable[tuple[str, float]]) -> Any:
    """Apply operations to a mask, one after the other, e.g. `[("opening", 3), ("dilation", 6)]`.

    Args:
        mask: (y, x) or (n, y, x), bool; left as it is.
        ops: opening, closing, dilation or erosion, each with a radius in pixels. The structuring
            element is the Euclidean disk of all pixels at most the radius from its centre: 5 pixels
            for 1, 13 for 2, 29 for 3, 81 for 5. Radii may be fractional; below 1 nothing happens.

    Returns:
        A new array of mask's shape, bool.

    Outside of the image nothing is set: erosion eats from its edges, closing doesn't. An empty mask
    stays empty. Releases the GIL and starts no threads.

    Raises:
        ValueError: unknown operation, negative radius, mask of another type or shape.
        TypeError: not an array.
    """
    return implementation("clean_mask", mask)(mask, ops)


def mask_margin(ops: Iterable[tuple[str, float]]) -> int:
    """Pixels that a window needs on every side so that `clean_mask` is right inside of it.

    That is the sum of the radii, in which opening and closing count twice, since they erode and
    dilate.

    Raises:
        ValueError: as `clean_mask`.
    """
    return margin(ops)
