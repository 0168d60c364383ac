"""The EO3 metadata type: where search fields lie in a dataset document."""

from __future__ import annotations

from typing import Any


def eo3_metadata_type(name: str = "eo3") -> dict[str, Any]:
    """The document that datacube keeps for EO3 products, under the name the products use.

    Written where an archive brings none, because the incumbent can't open a product without one.
    """
    return {
        "name": name,
        "description": "Default EO3 with no custom fields",
        "dataset": {
            "id": ["id"],
            "sources": ["lineage", "source_datasets"],
            "creation_dt": ["properties", "odc:processing_datetime"],
            "label": ["label"],
            "measurements": ["measurements"],
            "grid_spatial": ["grid_spatial", "projection"],
            "format": ["properties", "odc:file_format"],
            "search_fields": {
                "platform": _field("eo:platform", "Platform code"),
                "instrument": _field("eo:instrument", "Instrument name"),
                "product_family": _field("odc:product_family", "Product family code"),
                "region_code": _field("odc:region_code", "Spatial reference code"),
                "dataset_maturity": _field("dea:dataset_maturity", "One of final|interim|nrt"),
                "cloud_cover": _field("eo:cloud_cover", "Cloud cover percentage", "double"),
                "crs_raw": {
                    "description": "The raw CRS string",
                    "indexed": False,
                    "offset": ["crs"],
                },
                "time": _range(
                    [["properties", "dtr:start_datetime"], ["properties", "datetime"]],
                    [["properties", "dtr:end_datetime"], ["properties", "datetime"]],
                    "Acquisition time range",
                    "datetime-range",
                ),
                "lon": _range(
                    [["extent", "lon", "begin"]], [["extent", "lon", "end"]], "Longitude range"
                ),
                "lat": _range(
                    [["extent", "lat", "begin"]], [["extent", "lat", "end"]], "Latitude range"
                ),
            },
        },
    }


def _field(prop: str, description: str, kind: str = "string") -> dict[str, Any]:
    return {
        "description": description,
        "offset": ["properties", prop],
        "type": kind,
        "indexed": False,
    }


def _range(
    low: list[list[str]], high: list[list[str]], description: str, kind: str = "double-range"
) -> dict[str, Any]:
    return {"description": description, "type": kind, "min_offset": low, "max_offset": high}
