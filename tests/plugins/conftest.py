"""Product definitions as agencies publish them, and scenes small enough to check by eye."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from scipy.ndimage import distance_transform_edt

from odc_stats_gpu.model import Product

FMASK = {0: "nodata", 1: "valid", 2: "cloud", 3: "shadow", 4: "snow", 5: "water"}
SCL = [
    "no data",
    "saturated or defective",
    "dark area pixels",
    "cloud shadows",
    "vegetation",
    "bare soils",
    "water",
    "unclassified",
    "cloud medium probability",
    "cloud high probability",
    "thin cirrus",
    "snow or ice",
]


def enum(name, values, bits=8):
    return {
        name: {
            "bits": list(range(bits)),
            "description": name,
            "values": {str(k): v for k, v in values.items()},
        }
    }


def product(name, bands):
    """Bands as (name, aliases, dtype, nodata, flags)."""
    return Product.from_doc(
        {
            "name": name,
            "metadata_type": "eo3",
            "measurements": [
                {
                    "name": n,
                    "aliases": list(aliases),
                    "dtype": dtype,
                    "nodata": nodata,
                    "units": "1",
                    **({"flags_definition": flags} if flags else {}),
                }
                for n, aliases, dtype, nodata, flags in bands
            ],
        }
    )


def landsat(name="ga_ls8c_ard_3", contiguity=True, nodata=-999, dtype="int16"):
    bands = [
        (f"nbart_{b}", aliases, dtype, nodata, None)
        for b, aliases in {
            "blue": ["blue"],
            "green": ["green"],
            "red": ["red"],
            "nir": ["nir"],
            "swir_1": ["swir1"],
            "swir_2": ["swir2"],
        }.items()
    ]
    bands.append(("oa_fmask", ["fmask"], "uint8", 0, enum("fmask", FMASK)))
    if contiguity:
        flags = {"contiguous": {"bits": [0], "values": {"0": False, "1": True}}}
        bands.append(
            ("oa_nbart_contiguity", ["nbart_contiguity", "contiguity"], "uint8", 255, flags)
        )
    return product(name, bands)


def sentinel(name="s2_l2a"):
    bands = [
        (b, [], "uint16", 0, None)
        for b in ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
    ]
    bands.append(("SCL", ["qa", "scl"], "uint8", 0, enum("qa", dict(enumerate(SCL)))))
    return product(name, bands)


def sentinel_ard(name="ga_s2am_ard_3"):
    names = (
        "coastal_aerosol blue green red red_edge_1 red_edge_2 red_edge_3 nir_1 nir_2 swir_2 swir_3"
    )
    bands = [(f"nbart_{b}", [], "int16", -999, None) for b in names.split()]
    cloudless = enum("oa_s2cloudless_mask", {0: "nodata", 1: "valid", 2: "cloud"})
    bands.append(("oa_s2cloudless_mask", ["s2cloudless"], "uint8", 0, cloudless))
    bands.append(("oa_fmask", ["fmask"], "uint8", 0, enum("fmask", FMASK)))
    return product(name, bands)


def usgs(name="ls8_sr"):
    flags = {
        "nodata": {"bits": 0, "values": {0: False, 1: True}},
        "cirrus": {"bits": 2, "values": {0: "not_high_confidence", 1: "high_confidence"}},
        "cloud": {"bits": 3, "values": {0: "not_high_confidence", 1: "high_confidence"}},
        "cloud_confidence": {
            "bits": [8, 9],
            "values": {0: "none", 1: "low", 2: "medium", 3: "high"},
        },
    }
    bands = [
        ("SR_B4", ["red"], "uint16", 0, None),
        ("SR_B5", ["nir"], "uint16", 0, None),
        ("QA_PIXEL", ["pq"], "uint16", 1, flags),
    ]
    return product(name, bands)


def scene_of(product, arrays):
    """A dataset as ingest gives it: dims (y, x), nodata in the attrs, names as configured."""
    return xr.Dataset(
        {
            name: (
                ("y", "x"),
                np.asarray(values, dtype=product.find(name).dtype),
                {"nodata": product.find(name).nodata},
            )
            for name, values in arrays.items()
        }
    )


def stack_of(planes, arrays):
    """A stack as ingest gives it: variables are views of one (band, time, y, x) allocation."""
    base = np.stack([np.asarray(arrays[p.name], dtype=p.dtype) for p in planes])
    return xr.Dataset(
        {p.name: (("time", "y", "x"), base[i], {"nodata": p.nodata}) for i, p in enumerate(planes)},
        coords={"time": np.arange(base.shape[1])},
    )


def disk(mask, operations):
    """Morphology by Euclidean disks with an exact distance transform; outside is not set."""
    pad = 2 * sum(r for _, r in operations) + 1
    out = np.pad(np.asarray(mask, dtype=bool), pad)

    def dilate(m, r):
        return distance_transform_edt(~m) <= r if m.any() else m

    def erode(m, r):
        return distance_transform_edt(m) > r

    steps = {
        "dilation": (dilate,),
        "erosion": (erode,),
        "opening": (erode, dilate),
        "closing": (dilate, erode),
    }
    for name, radius in operations:
        for step in steps[name]:
            out = step(out, radius)
    return out[pad:-pad, pad:-pad]


@pytest.fixture
def make():
    """The functions above, for tests that can't import their neighbours."""

    class Make:
        pass

    for function in (
        landsat,
        sentinel,
        sentinel_ard,
        usgs,
        product,
        enum,
        scene_of,
        stack_of,
        disk,
    ):
        setattr(Make, function.__name__, staticmethod(function))
    return Make
