"""Rectangles of native pixels, and affine maps between pixels and CRS."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Self

from affine import Affine


@dataclass(frozen=True, slots=True)
class Window:
    """Rows r0..r1 and columns c0..c1, half open; empty when an end is not past its start."""

    r0: int
    r1: int
    c0: int
    c1: int

    @property
    def shape(self) -> tuple[int, int]:
        """Rows, columns."""
        return (max(self.r1 - self.r0, 0), max(self.c1 - self.c0, 0))

    @property
    def size(self) -> int:
        """Pixels."""
        return self.shape[0] * self.shape[1]

    @property
    def slices(self) -> tuple[slice, slice]:
        """To index an array whose first pixel is (0, 0)."""
        return (slice(self.r0, self.r1), slice(self.c0, self.c1))

    def shift(self, rows: int, cols: int) -> Self:
        """Move."""
        return type(self)(self.r0 + rows, self.r1 + rows, self.c0 + cols, self.c1 + cols)

    def pad(self, pixels: int) -> Self:
        """Grow on every side."""
        return type(self)(self.r0 - pixels, self.r1 + pixels, self.c0 - pixels, self.c1 + pixels)

    def clip(self, other: Window) -> Self:
        """The part that lies in both."""
        return type(self)(
            max(self.r0, other.r0), min(self.r1, other.r1),
            max(self.c0, other.c0), min(self.c1, other.c1),
        )  # fmt: skip

    def within(self, whole: Window) -> Self:
        """The part inside `whole`, or one pixel of its rim where there is none."""
        r0 = min(max(self.r0, whole.r0), whole.r1 - 1)
        c0 = min(max(self.c0, whole.c0), whole.c1 - 1)
        r1, c1 = max(min(self.r1, whole.r1), r0 + 1), max(min(self.c1, whole.c1), c0 + 1)
        return type(self)(r0, r1, c0, c1)

    def hull(self, other: Window) -> Self:
        """The smallest window that holds both."""
        return type(self)(
            min(self.r0, other.r0), max(self.r1, other.r1),
            min(self.c0, other.c0), max(self.c1, other.c1),
        )  # fmt: skip

    def mapped(self, whole: Window, onto: Window) -> Self:
        """The part of `onto` that lies where this window lies in `whole`: grids over one area."""
        rows, cols = onto.shape[0] / whole.shape[0], onto.shape[1] / whole.shape[1]
        return type(self)(
            math.floor((self.r0 - whole.r0) * rows) + onto.r0 - 1,
            math.ceil((self.r1 - whole.r0) * rows) + onto.r0 + 1,
            math.floor((self.c0 - whole.c0) * cols) + onto.c0 - 1,
            math.ceil((self.c1 - whole.c0) * cols) + onto.c0 + 1,
        )


def apply(transform: Affine, x: Any, y: Any) -> tuple[Any, Any]:
    """Map numbers or arrays; the operator for it differs between releases of affine."""
    a, b, c, d, e, f = tuple(transform)[:6]
    return a * x + b * y + c, d * x + e * y + f


def moved(transform: Affine, cols: float, rows: float) -> Affine:
    """The transform of an array whose first pixel is (rows, cols) of the old one."""
    a, b, _, d, e, _ = tuple(transform)[:6]
    c, f = apply(transform, cols, rows)
    return Affine(a, b, c, d, e, f)
