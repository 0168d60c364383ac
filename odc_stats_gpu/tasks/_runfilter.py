"""`--dataset-filters` of `run`: keep the scenes whose properties equal those of any JSON object."""

from __future__ import annotations

import json
from typing import Any

from odc_stats_gpu.errors import ConfigError
from odc_stats_gpu.model import Dataset, TimeRange, as_utc

_REMEDY = 'write JSON objects joined by |, for example {"eo:platform": "landsat-8"}'


def parse_run_filter(text: str) -> list[dict[str, Any]]:
    """JSON objects joined by `|`, which may also occur inside a value; raises ConfigError."""
    decoder = json.JSONDecoder()
    out: list[dict[str, Any]] = []
    rest = text.strip()
    while rest:
        try:
            term, end = decoder.raw_decode(rest)
        except ValueError:
            raise ConfigError(f"can't read the dataset filter {text!r}", _REMEDY) from None
        rest = rest[end:].lstrip()
        if not isinstance(term, dict) or (rest and not rest.startswith("|")):
            raise ConfigError(f"can't read the dataset filter {text!r}", _REMEDY)
        if "datetime" in term:
            term["datetime"] = TimeRange.parse(str(term["datetime"]))
        out.append(term)
        rest = rest.removeprefix("|").lstrip()
    return out


def passes(dataset: Dataset, terms: list[dict[str, Any]]) -> bool:
    """Whether any object matches in all its keys; a property the scene lacks doesn't match."""
    return not terms or any(
        all(_matches(dataset, key, value) for key, value in term.items()) for term in terms
    )


def _matches(dataset: Dataset, key: str, value: Any) -> bool:
    if key not in dataset.properties:
        return False
    found = dataset.properties[key]
    if isinstance(value, TimeRange):
        return found is not None and as_utc(found) in value
    return bool(found == value)
