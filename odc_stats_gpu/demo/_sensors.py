"""The two made-up collections: bands, masks and their product definitions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from odc_stats_gpu.demo._spectra import BANDS

Kind = Literal["landsat", "sentinel2"]

FMASK = {0: "nodata", 1: "valid", 2: "cloud", 3: "shadow", 4: "snow", 5: "water"}
SCL = {
    0: "no data",
    1: "saturated or defective",
    2: "dark area pixels",
    3: "cloud shadows",
    4: "vegetation",
    5: "bare soils",
    6: "water",
    7: "unclassified",
    8: "cloud medium probability",
    9: "cloud high probability",
    10: "thin cirrus",
    11: "snow or ice",
}


@dataclass(frozen=True, slots=True)
class Band:
    """A reflectance band."""

    name: str
    column: int
    """Column of the table of spectra."""
    step: int
    """Native pixel size in finest pixels: 1 or 2."""
    aliases: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Sensor:
    """A collection as its product definition describes it."""

    product: str
    title: str
    platform: str
    instrument: str
    res: int
    """Finest pixel size, metres."""
    dtype: str
    nodata: int
    bands: tuple[Band, ...]
    mask: str
    mask_alias: str
    mask_step: int
    mask_group: str
    classes: Mapping[int, str]
    contiguity: str | None

    def definition(self, bands: Sequence[Band]) -> dict[str, Any]:
        """Product definition document with some or all of the bands, metadata type eo3."""
        measurements: list[dict[str, Any]] = [
            {
                "name": b.name,
                "aliases": list(b.aliases),
                "dtype": self.dtype,
                "nodata": self.nodata,
                "units": "1",
            }
            for b in bands
        ]
        measurements.append(
            {
                "name": self.mask,
                "aliases": [self.mask_alias],
                "dtype": "uint8",
                "nodata": 0,
                "units": "1",
                "flags_definition": {
                    self.mask_group: {
                        "bits": list(range(8)),
                        "values": {str(k): v for k, v in self.classes.items()},
                        "description": "Class of the pixel",
                    }
                },
            }
        )
        if self.contiguity:
            measurements.append(
                {
                    "name": self.contiguity,
                    "aliases": [self.contiguity.removeprefix("oa_")],
                    "dtype": "uint8",
                    "nodata": 255,
                    "units": "1",
                    "flags_definition": {
                        "contiguous": {
                            "bits": [0],
                            "values": {"0": False, "1": True},
                            "description": "Every band has a value",
                        }
                    },
                }
            )
        return {
            "name": self.product,
            "description": f"{self.title}, synthetic",
            "license": "CC0-1.0",
            "metadata_type": "eo3",
            "metadata": {"product": {"name": self.product}},
            "measurements": measurements,
        }


def _column(name: str) -> int:
    return BANDS.index(name)


LANDSAT = Sensor(
    product="ga_ls8c_ard_3",
    title="Landsat 8 analysis-ready surface reflectance",
    platform="landsat-8",
    instrument="OLI_TIRS",
    res=30,
    dtype="int16",
    nodata=-999,
    bands=(
        Band("nbart_blue", _column("blue"), 1, ("nbart_band02", "blue")),
        Band("nbart_green", _column("green"), 1, ("nbart_band03", "green")),
        Band("nbart_red", _column("red"), 1, ("nbart_band04", "red")),
        Band("nbart_nir", _column("nir_narrow"), 1, ("nbart_band05", "nir")),
        Band(
            "nbart_swir_1",
            _column("swir_1"),
            1,
            ("nbart_band06", "swir_1", "swir1", "nbart_swir1"),
        ),
        Band(
            "nbart_swir_2",
            _column("swir_2"),
            1,
            ("nbart_band07", "swir_2", "swir2", "nbart_swir2"),
        ),
    ),
    mask="oa_fmask",
    mask_alias="fmask",
    mask_step=1,
    mask_group="fmask",
    classes=FMASK,
    contiguity="oa_nbart_contiguity",
)

SENTINEL2 = Sensor(
    product="s2_l2a",
    title="Sentinel-2 level 2A surface reflectance",
    platform="sentinel-2a",
    instrument="MSI",
    res=10,
    dtype="uint16",
    nodata=0,
    bands=(
        Band("B02", _column("blue"), 1, ("band_02", "blue")),
        Band("B03", _column("green"), 1, ("band_03", "green")),
        Band("B04", _column("red"), 1, ("band_04", "red")),
        Band("B05", _column("red_edge_1"), 2, ("band_05", "red_edge_1")),
        Band("B06", _column("red_edge_2"), 2, ("band_06", "red_edge_2")),
        Band("B07", _column("red_edge_3"), 2, ("band_07", "red_edge_3")),
        Band("B08", _column("nir"), 1, ("band_08", "nir", "nir_1")),
        Band("B8A", _column("nir_narrow"), 2, ("band_8a", "nir_narrow", "nir_2")),
        Band("B11", _column("swir_1"), 2, ("band_11", "swir_1", "swir_16", "swir1")),
        Band("B12", _column("swir_2"), 2, ("band_12", "swir_2", "swir_22", "swir2")),
    ),
    mask="SCL",
    mask_alias="scl",
    mask_step=2,
    mask_group="qa",
    classes=SCL,
    contiguity=None,
)

SENSORS: Mapping[str, Sensor] = {"landsat": LANDSAT, "sentinel2": SENTINEL2}
