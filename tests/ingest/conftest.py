"""A small archive on disk and a plain plugin, made per test."""

from __future__ import annotations

from datetime import datetime, timedelta
from types import SimpleNamespace
from uuid import UUID

import numpy as np
import pytest
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox

from odc_stats_gpu import kernels
from odc_stats_gpu.ingest import close_readers
from odc_stats_gpu.model import (
    Dataset,
    InputSpec,
    NativeBand,
    OutputProduct,
    Product,
    Task,
    TimeRange,
)

NODATA = -999
UTM = Affine(30, 0, 500000, 0, -30, 6_000_000)


class Plain:
    """Masks by class 2 of `mask`, cleans it, takes the first valid value."""

    name = short_name = version = product_family = "plain"
    rgb_bands = None
    rgb_clamp = (1.0, 3000.0)

    def __init__(self, bands=("red", "nir"), mask="mask", filters=(("dilation", 3),), **spec):
        self.bands, self.mask, self.filters = tuple(bands), mask, filters
        spec = {"margin": kernels.mask_margin(filters), **spec}
        self.spec = InputSpec(bands=(*bands, mask) if mask else tuple(bands), **spec)

    def inputs(self, product):
        return self.spec

    def native_bands(self, products):
        return tuple(NativeBand(b, "int16", NODATA) for b in self.bands)

    def output_bands(self, products):
        return ()

    def native_transform(self, scene, product):
        if not self.mask:
            return scene
        bad = kernels.clean_mask(kernels.decode_enum(scene[self.mask].data, [2]), self.filters)
        out = scene[list(self.bands)].copy()
        for band in self.bands:
            out[band].data = kernels.mask_where(scene[band].data, bad, NODATA)
        return out

    def native_fuse(self, scenes):
        return self._first(scenes)

    def fuse(self, scenes):
        return self._first(scenes)

    def _first(self, scenes):
        import xarray as xr

        return xr.Dataset(
            {
                name: (("y", "x"), kernels.first_valid(v.data, NODATA), {"nodata": NODATA})
                for name, v in scenes.data_vars.items()
            }
        )

    def reduce(self, stack):
        return stack


def definition(name="ard", **measurements):
    """A product definition; a measurement is (dtype, nodata) or a whole mapping."""
    bands = []
    for band, what in measurements.items():
        fields = what if isinstance(what, dict) else {"dtype": what[0], "nodata": what[1]}
        bands.append({"name": band, "units": "1", **fields})
    return Product.from_doc({"name": name, "metadata_type": "eo3", "measurements": bands})


ARD = definition(
    red={"dtype": "int16", "nodata": NODATA, "aliases": ["nbart_red"]},
    nir=("int16", NODATA),
    mask=("uint8", 0),
)


def smooth(shape, seed, low=200, high=4000):
    """Plausible reflectances: waves plus noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    waves = np.sin(x / 9 + seed) + np.cos(y / 7 - seed) + 0.3 * rng.standard_normal(shape)
    return (low + (high - low) * (waves + 3) / 6).astype("int16")


class Archive:
    """Writes scenes as GeoTIFFs and gives their `Dataset`s."""

    def __init__(self, folder):
        self.folder, self.count = folder, 0

    def write(self, name, pixels, transform, crs, **options):
        path = self.folder / f"{name}.tif"
        layers = pixels if pixels.ndim == 3 else pixels[None]
        profile = {
            "driver": "GTiff", "height": layers.shape[1], "width": layers.shape[2],
            "count": layers.shape[0], "dtype": layers.dtype, "crs": crs, "transform": transform,
            "tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate",
            "predictor": 2, **options,
        }  # fmt: skip
        with rasterio.open(path, "w", **profile) as dst:
            dst.write(layers)
        return path

    def scene(
        self, time, bands, *, crs="EPSG:32755", transform=UTM,
        transforms=None, product="ard", id_=None, geometry=None, doc_crs=None, **options,
    ):  # fmt: skip
        """Files of one scene; `transforms` gives bands a grid of their own."""
        self.count += 1
        transforms = transforms or {}
        grids, measurements = {}, {}
        for name, pixels in bands.items():
            own = transforms.get(name, transform)
            path = self.write(f"s{self.count:03d}_{name}", pixels, own, crs, **options)
            grid = "default" if name not in transforms else f"g_{name}"
            grids[grid] = {"shape": list(pixels.shape[-2:]), "transform": list(own)[:6]}
            measurements[name] = {"path": str(path), "grid": grid}
        doc = {
            "id": str(id_ or UUID(int=self.count)),
            "product": {"name": product},
            "crs": doc_crs or crs,
            "grids": grids,
            "properties": {"datetime": time},
            "measurements": measurements,
        }
        if geometry:
            doc["geometry"] = geometry
        return Dataset.from_doc(doc, str(self.folder / "doc.odc-metadata.yaml"))


def make_task(datasets, geobox, products=(ARD,), offset_hours=10):
    return Task(
        product=OutputProduct(name="out"),
        tile=(0, 0),
        geobox=geobox,
        period=TimeRange.parse("2020--P1Y"),
        datasets=tuple(datasets),
        products={p.name: p for p in products},
        utc_offset=timedelta(hours=offset_hours),
    )


def albers(shape=(150, 160), around=(500000, 6_000_000), crs="EPSG:32755", resolution=30, shift=90):
    """A tile in Australian Albers over a point of a UTM zone."""
    import pyproj

    x, y = pyproj.Transformer.from_crs(crs, "EPSG:3577", always_xy=True).transform(*around)
    x, y = (round(v / resolution) * resolution for v in (x, y))
    return GeoBox(
        shape, Affine(resolution, 0, x - shift * 5, 0, -resolution, y + shift * 5), "EPSG:3577"
    )


@pytest.fixture
def archive(tmp_path):
    close_readers()
    yield Archive(tmp_path)
    close_readers()


@pytest.fixture
def kit():
    """Names that tests share."""
    return SimpleNamespace(
        ARD=ARD, NODATA=NODATA, Plain=Plain, albers=albers, definition=definition,
        make_task=make_task, smooth=smooth, datetime=datetime,
    )  # fmt: skip
