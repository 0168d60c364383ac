"""A year of Sentinel-2 over a large tile: documents alone, no pixel is written."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

import pytest
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import Transformer

from odc_stats_gpu.ingest import plan_tile
from odc_stats_gpu.model import Dataset, OutputProduct, Product, Task, TimeRange
from odc_stats_gpu.plugins import load_plugin

TEN = ("B02", "B03", "B04", "B08")
TWENTY = ("B05", "B06", "B07", "B8A", "B11", "B12")
SCL = ["no data", "saturated or defective", "dark area pixels", "cloud shadows", "vegetation",
       "bare soils", "water", "unclassified", "cloud medium probability",
       "cloud high probability", "thin cirrus", "snow or ice"]  # fmt: skip
GRANULE = 10980


def sentinel():
    flags = {"bits": list(range(8)), "values": {str(k): v for k, v in enumerate(SCL)}}
    bands = [{"name": b, "dtype": "uint16", "nodata": 0, "units": "1"} for b in TEN + TWENTY]
    scl = {"name": "SCL", "dtype": "uint8", "nodata": 0, "units": "1",
           "flags_definition": {"qa": flags}}  # fmt: skip
    return Product.from_doc({"name": "s2", "metadata_type": "eo3", "measurements": [*bands, scl]})


def granule(number, time, west, north):
    """A document as of an archive that isn't here; 10 m and 20 m grids."""
    transform = [10, 0, west, 0, -10, north]
    coarse = [20, 0, west, 0, -20, north]
    where = "s3://nowhere/%s.tif"
    return Dataset.from_doc(
        {
            "id": str(UUID(int=number)),
            "product": {"name": "s2"},
            "crs": "epsg:32755",
            "grids": {
                "default": {"shape": [GRANULE, GRANULE], "transform": transform},
                "g20": {"shape": [GRANULE // 2, GRANULE // 2], "transform": coarse},
            },
            "properties": {"datetime": time.isoformat()},
            "measurements": {b: {"path": where % b} for b in TEN}
            | {b: {"path": where % b, "grid": "g20"} for b in (*TWENTY, "SCL")},
        },
        "s3://nowhere/doc.odc-metadata.yaml",
    )


@pytest.fixture(scope="session")
def large_tile():
    """Task and plugin of 9600x9600 pixels, 10 bands, 150 dates of four granules each."""
    east, north = 600_000, 6_100_000
    x, y = Transformer.from_crs("EPSG:32755", "EPSG:3577", always_xy=True).transform(east, north)
    x, y = (round(v / 10) * 10 for v in (x, y))
    box = GeoBox((9600, 9600), Affine(10, 0, x - 48_000, 0, -10, y + 48_000), "EPSG:3577")
    datasets, start = [], datetime(2020, 1, 1)
    for date in range(150):
        time = start + timedelta(days=2 * date)
        for part, (dx, dy) in enumerate(((-100_000, 100_000), (0, 100_000), (-100_000, 0), (0, 0))):
            time_of_part = time + timedelta(seconds=part)
            number = 4 * date + part + 1
            datasets.append(granule(number, time_of_part, east + dx - 4900, north + dy + 4900))
    product = sentinel()
    plugin = load_plugin("gm-s2", {"resampling": "bilinear"}, products={"s2": product})
    task = Task(
        product=OutputProduct(name="out"), tile=(0, 0), geobox=box,
        period=TimeRange.parse("2020--P1Y"), datasets=tuple(datasets), products={"s2": product},
        utc_offset=timedelta(hours=10),
    )  # fmt: skip
    return task, plugin


@pytest.fixture(scope="session")
def large_plan(large_tile):
    return plan_tile(*large_tile, threads=8)
