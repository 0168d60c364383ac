"""Scenes from a folder of EO3 documents: `*.odc-metadata.yaml` at any depth, no database."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from odc.geo.geom import Geometry

from odc_stats_gpu.errors import ConfigError, DataError
from odc_stats_gpu.model import Dataset, Product
from odc_stats_gpu.tasks._eo3_index import index_doc
from odc_stats_gpu.tasks._metadata_type import eo3_metadata_type
from odc_stats_gpu.tasks._source import Scene, Span, missing_product, split_products
from odc_stats_gpu.tasks._termfilter import TermFilter, parse_dataset_filter
from odc_stats_gpu.tasks._yaml import documents

SUFFIX = ".odc-metadata.yaml"


class Eo3Source:
    """Every EO3 document below a folder.

    Product definitions are the YAML documents with name, metadata_type and measurements in the
    files directly in `folder` and in `product_definitions`. `products` is a union `a-b`; empty
    means every product found. `dataset_filter` is JSON text or a mapping.
    """

    def __init__(
        self,
        folder: str | Path,
        product_definitions: Sequence[str | Path] = (),
        products: str | Sequence[str] = "",
        dataset_filter: str | Mapping[str, Any] | None = None,
    ) -> None:
        if "://" in str(folder).removeprefix("file://"):
            raise ConfigError(
                f"--eo3 takes a folder of this machine, not {folder}",
                "copy the documents; in them paths of measurements may be s3:// or https://",
            )
        self.folder = Path(str(folder).removeprefix("file://")).absolute()
        if not self.folder.is_dir():
            raise ConfigError(f"no such folder: {folder}", "give the archive's top folder to --eo3")
        self._files = [Path(f) for f in product_definitions]
        self._expression = products
        self._terms = parse_dataset_filter(dataset_filter)
        self._unreadable: list[str] = []

    @cached_property
    def _definitions(self) -> tuple[dict[str, Product], dict[str, Mapping[str, Any]]]:
        """All definitions found: products and metadata types."""
        products: dict[str, Product] = {}
        types: dict[str, Mapping[str, Any]] = {}
        for path, doc in self._definition_docs():
            if "measurements" in doc:
                try:
                    product = Product.from_doc(doc)
                except DataError as exc:
                    raise ConfigError(f"{path}: {exc.message}", exc.remedy) from None
                if product.name in products and products[product.name].definition != doc:
                    raise ConfigError(
                        f"{path} defines the product {product.name!r} in another way",
                        "keep one of the definitions",
                    )
                products[product.name] = product
            else:
                types[str(doc["name"])] = doc
        return products, types

    def _definition_docs(self) -> Iterator[tuple[Path, Mapping[str, Any]]]:
        beside = sorted(
            p for p in self.folder.iterdir()
            if p.suffix in (".yaml", ".yml") and not p.name.endswith(SUFFIX) and p.is_file()
        )  # fmt: skip
        for path in self._files:
            found = [d for d in documents(path) if _is_product(d) or _is_metadata_type(d)]
            if not any(_is_product(d) for d in found):
                raise ConfigError(
                    f"{path} has no product definition",
                    "it needs name, metadata_type and measurements",
                )
            yield from ((path, doc) for doc in found)
        for path in beside:
            try:
                docs = documents(path)
            except DataError as exc:  # perhaps no definition at all: told when one is missing
                self._unreadable.append(exc.message)
                continue
            yield from ((path, doc) for doc in docs if _is_product(doc) or _is_metadata_type(doc))

    @property
    def _where(self) -> str:
        places = [f"{self.folder}/*.yaml", *(str(p) for p in self._files), *self._unreadable]
        return ", ".join(places)

    def products(self) -> Mapping[str, Product]:
        """Those asked for, or all; raises ConfigError when one has no definition."""
        known, _ = self._definitions
        names = split_products(self._expression, list(known)) or list(known)
        for name in names:
            if name not in known:
                raise missing_product(name, self._where, list(known))
        if not names:
            raise ConfigError(
                f"missing product definition: none in {self._where}",
                "put one there or give --product-definition FILE",
            )
        return {name: known[name] for name in names}

    def metadata_types(self) -> Mapping[str, Mapping[str, Any]]:
        """Found beside the product definitions, else the standard EO3 one under that name."""
        _, found = self._definitions
        out: dict[str, Mapping[str, Any]] = {}
        for product in self.products().values():
            kind = product.definition["metadata_type"]
            name = str(kind["name"] if isinstance(kind, Mapping) else kind)
            inline = kind if isinstance(kind, Mapping) else None
            out[name] = inline or found.get(name) or eo3_metadata_type(name)
        return out

    def query(self) -> Mapping[str, Any]:
        """Products and filter terms."""
        return {"product": list(self.products()), **self._terms}

    def datasets(self, span: Span | None, area: Geometry | None) -> Iterator[Scene]:  # noqa: ARG002 - binning prunes
        """Scenes in order of their paths; raises DataError naming a document that can't be read.

        A document that can't be read stops the stream: leaving it out would make the composites
        thinner without anyone knowing.
        """
        wanted = self.products()
        keep = TermFilter(self._terms, self.metadata_types().values())
        seen = 0
        for path in _walk(self.folder):
            doc = _dataset_document(path)
            name = doc["product"]["name"]
            if name not in wanted:
                if self._expression or name in self._definitions[0]:
                    continue
                raise missing_product(
                    str(name), f"{self._where} (needed by {path})", list(self._definitions[0])
                )
            dataset = Dataset.from_doc(doc, path.as_uri())
            if span is not None and not span[0] <= dataset.time < span[1]:
                continue
            scene = Scene(dataset, index_doc(doc, dataset))
            seen += 1
            if keep(scene):
                yield scene
        keep.finish(seen)


def _walk(folder: Path, above: frozenset[tuple[int, int]] = frozenset()) -> Iterator[Path]:
    """Documents below a folder in a fixed order, one directory in memory at a time.

    Links are followed, unless they lead back to a folder `above`.
    """
    subfolders = []
    files = []
    try:
        stat = folder.stat()
        here = (stat.st_dev, stat.st_ino)
        if here in above:
            return
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.endswith(SUFFIX):
                    files.append(entry.path)
                elif entry.is_dir():
                    subfolders.append(entry.path)
    except OSError as exc:
        raise DataError(f"can't list {folder}: {exc.strerror}", "check its permissions") from None
    yield from (Path(p) for p in sorted(files))
    for sub in sorted(subfolders):
        yield from _walk(Path(sub), above | {here})


def _dataset_document(path: Path) -> dict[str, Any]:
    remedy = "correct or remove the document"
    docs = [d for d in documents(path) if d is not None]
    if len(docs) != 1 or not isinstance(docs[0], dict):
        raise DataError(f"{path} holds {len(docs)} YAML documents, one mapping is needed", remedy)
    product = docs[0].get("product")
    if not isinstance(product, Mapping) or not isinstance(product.get("name"), str):
        raise DataError(f"dataset document {path} lacks 'product.name'", remedy)
    return docs[0]


def _is_product(doc: Any) -> bool:
    return _has(doc, ("name", "metadata_type", "measurements"))


def _is_metadata_type(doc: Any) -> bool:
    return _has(doc, ("name", "dataset")) and "measurements" not in doc


def _has(doc: Any, keys: Iterable[str]) -> bool:
    return isinstance(doc, Mapping) and all(k in doc for k in keys)
