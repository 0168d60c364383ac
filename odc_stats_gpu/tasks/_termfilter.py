"""`--dataset-filter` and the other predicates of save-tasks: which scenes go into the database."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from odc_stats_gpu.errors import ConfigError
from odc_stats_gpu.model import Dataset, TimeRange, as_utc
from odc_stats_gpu.tasks._source import Scene

USGS_PRODUCTS = frozenset({"ls5_sr", "ls7_sr", "ls8_sr", "ls9_sr"})
"""Products that `usgs_collection_category` applies to; all others pass."""

_MISSING = object()
_REMEDY = 'write a JSON object, for example {"eo:cloud_cover": [0, 60], "eo:platform": "landsat-8"}'


def parse_dataset_filter(value: str | Mapping[str, Any] | None) -> dict[str, Any]:
    """Terms from JSON text or a YAML mapping; raises ConfigError."""
    if isinstance(value, str) and value.strip():
        try:
            value = json.loads(value)
        except ValueError as exc:
            raise ConfigError(f"can't read the dataset filter {value!r}: {exc}", _REMEDY) from None
    if not value:
        return {}
    if not isinstance(value, Mapping):
        raise ConfigError(f"the dataset filter {value!r} is no object", _REMEDY)
    return dict(value)


class TermFilter:
    """Keeps the scenes that fulfil every term.

    A key is a property (`eo:cloud_cover`), a search field of the metadata type (`cloud_cover`) or
    one of time, lat, lon. Two numbers or dates are an inclusive range, other lists alternatives.
    """

    def __init__(
        self, terms: Mapping[str, Any], metadata_types: Iterable[Mapping[str, Any]] = ()
    ) -> None:
        self._terms = {key: _wanted(key, value) for key, value in terms.items()}
        self._fields = _search_fields(metadata_types)
        self._unseen = set(self._terms)
        self._properties: set[str] = set()

    def __call__(self, scene: Scene) -> bool:
        """Whether the scene stays; one that lacks the property goes."""
        keep = True
        for key, wanted in self._terms.items():
            found = self._lookup(scene, key)
            if found is _MISSING or found is None:
                if key in self._unseen:
                    self._properties.update(scene.dataset.properties)
                keep = False
            else:
                self._unseen.discard(key)
                keep = keep and _fulfils(found, wanted)
        return keep

    def finish(self, seen: int) -> None:
        """After the last scene: a key that none of them had is a mistake; raises ConfigError."""
        if seen and self._unseen:
            key = min(self._unseen)
            raise ConfigError(
                f"dataset filter: none of {seen} datasets has the property {key!r}",
                f"known: {', '.join(sorted(self._properties)[:40])}",
            )

    def _lookup(self, scene: Scene, key: str) -> Any:
        props = scene.dataset.properties
        if key in props:
            return props[key]
        if key == "time":
            return scene.dataset.time
        if key in ("lat", "lon"):
            bounds = (scene.doc.get("extent") or {}).get(key)
            return (bounds["begin"], bounds["end"]) if bounds else _MISSING
        for path in self._fields.get(key, ()):
            found = _follow(scene.doc, path)
            if found is not _MISSING:
                return found
        for name, value in props.items():
            if key in (name.partition(":")[2], name.replace(":", "_")):
                return value
        return _MISSING


def property_filter(gqa: float | None, usgs_collection_category: str | None) -> dict[str, Any]:
    """Predicates by name, for the summary of what was left out."""
    out: dict[str, Any] = {}
    if gqa is not None:
        limit = float(gqa)

        def precise(ds: Dataset) -> bool:
            found = ds.properties.get("gqa:iterative_mean_xy")
            return isinstance(found, (int, float)) and found <= limit

        out[f"gqa above {limit:g} or absent"] = precise
    if usgs_collection_category:
        category = usgs_collection_category

        def collected(ds: Dataset) -> bool:
            return (
                ds.product not in USGS_PRODUCTS
                or ds.properties.get("landsat:collection_category") == category
            )

        out[f"collection category other than {category}"] = collected
    return out


def _wanted(key: str, value: Any) -> Any:
    """A term as a range (tuple), alternatives (list) or one value."""
    if key == "time" or (isinstance(value, str) and "--P" in value.upper()):
        return _time_range(value)
    if isinstance(value, Mapping):
        if set(value) != {"begin", "end"}:
            raise ConfigError(f"dataset filter: can't read {key!r}: {value!r}", _REMEDY)
        value = [value["begin"], value["end"]]
    if isinstance(value, Sequence) and not isinstance(value, str):
        if len(value) == 2 and all(isinstance(v, (int, float)) for v in value):
            return (value[0], value[1])
        if len(value) == 2 and all(_is_time(v) for v in value):
            return (as_utc(value[0]), as_utc(value[1]))
        return list(value)
    return value


def _time_range(value: Any) -> tuple[datetime, datetime]:
    try:
        if isinstance(value, str):
            period = TimeRange.parse(value if "--" in value else f"{value}--P1Y")
            return (period.start, period.end)
        first, last = value
        return (as_utc(first), as_utc(last))
    except (ValueError, TypeError):
        raise ConfigError(f"dataset filter: can't read the time {value!r}", _REMEDY) from None


def _fulfils(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, tuple):
        low, high = wanted
        if isinstance(low, datetime):
            if not _is_time(found):
                return False
            found = as_utc(found)
        first, last = found if isinstance(found, tuple) else (found, found)
        try:
            return bool(first <= high and last >= low)
        except TypeError:
            return False
    if isinstance(found, tuple):  # an extent against one coordinate
        return bool(found[0] <= wanted <= found[1])
    return found in wanted if isinstance(wanted, list) else bool(found == wanted)


def _is_time(value: Any) -> bool:
    if isinstance(value, datetime):
        return True
    try:
        as_utc(value)
    except (ValueError, TypeError):
        return False
    return isinstance(value, str) and len(value) >= 8


def _search_fields(types: Iterable[Mapping[str, Any]]) -> dict[str, list[list[str]]]:
    """Places in a document where the metadata types say a search field lies."""
    out: dict[str, list[list[str]]] = {}
    for doc in types:
        dataset = doc.get("dataset") or {}
        for name, field in (dataset.get("search_fields") or {}).items():
            path = field.get("offset") if isinstance(field, Mapping) else None
            if path and path not in out.setdefault(name, []):
                out[name].append(list(path))
        for name, path in dataset.items():
            if isinstance(path, list) and path and all(isinstance(p, str) for p in path):
                out.setdefault(name, []).append(path)
    return out


def _follow(doc: Any, path: Sequence[str]) -> Any:
    for part in path:
        if not isinstance(doc, Mapping) or part not in doc:
            return _MISSING
        doc = doc[part]
    return doc
