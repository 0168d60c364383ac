"""Which numbers a pixel type can hold, and nodata values band by band."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def fits(value: float, dtype: np.dtype[Any]) -> bool:
    """Whether the type has this very number; float types take any."""
    if dtype.kind == "f":
        return True
    low, high = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    return bool(low <= value <= high) and int(value) == value


def one_per_band(nodata: float | Sequence[float], count: int, dtype: np.dtype[Any]) -> list[Any]:
    """One scalar of the pixels' type for each band, from a single value or one per band.

    Raises:
        ValueError: another number of values than bands, or a value that the type can't hold.
    """
    given = list(nodata) if isinstance(nodata, Sequence | np.ndarray) else [nodata] * count
    if len(given) != count:
        raise ValueError(f"{len(given)} nodata values for {count} bands: give one, or one per band")
    for value in given:
        if not fits(value, dtype):
            raise ValueError(f"{dtype} can't hold the nodata value {value}: use one of its own")
    return [dtype.type(value) for value in given]
