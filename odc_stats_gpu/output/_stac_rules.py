"""Is a document a valid STAC item? Core schema and the extensions' rules, without a network."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

_PREFIX = "https://stac-extensions.github.io/"
_DATA_TYPES = frozenset(
    {"int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16",
     "float32", "float64", "cint16", "cint32", "cfloat32", "cfloat64", "other"}
)  # fmt: skip
_UNDEFINED = ("nan", "inf", "-inf")
_MULTIHASH = re.compile(r"1220[0-9a-f]{64}|1114[0-9a-f]{40}")
"""sha2-256 or sha1; the specification allows more, we and our peers write these."""
_CODE = re.compile(r"[A-Z][A-Za-z0-9_]*:[A-Za-z0-9_.-]+")


def stac_problems(doc: Any) -> Iterator[str]:
    """What is wrong with a document that claims to be a STAC item, one line each."""
    if not isinstance(doc, Mapping):
        yield "is no JSON object"
        return
    broken = False
    for line in _core_problems(doc):
        broken = True
        yield line
    if broken:
        return
    extensions = {
        u.removeprefix(_PREFIX).partition("/")[0] for u in doc.get("stac_extensions") or ()
    }
    properties = doc["properties"]
    if "projection" in extensions:
        yield from _projection(properties, doc["assets"])
    for key, asset in doc["assets"].items():
        if "file" in extensions:
            yield from _file(key, asset)
        if "raster" in extensions:
            yield from _raster(key, asset)
    if "processing" in extensions and not any(k.startswith("processing:") for k in properties):
        yield "declares the processing extension but has none of its fields"
    yield from _links(doc)


def known_versions() -> tuple[str, ...]:
    """Versions of STAC whose schema is on this machine."""
    return tuple(sorted({m[1] for u in _schemas() if (m := re.search(r"/v([\d.]+)/item-spec", u))}))


def _core_problems(doc: Mapping[str, Any]) -> Iterator[str]:
    validator = _validator(str(doc.get("stac_version", "")))
    if validator is None:
        for key in ("type", "id", "geometry", "properties", "links", "assets"):
            if key not in doc:
                yield f"lacks {key!r}"
        return
    for error in sorted(validator.iter_errors(doc), key=lambda e: e.json_path):
        yield f"{error.json_path}: {error.message[:200]}"


@lru_cache
def _schemas() -> Mapping[str, Any]:
    from pystac.validation.local_validator import get_local_schema_cache

    return dict(get_local_schema_cache())


@lru_cache
def _validator(version: str) -> Any:
    from jsonschema import Draft7Validator
    from referencing import Registry
    from referencing.jsonschema import DRAFT7

    schemas = _schemas()
    uri = f"https://schemas.stacspec.org/v{version}/item-spec/json-schema/item.json"
    if uri not in schemas:
        return None
    registry: Any = Registry()
    for name, schema in schemas.items():
        registry = registry.with_resource(name, DRAFT7.create_resource(schema))
    return Draft7Validator(schemas[uri], registry=registry)


def _projection(properties: Mapping[str, Any], assets: Mapping[str, Any]) -> Iterator[str]:
    found = False
    for where, fields in (("properties", properties), *assets.items()):
        if not any(k.startswith("proj:") for k in fields):
            continue
        found = True
        code = fields.get("proj:code", "")
        if code is not None and code != "" and not _CODE.fullmatch(str(code)):
            yield f"{where}: proj:code {code!r} is not AUTHORITY:CODE"
        shape = fields.get("proj:shape")
        if shape is not None and not (_numbers(shape, 2) and all(n > 0 for n in shape)):
            yield f"{where}: proj:shape {shape!r} is not [rows, columns]"
        transform = fields.get("proj:transform")
        if transform is not None and not (_numbers(transform, 6) or _numbers(transform, 9)):
            yield f"{where}: proj:transform {transform!r} has not 6 or 9 numbers"
    if not found:
        yield "declares the projection extension but has none of its fields"


def _file(key: str, asset: Mapping[str, Any]) -> Iterator[str]:
    checksum, size = asset.get("file:checksum"), asset.get("file:size")
    if checksum is not None and not _MULTIHASH.fullmatch(str(checksum)):
        yield f"asset {key!r}: file:checksum {checksum!r} is no multihash"
    if size is not None and (not isinstance(size, int) or size < 0):
        yield f"asset {key!r}: file:size {size!r} is no number of bytes"


def _raster(key: str, asset: Mapping[str, Any]) -> Iterator[str]:
    bands = asset.get("raster:bands")
    if bands is None:
        return
    if not isinstance(bands, list) or not bands:
        yield f"asset {key!r}: raster:bands is no list of bands"
        return
    for band in bands:
        if band.get("data_type", "other") not in _DATA_TYPES:
            yield f"asset {key!r}: data_type {band['data_type']!r} is unknown"
        nodata = band.get("nodata", 0)
        if not isinstance(nodata, (int, float)) and nodata not in _UNDEFINED:
            yield f"asset {key!r}: nodata {nodata!r} is neither a number nor one of {_UNDEFINED}"


def _links(doc: Mapping[str, Any]) -> Iterator[str]:
    relations = [link.get("rel") for link in doc["links"]]
    if doc.get("collection") and "collection" not in relations:
        yield "names a collection without a link to it"
    for name in ("datetime", "start_datetime", "end_datetime"):
        value = doc["properties"].get(name)
        if value is not None and not re.fullmatch(
            r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", str(value)
        ):
            yield f"{name} {value!r} is not an RFC 3339 instant"


def _numbers(value: Any, count: int) -> bool:
    return (
        isinstance(value, list)
        and len(value) == count
        and all(isinstance(v, (int, float)) for v in value)
    )
