"""Fast YAML for documents: libyaml's parser, JSON's types, dates left as the text they are."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from odc_stats_gpu.errors import DataError

_BASE: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_CORE = "tag:yaml.org,2002:"
_STR = _CORE + "str"


class _Loader(_BASE):  # type: ignore[misc] # the C loader when libyaml is there
    """A safe loader whose per-scalar work is cached: an archive repeats its keys and numbers.

    The stock one spends two thirds of its time in Python on resolving and constructing scalars.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012 - pyyaml's way to configure a loader
        first: [(tag, regexp) for tag, regexp in rules if tag != _CORE + "timestamp"]
        for first, rules in _BASE.yaml_implicit_resolvers.items()
    }

    def resolve(self, kind: type, value: Any, implicit: Any) -> str:
        if kind is yaml.ScalarNode and implicit[0]:
            return _plain_tag(value)
        return super().resolve(kind, value, implicit)

    def construct_document(self, node: Any) -> Any:
        try:
            return _build(node)
        except _NotPlainError:  # merge keys, sets, explicit tags: rare, the stock way
            return super().construct_document(node)


class _NotPlainError(Exception):
    """The document uses more than mappings, lists and plain scalars."""


def documents(path: Path) -> list[Any]:
    """The YAML documents of a file; raises DataError naming file and reason."""
    try:
        return list(yaml.load_all(path.read_bytes(), Loader=_Loader))
    except OSError as exc:
        raise DataError(
            f"can't read {path}: {exc.strerror}", "check the path and its permissions"
        ) from None
    except (yaml.YAMLError, ValueError, RecursionError) as exc:
        reason = " ".join(str(exc).split())
        raise DataError(f"{path} is no YAML: {reason}", "correct or remove the file") from None


def _build(node: Any) -> Any:
    kind = type(node)
    if kind is yaml.ScalarNode:
        return node.value if node.tag == _STR else _scalar(node.tag, node.value)
    if kind is yaml.SequenceNode and node.tag == _CORE + "seq":
        return [_build(item) for item in node.value]
    if kind is yaml.MappingNode and node.tag == _CORE + "map":
        out = {}
        for key, value in node.value:
            if type(key) is not yaml.ScalarNode or key.tag == _CORE + "merge":
                raise _NotPlainError
            out[_build(key)] = _build(value)
        return out
    raise _NotPlainError


_tags: Any = _Loader(b"")  # only its table of patterns is used


@lru_cache(maxsize=8192)
def _plain_tag(value: str) -> str:
    """Tag of an unquoted scalar."""
    return str(super(_Loader, _tags).resolve(yaml.ScalarNode, value, (True, False)))


@lru_cache(maxsize=8192)
def _scalar(tag: str, value: str) -> Any:
    """Number, boolean or null as pyyaml makes it."""
    make: Callable[[Any], Any] | None = _MAKE.get(tag)
    if make is None:
        raise _NotPlainError
    return make(yaml.ScalarNode(tag, value))


_MAKE: dict[str, Callable[[Any], Any]] = {
    _CORE + "null": _tags.construct_yaml_null,
    _CORE + "bool": _tags.construct_yaml_bool,
    _CORE + "int": _tags.construct_yaml_int,
    _CORE + "float": _tags.construct_yaml_float,
}
