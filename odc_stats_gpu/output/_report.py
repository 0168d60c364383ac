"""One self-contained HTML page about finished tiles: pictures, numbers, links."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from odc_stats_gpu.errors import ConfigError
from odc_stats_gpu.output._scenes import read_documents
from odc_stats_gpu.output._store import Store, open_store
from odc_stats_gpu.output._tile_view import tile_view

Array = np.ndarray[Any, Any]
Scene = str | Path | tuple[str, Array]
_FULL = 24
"""Tiles with pictures; the others are only listed."""


def write_report(
    locations: str | Sequence[str],
    out: str | Path,
    *,
    scenes: Sequence[Scene] | None = None,
    timings: Mapping[str, float] | None = None,
    title: str = "Finished tiles",
) -> Path:
    """Write the page about all tiles below the locations to `out` and return its path.

    `scenes` are EO3 documents of input scenes (the most telling date of each tile is drawn beside
    its geomedian), or pairs of a title and an rgb picture (y, x, 3) uint8. `timings` are seconds by
    name of a step. Raises ConfigError when there is no tile or `out` can't be written, StoreError
    and DataError when something can't be read.
    """
    places = [locations] if isinstance(locations, str) else list(locations)
    documents = read_documents([s for s in scenes or () if isinstance(s, (str, Path))])
    pictures = [s for s in scenes or () if isinstance(s, tuple)]
    found: list[tuple[Store, str]] = []
    for place in places:
        store = open_store(str(place), reading=True)
        found += [(store, p) for p in store.list() if p.endswith(".stac-item.json")]
    if not found:
        raise ConfigError(
            f"no finished tile below {', '.join(map(str, places))}", "make some with `run` first"
        )
    views, others = [], []
    for number_, (store, path) in enumerate(found):
        if number_ < _FULL:
            views.append(tile_view(store, path, documents, pictures, f"tile-{number_}", Path(out)))
        else:
            others.append((store.uri(path), posixpath.basename(path)))
    html = _render(
        title=title, views=views, others=others, timings=_bars(timings or {}),
        when=datetime.now(UTC).strftime("%-d %B %Y"), places=[str(p) for p in places],
        total=len(found),
    )  # fmt: skip
    target = Path(out)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(html, encoding="utf-8")
    except OSError as exc:
        raise ConfigError(
            f"can't write {target}: {exc.strerror or exc}", "choose another --out"
        ) from None
    return target


def _render(**context: Any) -> str:
    import jinja2

    folder = Path(__file__).parent
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template("report.html").render(**context)


def _bars(timings: Mapping[str, float]) -> list[tuple[str, str, float]]:
    """Name, seconds, length of the bar in percent."""
    top = max(timings.values(), default=1) or 1
    return [(name, f"{s:.1f} s", round(100 * s / top, 1)) for name, s in timings.items()]
