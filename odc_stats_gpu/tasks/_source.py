"""What save-tasks needs of an archive: products, and a stream of scenes with their documents."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from odc.geo.geom import Geometry

from odc_stats_gpu.errors import ConfigError
from odc_stats_gpu.model import Dataset, Product

Span = tuple[datetime, datetime]
"""Centre times from the first, inclusive, to the second, exclusive; naive UTC."""


@dataclass(frozen=True, slots=True)
class Scene:
    """A dataset and the document it was read from, as it is to be stored."""

    dataset: Dataset
    doc: Mapping[str, Any]


class Source(Protocol):
    """An archive. Scenes come in a reproducible order; the same id may come more than once."""

    def products(self) -> Mapping[str, Product]:
        """Definitions of the products asked for; raises ConfigError when one is missing."""

    def metadata_types(self) -> Mapping[str, Mapping[str, Any]]:
        """Metadata type documents of these products, by name."""

    def datasets(self, span: Span | None, area: Geometry | None) -> Iterator[Scene]:
        """Scenes whose centre time lies in `span`; `area` may be used to send fewer of them."""

    def query(self) -> Mapping[str, Any]:
        """What is noted in the database of how the scenes were chosen."""


def split_products(expression: str | Sequence[str], known: Sequence[str]) -> list[str]:
    """Names in a union `a-b-c`; a name may itself contain dashes when it is among `known`.

    Raises ConfigError for a joined expression (`a+b`). Names that are not known are returned as
    they stand, so that the caller can say where it looked for them.
    """
    if not isinstance(expression, str):
        return list(dict.fromkeys(n for text in expression for n in split_products(text, known)))
    if "://" in expression:
        raise ConfigError(
            f"{expression!r}: products outside an index are not supported",
            "index them, or use --eo3",
        )
    if "+" in expression:
        raise ConfigError(
            f"{expression!r}: joined products (a+b) are not supported yet", "write a union: a-b"
        )
    parts = [p.strip() for p in expression.split("-") if p.strip()]
    out: list[str] = []
    while parts:
        for n in range(len(parts), 0, -1):
            name = "-".join(parts[:n])
            if name in known or n == 1:
                out.append(name)
                parts = parts[n:]
                break
    return list(dict.fromkeys(out))


def missing_product(name: str, where: str, known: Sequence[str]) -> ConfigError:
    """The error about a product without definition."""
    near = difflib.get_close_matches(name, known, n=1)
    hint = (
        f"did you mean {near[0]!r}?"
        if near
        else f"found there: {', '.join(sorted(known)) or 'none'}"
    )
    return ConfigError(f"missing product definition of {name!r} in {where}", hint)


def path_safe(text: str) -> str:
    """The text with everything replaced that doesn't belong into a file name."""
    return re.sub(r"[^\w.+-]+", "_", text.replace("s3://", "")).strip("_.") or "tasks"
