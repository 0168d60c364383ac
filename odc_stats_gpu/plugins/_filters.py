"""Cleaning of masks as configurations write it: `cloud_filters`, or `cloud_classes`, `filters`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from odc_stats_gpu import kernels
from odc_stats_gpu.errors import ConfigError
from odc_stats_gpu.plugins._config import as_tuple, hint

OPERATIONS = ("opening", "closing", "dilation", "erosion")
Operation = tuple[str, float]
ClassName = str | int


@dataclass(frozen=True, slots=True)
class MaskRule:
    """Classes that are united, cleaned by the operations in sequence, then erased."""

    classes: tuple[ClassName, ...]
    operations: tuple[Operation, ...] = ()


def parse_operations(raw: Any, key: str) -> tuple[Operation, ...]:
    """Read `[[opening, 2], [dilation, 5]]` or the pair `[2, 5]` (opening, dilation; 0 = skip).

    Radii are Euclidean, in pixels of the grid that the mask is cleaned on. Operations of radius 0
    change nothing and are dropped.

    Raises:
        ConfigError: naming `key`, the value and the form expected.
    """
    items = _sequence(raw or (), key)
    if len(items) == 2 and all(_is_radius(v) for v in items):
        items = (("opening", items[0]), ("dilation", items[1]))
    out = []
    for item in items:
        pair = next(iter(item.items())) if isinstance(item, Mapping) and len(item) == 1 else item
        if isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) != 2:
            raise _malformed(key, item)
        name, radius = pair
        if name not in OPERATIONS:
            raise ConfigError(f"{key}: unknown operation {name!r}", hint(name, OPERATIONS))
        if not _is_radius(radius):
            raise ConfigError(
                f"{key}: {name} has the radius {radius!r}", "a radius is a number of pixels >= 0"
            )
        if radius > 0:
            out.append((str(name), radius))
    return tuple(out)


def parse_class_names(raw: Any, key: str) -> tuple[ClassName, ...]:
    """Read a list of class names, pixel values, or `{flag: value}` of a bit-field mask.

    A flag's wanted value becomes the name `flag=value`.

    Raises:
        ConfigError: for anything else.
    """
    if isinstance(raw, Mapping):
        raw = [f"{flag}={_plain(value)}" for flag, value in raw.items()]
    out: list[ClassName] = []
    for name in _sequence(as_tuple(raw), key):
        if isinstance(name, bool) or not isinstance(name, (str, int)):
            raise ConfigError(
                f"{key}: {name!r} is not a class", "write names of the mask band or pixel values"
            )
        out.append(name.strip() if isinstance(name, str) else name)
    return tuple(dict.fromkeys(out))


def parse_cloud_filters(raw: Any, key: str = "cloud_filters") -> tuple[MaskRule, ...]:
    """Read `{cloud: [[opening, 3], [dilation, 6]], ...}` or `[{classes: [...], filters: [...]}]`.

    Each entry is cleaned on its own, then all are united; a key that names several classes,
    `"a, b"`, unites them before cleaning.

    Raises:
        ConfigError: empty, malformed, or an entry without a class.
    """
    rules = []
    if isinstance(raw, Mapping):
        for name, operations in raw.items():
            names = _split(name)
            rules.append(MaskRule(names, parse_operations(operations, f"{key}.{name}")))
    else:
        for number, entry in enumerate(_sequence(raw, key)):
            if not isinstance(entry, Mapping) or "classes" not in entry:
                raise _malformed(f"{key}[{number}]", entry)
            if extra := set(entry) - {"classes", "filters"}:
                unknown = min(map(str, extra))
                raise ConfigError(
                    f"{key}[{number}]: unknown key {unknown!r}",
                    hint(unknown, ("classes", "filters")),
                )
            names = parse_class_names(entry["classes"], f"{key}[{number}].classes")
            rules.append(
                MaskRule(names, parse_operations(entry.get("filters"), f"{key}[{number}].filters"))
            )
    if not all(rule.classes for rule in rules):
        raise ConfigError(f"{key}: an entry names no class", "write class: [[opening, r], ...]")
    return tuple(rules)


def margin_of(sequences: Iterable[Sequence[Operation]]) -> int:
    """Pixels to read around a window so that cleaned masks don't depend on its edge."""
    return max((kernels.mask_margin(operations) for operations in sequences), default=0)


def _split(name: Any) -> tuple[ClassName, ...]:
    """A mapping's key: one class, "a,b", or a tuple in Python."""
    if isinstance(name, str):
        return tuple(dict.fromkeys(part.strip() for part in name.split(",") if part.strip()))
    return parse_class_names(name, "cloud_filters")


def _sequence(value: Any, key: str) -> tuple[Any, ...]:
    if isinstance(value, (str, Mapping)) or not isinstance(value, Iterable):
        raise _malformed(key, value)
    return tuple(value)


def _is_radius(value: Any) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and 0 <= value < math.inf


def _plain(value: Any) -> str:
    """YAML's true and false as product definitions write them."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _malformed(key: str, value: Any) -> ConfigError:
    return ConfigError(
        f"{key}: can't read {value!r}", "write [[opening, 3], [dilation, 6]] or [r1, r2]"
    )
