"""A small archive of EO3 documents, written by hand so that each test says what matters in it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from uuid import UUID

import pytest


@dataclass
class Archive:
    """Writes product definitions and scenes below a folder."""

    root: Path
    count: int = field(default=0)

    def product(self, name="ga_ls8c_ard_3", **extra):
        """A definition beside the scenes. JSON is YAML."""
        doc = {
            "name": name,
            "description": "made up",
            "metadata_type": "eo3",
            "license": "CC-BY-4.0",
            "metadata": {"product": {"name": name}},
            "measurements": [
                {
                    "name": "nbart_blue",
                    "dtype": "int16",
                    "nodata": -999,
                    "units": "1",
                    "aliases": ["band02", "blue"],
                },
                {
                    "name": "oa_fmask",
                    "dtype": "uint8",
                    "nodata": 0,
                    "units": "1",
                    "flags_definition": {
                        "fmask": {"bits": [0, 1, 2], "values": {"0": "nodata", "1": "clear"}}
                    },
                },
            ],
            **extra,
        }
        (self.root / f"{name}.odc-product.yaml").write_text(json.dumps(doc))
        return doc

    def scene(
        self,
        time,
        *,
        crs="epsg:32755",
        x=600_000.0,
        y=6_100_000.0,
        size=1000,
        pixel=30.0,
        product="ga_ls8c_ard_3",
        number=None,
        geometry=None,
        **properties,
    ):
        """One document; (x, y) is the upper left corner. Returns its id."""
        self.count += 1
        uuid = UUID(int=number or self.count)
        when = time if isinstance(time, datetime) else datetime.fromisoformat(time)
        grid = {"shape": [size, size], "transform": [pixel, 0, x, 0, -pixel, y, 0, 0, 1]}
        doc = {
            "$schema": "https://schemas.opendatacube.org/dataset",
            "id": str(uuid),
            "label": f"{product}_{self.count}",
            "product": {"name": product},
            "crs": crs,
            "grids": {"default": grid},
            "properties": {
                "datetime": when.isoformat() + "Z",
                "odc:processing_datetime": when.isoformat() + "Z",
                "odc:file_format": "GeoTIFF",
                **{k.replace("__", ":"): v for k, v in properties.items()},
            },
            "measurements": {"nbart_blue": {"path": "blue.tif"}, "oa_fmask": {"path": "fmask.tif"}},
            "lineage": {"level1": [str(UUID(int=900_000 + self.count))]},
        }
        if geometry is not None:
            doc["geometry"] = geometry
        folder = self.root / f"{when:%Y/%m}" / str(self.count)
        folder.mkdir(parents=True)
        (folder / "scene.odc-metadata.yaml").write_text(json.dumps(doc, indent=1))
        return uuid


@pytest.fixture(scope="session")
def make_archive():
    """An empty archive in a folder that is made."""

    def make(root):
        root.mkdir()
        return Archive(root)

    return make


@pytest.fixture
def archive(tmp_path, make_archive):
    return make_archive(tmp_path / "archive")
