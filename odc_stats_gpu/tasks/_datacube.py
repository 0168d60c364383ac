"""Scenes from a datacube index. The only module of the project that knows datacube."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from odc.geo.geom import Geometry

from odc_stats_gpu.errors import ConfigError, DataError
from odc_stats_gpu.model import Dataset, Product, add_months
from odc_stats_gpu.tasks._footprints import lonlat_box
from odc_stats_gpu.tasks._source import Scene, Span, missing_product, split_products
from odc_stats_gpu.tasks._termfilter import TermFilter, parse_dataset_filter

_CHUNK_MONTHS = 3  # the client holds the answer to one query: a quarter of a product
_NUMBERS = ("double", "integer", "numeric")


class DatacubeSource:
    """The active datasets of some products in a datacube index.

    `products_expression` is a union `a-b`; `env` names an environment of the datacube
    configuration; `dataset_filter` is JSON text or a mapping. Connects on first use.
    """

    def __init__(
        self,
        products_expression: str | Sequence[str],
        env: str | None = None,
        dataset_filter: str | Mapping[str, Any] | None = None,
    ) -> None:
        self._expression = products_expression
        self._env = env or None
        self._terms = parse_dataset_filter(dataset_filter)

    @cached_property
    def _index(self) -> Any:
        try:
            from datacube.cfg import ConfigException, ODCConfig
            from datacube.index import index_connect
            from datacube.index.exceptions import IndexSetupError, NoIndexError
            from sqlalchemy.exc import SQLAlchemyError
        except ImportError as exc:
            raise ConfigError(
                f"reading a datacube index needs the datacube package: {exc}",
                "pip install 'odc-stats-gpu[datacube]', or use --eo3 with a folder",
            ) from None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about a configuration file that need not be there
                return index_connect(ODCConfig()[self._env], application_name="odc-stats-gpu")
        except (
            ConfigException, IndexSetupError, NoIndexError, SQLAlchemyError, ValueError, OSError
        ) as exc:  # fmt: skip
            raise ConfigError(
                f"can't connect to {self._where}: {_one_line(exc)}",
                "check --env, the datacube configuration and that the server runs",
            ) from None

    @property
    def _where(self) -> str:
        return (
            f"the datacube index (environment {self._env!r})" if self._env else "the datacube index"
        )

    @cached_property
    def _kinds(self) -> dict[str, Any]:
        """The index's own product objects, by name."""
        with _answering(self._where):
            known = {product.name: product for product in self._index.products.get_all()}
        names = split_products(self._expression, list(known))
        if not names:
            raise ConfigError("no input products given", "name one or more products, joined by -")
        for name in names:
            if name not in known:
                raise missing_product(name, self._where, list(known))
        return {name: known[name] for name in names}

    def products(self) -> Mapping[str, Product]:
        """Definitions of the products asked for; raises ConfigError when the index lacks one."""
        return {name: Product.from_doc(dict(p.definition)) for name, p in self._kinds.items()}

    def metadata_types(self) -> Mapping[str, Mapping[str, Any]]:
        """Metadata types of these products."""
        types = (p.metadata_type for p in self._kinds.values())
        return {t.name: dict(t.definition) for t in types}

    def query(self) -> Mapping[str, Any]:
        """Products and filter terms."""
        return {"product": list(self._kinds), **self._terms}

    def datasets(self, span: Span | None, area: Geometry | None) -> Iterator[Scene]:
        """Scenes by quarter of a year, then product, then id; one query in memory at a time."""
        keep = TermFilter(self._terms, self.metadata_types().values())
        box = _lonlat_terms(area)
        bounds = {name: self._bounds(name, span) for name in self._kinds}
        seen = 0
        for first, after in _chunks([b for b in bounds.values() if b is not None]):
            for name, product in self._kinds.items():
                limits = bounds[name]
                if limits is None or after <= limits[0] or first > limits[1]:
                    continue
                chunk = (max(first, span[0]), min(after, span[1])) if span else (first, after)
                terms = {**self._pushed(product), **box}
                for scene in self._search(name, chunk, terms):
                    seen += 1
                    if keep(scene):
                        yield scene
        keep.finish(seen)

    def _bounds(self, name: str, span: Span | None) -> Span | None:
        """First and last time of a product within the span; None when it has no dataset there."""
        with _answering(self._where):
            first, last = self._index.products.temporal_extent(name)
        if first is None or last is None:
            return None
        first, last = (t.astimezone(UTC).replace(tzinfo=None) for t in (first, last))
        if span is not None:
            first, last = max(first, span[0]), min(last, span[1])
        return (first, last) if first <= last else None

    def _search(self, name: str, chunk: Span, terms: Mapping[str, Any]) -> Iterator[Scene]:
        from datacube.model import Range

        time = Range(*(t.replace(tzinfo=UTC) for t in chunk))
        with _answering(self._where):
            found = self._index.datasets.search(
                product=name, time=time, order_by=["id"], **_ranges(terms)
            )
            for dataset in found:
                scene = _scene(dataset)
                # A scene that spans the chunk's edge is found twice; its centre lies in one.
                if chunk[0] <= scene.dataset.time < chunk[1]:
                    yield scene

    def _pushed(self, product: Any) -> dict[str, Any]:
        """Filter terms that the database can apply with the same meaning as `TermFilter`."""
        fields = product.metadata_type.dataset_fields
        out = {}
        for key, value in self._terms.items():
            kind = getattr(fields.get(key), "type_name", None)
            pair = isinstance(value, (list, tuple)) and len(value) == 2
            text = kind == "string" and isinstance(value, str)
            number = kind in _NUMBERS and all(
                isinstance(v, (int, float)) for v in (value if pair else [value])
            )
            if number and pair:
                # Drivers differ in whether the upper end belongs to a range: here it does.
                out[key] = (value[0], math.nextafter(value[1], math.inf))
            elif text or number:
                out[key] = value
        return out

    def close(self) -> None:
        """Close the connections to the index, if any."""
        if "_index" in self.__dict__:
            self._index.close()


def _scene(found: Any) -> Scene:
    """Our reading of a dataset of the index."""
    doc = dict(found.metadata_doc)
    uri = found.uri
    if not uri:
        raise DataError(
            f"dataset {found.id} of {found.product.name} has no location in the index",
            "add one with `datacube dataset` or archive the dataset",
        )
    doc["id"] = str(found.id)
    doc["product"] = {**(doc.get("product") or {}), "name": found.product.name}
    return Scene(Dataset.from_doc(doc, uri), doc)


def _chunks(bounds: Sequence[Span]) -> Iterator[Span]:
    """Quarters of calendar years from the first time to the last, half open."""
    if not bounds:
        return
    first, last = min(b[0] for b in bounds), max(b[1] for b in bounds)
    start = datetime(first.year, 1, 1)
    while start <= last:
        after = add_months(start, _CHUNK_MONTHS)
        if after > first:
            yield start, after
        start = after


def _lonlat_terms(area: Geometry | None) -> dict[str, Any]:
    """The area as ranges of lat and lon; none where it crosses the antimeridian."""
    if area is None:
        return {}
    west, south, east, north = lonlat_box(area.geom, str(area.crs))
    terms = {"lat": (south, north)}
    return terms if east > 180 else {**terms, "lon": (west, east)}


def _ranges(terms: Mapping[str, Any]) -> dict[str, Any]:
    """Pairs as the index's own range type."""
    from datacube.model import Range

    return {k: Range(*v) if isinstance(v, (list, tuple)) else v for k, v in terms.items()}


@contextmanager
def _answering(where: str) -> Iterator[None]:
    """Errors of the database become one line."""
    from datacube.index.exceptions import QueryTimeout
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, QueryTimeout) as exc:
        raise DataError(
            f"{where} doesn't answer: {_one_line(exc)}", "check the server and try again"
        ) from None


def _one_line(exc: BaseException) -> str:
    """The start of an error without line breaks and passwords."""
    text = " ".join(str(exc).split())
    text = re.sub(r"^\(\w+(\.\w+)+\) ", "", text)  # the class of what the driver raised
    text = text.partition("(Background on this error")[0].partition(" [SQL:")[0]
    return re.sub(r"(://[^:/@\s]+):[^@\s]*@", r"\1:***@", text).strip()[:300] or type(exc).__name__
