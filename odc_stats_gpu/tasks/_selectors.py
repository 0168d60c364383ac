"""Which tasks of a database a user means: tile names, row numbers, slices."""

from __future__ import annotations

from collections.abc import Sequence

from odc_stats_gpu.errors import ConfigError
from odc_stats_gpu.model import TileIndex

_FORMS = (
    "write period/x/y, period,x,y, x/y/period, a row number of the csv, "
    "or a slice such as 0:10 or -10:"
)


def select(indexes: Sequence[TileIndex], selectors: Sequence[str]) -> list[TileIndex]:
    """The tasks that `selectors` name, in that order, duplicates kept; all when there are none.

    `2019--P1Y/41/13`, `2019--P1Y,41,13`, `x+041/y+013/2019--P1Y`, `7` (row of the csv), `0:10`,
    `-10:`, `::2`. Raises ConfigError naming the selector that is wrong or matches no task.
    """
    if not selectors:
        return list(indexes)
    known = set(indexes)
    out: list[TileIndex] = []
    for text in selectors:
        if "/" in text or "," in text:
            out.append(_tile(text, known))
        elif ":" in text:
            out += indexes[_slice(text)]
        else:
            out.append(indexes[_row(text, len(indexes))])
    return out


def _tile(text: str, known: set[TileIndex]) -> TileIndex:
    try:
        tile = TileIndex.parse(text)
    except ConfigError:
        raise ConfigError(f"can't read the task selector {text!r}", _FORMS) from None
    if tile not in known:
        raise ConfigError(
            f"no task matches {text!r}", f"the database has {len(known)} tasks; {_FORMS}"
        )
    return tile


def _slice(text: str) -> slice:
    try:
        parts = [int(p) if p.strip() else None for p in text.split(":")]
    except ValueError:
        parts = []
    if not 2 <= len(parts) <= 3 or parts[2:] == [0]:
        raise ConfigError(f"can't read the task selector {text!r}", _FORMS)
    return slice(*parts)


def _row(text: str, count: int) -> int:
    try:
        row = int(text)
    except ValueError:
        raise ConfigError(f"can't read the task selector {text!r}", _FORMS) from None
    if not 0 <= row < count:
        raise ConfigError(
            f"the task number {row} is out of range", f"allowed: 0 to {count - 1}; {_FORMS}"
        )
    return row
