"""A tile to write and the pixels to write into it."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox

from odc_stats_gpu.model import (
    Block,
    OutputBand,
    OutputProduct,
    RunConfig,
    RunInfo,
    Task,
    TimeRange,
)
from odc_stats_gpu.output import TileWriter

BANDS = (
    OutputBand("red", "int16", -999),
    OutputBand("green", "int16", -999),
    OutputBand("blue", "int16", -999),
    OutputBand("sdev", "float32", float("nan")),
    OutputBand("count", "uint16", None, categorical=True),
)


def make_task(shape=(96, 80), crs="EPSG:3577", origin=(-1_000_000, -3_000_000), res=30, **product):
    fields = {"name": "ga_gm", "short_name": "ga_gm", "version": "3.0.0", **product}
    return Task(
        product=OutputProduct(product_family="geomedian", **fields),
        tile=(41, 13),
        geobox=GeoBox(shape, Affine(res, 0, origin[0], 0, -res, origin[1]), crs),
        period=TimeRange.parse("2015--P1Y"),
        datasets=(),
        products={},
    )


def make_pixels(shape, bands=BANDS, seed=0):
    rng = np.random.default_rng(seed)
    ds = xr.Dataset()
    for band in bands:
        dtype = np.dtype(band.dtype)
        values = rng.integers(0, 120 if dtype.itemsize == 1 else 3000, shape).astype(dtype)
        if dtype.kind == "f":
            values = (rng.random(shape) * 5).astype(dtype)
        if band.nodata is not None:
            values[rng.random(shape) < 0.2] = band.nodata
            values[: shape[0] // 3, : shape[1] // 4] = band.nodata
        ds[band.name] = (("y", "x"), values)
    return ds


def blocks_of(shape, size):
    return [
        Block(y, min(y + size, shape[0]), x, min(x + size, shape[1]))
        for y in range(0, shape[0], size)
        for x in range(0, shape[1], size)
    ]


def write_tile(store, task, ds, bands=BANDS, *, cog=None, size=64, order=None, rgb=True, **kw):
    writer = TileWriter(
        task,
        bands,
        store,
        cog=RunConfig(cog_opts=cog or {}).cog,
        rgb=(("red", "green", "blue"), (1.0, 3000.0)) if rgb else None,
        info=RunInfo(software={"odc-stats-gpu": "0.1.0"}, device="cpu", config_hash="abc"),
        **kw,
    )
    blocks = blocks_of(tuple(task.geobox.shape), size)
    try:
        for i in range(len(blocks)) if order is None else order(len(blocks)):
            y, x = blocks[i].slices
            writer.put(blocks[i], ds.isel(y=y, x=x))
    except BaseException:
        writer.abort()
        raise
    return writer


@pytest.fixture(scope="session")
def kit():
    """The functions above, for test modules that can't import each other."""
    return SimpleNamespace(
        bands=BANDS,
        task=make_task,
        pixels=make_pixels,
        blocks=blocks_of,
        write=write_tile,
    )
