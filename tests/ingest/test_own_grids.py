"""Bands warped from grids of their own, in whatever order a product lists them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from affine import Affine

from odc_stats_gpu.ingest import load_block, plan_tile
from odc_stats_gpu.model import as_stack

FINE = Affine(30, 0, 498000, 0, -30, 6_002_000)
COARSE = Affine(60, 0, 498000, 0, -60, 6_002_000)


@pytest.mark.parametrize(
    "order", [("a", "b", "c", "d"), ("a", "c", "b", "d"), ("c", "a", "d", "b"), ("c", "d", "b")]
)
def test_order_of_bands_of_different_grids(archive, kit, order):
    """Sentinel-2: 20 m bands stand between 10 m bands, each must land in its own plane."""
    value = {"a": 100, "b": 200, "c": 300, "d": 400}
    pixels = {n: np.full((120, 120) if n in "ab" else (60, 60), v, "i2") for n, v in value.items()}
    scene = archive.scene(
        "2020-01-01T00:00:00", pixels, transform=FINE, transforms={"c": COARSE, "d": COARSE}
    )
    product = kit.definition(**dict.fromkeys("abcd", ("int16", kit.NODATA)))
    geobox = kit.albers(shape=(32, 40), around=(498000 + 1800, 6_002_000 - 1800))
    plugin = kit.Plain(bands=order, mask=None, native_bands="own", resampling="bilinear")
    plan = plan_tile(kit.make_task([scene], geobox, products=(product,)), plugin)
    with ThreadPoolExecutor(2) as pool:
        stack = as_stack(load_block(plan, plan.whole, pool))[:, 0]
    for name, plane in zip(order, stack, strict=True):
        assert (plane[8:24, 8:24] == value[name]).all(), name
