"""Operations on masks as a chain of erosions and dilations, and how far such a chain reaches."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

_CHAINS = {
    "opening": ("erosion", "dilation"),
    "closing": ("dilation", "erosion"),
    "dilation": ("dilation",),
    "erosion": ("erosion",),
}


@dataclass(frozen=True, slots=True)
class Stage:
    """One erosion or dilation by a disk."""

    dilates: bool
    heights: npt.NDArray[np.int64]
    """Half height of the disk's columns at distance 0, 1, ..., reach from its centre."""

    @property
    def reach(self) -> int:
        """Rows and columns from the disk's centre to its rim."""
        return len(self.heights) - 1


def stages(ops: Iterable[tuple[str, float]]) -> list[Stage]:
    """Take operations apart; those whose disk is a single pixel change nothing and are left out.

    Raises:
        ValueError: unknown operation, a radius that is negative or no number.
    """
    chain = []
    for name, radius in ops:
        if name not in _CHAINS:
            raise ValueError(f"no mask operation {name!r}: use one of {', '.join(_CHAINS)}")
        if not (isinstance(radius, int | float | np.number) and 0 <= radius < math.inf):
            raise ValueError(
                f"the radius of {name} must be a number of pixels >= 0, got {radius!r}"
            )
        heights = disk(float(radius))
        if len(heights) > 1:
            chain += [Stage(step == "dilation", heights) for step in _CHAINS[name]]
    return chain


def disk(radius: float) -> npt.NDArray[np.int64]:
    """Half heights of the columns of the disk of pixels at most `radius` from the centre."""
    reach = math.floor(radius)
    return np.array(
        [
            max(h for h in range(reach + 1) if math.sqrt(d * d + h * h) <= radius)
            for d in range(reach + 1)
        ],
        dtype=np.int64,
    )


def padding(chain: list[Stage]) -> int:
    """Pixels outside of the image that the chain can set and look at again.

    Outside is not set to begin with. A dilation can set pixels there, which counts where an erosion
    follows, as in a closing; nothing ever spreads further than the dilations before the last
    erosion.
    """
    erosions = [n for n, stage in enumerate(chain) if not stage.dilates]
    return sum(stage.reach for stage in chain[: max(erosions, default=0)] if stage.dilates)


def margin(ops: Iterable[tuple[str, float]]) -> int:
    """Pixels around a window that decide about pixels in it."""
    return sum(stage.reach for stage in stages(ops))


def as_planes(mask: Any) -> Any:
    """The mask as (n, y, x), bool.

    Raises:
        ValueError: not bool, or neither (y, x) nor (n, y, x).
    """
    if mask.dtype != np.bool_:
        raise ValueError(f"a mask must be bool, got {mask.dtype}")
    if mask.ndim not in {2, 3}:
        raise ValueError(f"a mask must be (y, x) or (n, y, x), got shape {mask.shape}")
    return mask[None] if mask.ndim == 2 else mask
