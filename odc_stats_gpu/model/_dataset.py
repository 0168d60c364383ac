"""What a worker knows of a scene: our own small reading of an EO3 document. No datacube here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urljoin, urlparse
from uuid import UUID

from affine import Affine

from odc_stats_gpu.errors import DataError


@dataclass(frozen=True, slots=True)
class Measurement:
    """One band of a product definition."""

    name: str
    """Canonical name."""
    dtype: str
    """NumPy name of the pixel type."""
    nodata: float | int | None
    """Value of a missing pixel; None when every value counts."""
    units: str = "1"
    aliases: tuple[str, ...] = ()
    flags: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """The `flags_definition` block: names of the classes and bits of a mask band."""


@dataclass(frozen=True, slots=True)
class Product:
    """A product definition: its bands and what they are also called."""

    name: str
    measurements: tuple[Measurement, ...]
    definition: Mapping[str, Any] = field(repr=False, hash=False, compare=False)
    """The whole document, kept so that it can be stored again."""

    @classmethod
    def from_doc(cls, doc: Mapping[str, Any]) -> Product:
        """Read a product definition document; raises DataError naming the missing key."""
        try:
            bands = tuple(
                Measurement(
                    name=m["name"],
                    dtype=str(m["dtype"]),
                    nodata=_number(m.get("nodata")),
                    units=str(m.get("units", "1")),
                    aliases=tuple(m.get("aliases") or ()),
                    flags=m.get("flags_definition") or {},
                )
                for m in doc["measurements"]
            )
            return cls(str(doc["name"]), bands, doc)
        except (KeyError, TypeError) as exc:
            raise DataError(
                f"product definition {doc.get('name', '?')!r} lacks {exc}",
                "it needs name, metadata_type and measurements with name and dtype",
            ) from None

    def find(self, name: str) -> Measurement | None:
        """The band of that canonical name or alias, or None."""
        for m in self.measurements:
            if m.name == name:
                return m
        return next((m for m in self.measurements if name in m.aliases), None)


@dataclass(frozen=True, slots=True)
class Grid:
    """Pixel grid of a file: shape (rows, columns) and pixel-to-CRS transform."""

    shape: tuple[int, int]
    transform: Affine


@dataclass(frozen=True, slots=True)
class BandFile:
    """Where one band of one scene lies."""

    uri: str
    """Absolute: file://, s3:// or https://."""
    grid: str
    """Key into `Dataset.grids`."""
    layer: int = 1
    """Band number inside the file, from 1."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """One scene of one product."""

    id: UUID
    product: str
    time: datetime
    """Centre time, naive UTC."""
    crs: str
    """As the document writes it, e.g. epsg:32655."""
    grids: Mapping[str, Grid] = field(hash=False)
    measurements: Mapping[str, BandFile] = field(hash=False)
    properties: Mapping[str, Any] = field(hash=False, repr=False)
    uri: str = ""
    label: str = ""
    geometry: Mapping[str, Any] | None = field(default=None, hash=False, repr=False)
    """Valid-data footprint as GeoJSON in `crs`, when the document has one."""
    sources: tuple[UUID, ...] = ()
    """Datasets this one was made from."""

    @property
    def region_code(self) -> str:
        """Path/row or MGRS tile."""
        return str(self.properties.get("odc:region_code", ""))

    @classmethod
    def from_doc(cls, doc: Mapping[str, Any], uri: str) -> Dataset:
        """Read an EO3 document found at `uri`; raises DataError naming file and key."""
        try:
            return _parse(doc, uri)
        except (KeyError, TypeError, ValueError, AttributeError) as exc:
            what = f"lacks {exc}" if isinstance(exc, KeyError) else f"is malformed: {exc}"
            raise DataError(
                f"dataset document {uri} {what}",
                "EO3 needs id, product.name, crs, grids, properties.datetime and measurements",
            ) from None


def _parse(doc: Mapping[str, Any], uri: str) -> Dataset:
    props = doc["properties"]
    grids = {
        name: Grid(
            (int(g["shape"][0]), int(g["shape"][1])),
            Affine(*[float(v) for v in g["transform"][:6]]),
        )
        for name, g in doc["grids"].items()
    }
    measurements = {}
    for name, m in doc["measurements"].items():
        grid = m.get("grid", "default")
        if grid not in grids:
            raise ValueError(
                f"measurement {name!r} names the grid {grid!r}, known: {sorted(grids)}"
            )
        measurements[name] = BandFile(resolve(uri, m["path"]), grid, int(m.get("layer", 1) or 1))
    return Dataset(
        id=UUID(str(doc["id"])),
        product=doc["product"]["name"],
        time=_center(props),
        crs=str(doc["crs"]),
        grids=grids,
        measurements=measurements,
        properties=props,
        uri=uri,
        label=str(doc.get("label") or ""),
        geometry=doc.get("geometry"),
        sources=tuple(_lineage(doc.get("lineage") or {})),
    )


def resolve(base: str, path: str) -> str:
    """Absolute address of `path` as written in the document at `base` (URL or local path)."""
    if urlparse(path).scheme in ("file", "s3", "http", "https"):
        return path
    if path.startswith("/"):
        return "file://" + path
    if (
        "://" not in path and ":" in path.split("/", 1)[0]
    ):  # a file name, though it looks like a scheme
        path = "./" + path
    parsed = urlparse(base)
    if parsed.scheme in ("http", "https", "file"):
        return urljoin(base, path)
    if parsed.scheme:  # s3 and friends: urljoin knows no such scheme
        return f"{parsed.scheme}://{parsed.netloc}" + urljoin(parsed.path, path)
    return "file://" + urljoin(base, path)


def _center(props: Mapping[str, Any]) -> datetime:
    """Middle of dtr:start/end when both are there (as datacube does), else `datetime`."""
    start, end = props.get("dtr:start_datetime"), props.get("dtr:end_datetime")
    if start and end:
        first, last = as_utc(start), as_utc(end)
        return first + (last - first) / 2
    return as_utc(props["datetime"])


def as_utc(value: Any) -> datetime:
    """ISO text or datetime as a naive UTC datetime."""
    when = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    return when if when.tzinfo is None else when.astimezone(UTC).replace(tzinfo=None)


def _lineage(lineage: Mapping[str, Any]) -> list[UUID]:
    """Ids of the sources, from the flat EO3 form or the nested one."""
    nested = lineage.get("source_datasets")
    if isinstance(nested, Mapping):
        lineage = {
            k: [v["id"]] if isinstance(v, Mapping) and "id" in v else v for k, v in nested.items()
        }
    out = []
    for ids in lineage.values():
        out += [UUID(str(i)) for i in (ids if isinstance(ids, (list, tuple)) else [ids])]
    return out


def _number(value: Any) -> float | int | None:
    """Nodata as YAML or JSON writes it: a number, NaN in any spelling, or nothing."""
    if value is None or isinstance(value, (int, float)):
        return value
    return float(value)
