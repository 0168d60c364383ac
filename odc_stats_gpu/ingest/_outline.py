"""The valid-data footprint of a scene, for telling early that it doesn't touch a block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
import shapely.geometry

from odc_stats_gpu.ingest._frames import Frame
from odc_stats_gpu.ingest._window import Window, apply
from odc_stats_gpu.model import Dataset

_SLACK = 0.02
"""Share of the grid's longer side by which a footprint is widened: producers simplify them."""
_MIN_SLACK = 16
"""Pixels, at least."""


@dataclass(frozen=True, slots=True)
class Outline:
    """A footprint in pixels of a frame (x, y), widened."""

    shape: Any

    def meets(self, window: Window) -> bool:
        """Whether any of the window's pixels may be valid."""
        return bool(
            shapely.intersects(self.shape, shapely.box(window.c0, window.r0, window.c1, window.r1))
        )


def outline(dataset: Dataset, frame: Frame, extent: Window) -> Outline | None:
    """The document's footprint; None where there is none that fits the scene's grid.

    Documents converted from elsewhere may carry degrees instead of CRS units: a footprint that
    doesn't lie on the grid is not believed.
    """
    if not dataset.geometry:
        return None
    to_pixel = ~frame.transform
    try:
        shape = shapely.make_valid(shapely.geometry.shape(dict(dataset.geometry)))
        shape = shapely.transform(
            shape, lambda xy: np.stack(apply(to_pixel, xy[:, 0], xy[:, 1]), axis=1)
        )
    except (
        shapely.errors.ShapelyError,
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        IndexError,
    ):
        return None
    grid = shapely.box(extent.c0, extent.r0, extent.c1, extent.r1)
    slack = max(_SLACK * max(extent.shape), _MIN_SLACK)
    if shape.is_empty or not shapely.covers(shapely.buffer(grid, slack), shape):
        return None
    widened = shapely.buffer(shape, slack, quad_segs=2)
    shapely.prepare(widened)
    return Outline(widened)
