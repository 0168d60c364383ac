"""The plugin that docs/plugins.md shows runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import yaml

from odc_stats_gpu.errors import ConfigError
from odc_stats_gpu.plugins import StatsPlugin, load_plugin

ROOT = Path(__file__).parents[2]


@pytest.fixture
def config(monkeypatch):
    """The first YAML block of the page that names a plugin."""
    monkeypatch.chdir(ROOT)
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/plugins.md").read_text(), re.DOTALL)
    return next(doc for b in blocks if "plugin" in (doc := yaml.safe_load(b)))


def test_median_ndvi_of_three_days(make, config):
    product = make.landsat()
    products = {product.name: product}
    plugin = load_plugin(config["plugin"], config["plugin_config"], products=products)
    assert plugin.name == config["product"]["name"]
    assert plugin.inputs(product).bands == ("nbart_red", "nbart_nir", "fmask")
    (plane,) = plugin.native_bands(products)
    (band,) = plugin.output_bands(products)
    assert (plane.name, band.name, band.dtype) == ("ndvi", "ndvi_median", "float32")

    rng = np.random.default_rng(1)
    red = rng.integers(0, 3000, (4, 5, 6)).astype("int16")
    nir = rng.integers(0, 3000, (4, 5, 6)).astype("int16")
    fmask = rng.choice([0, 1, 1, 1, 2, 3, 5], (4, 5, 6)).astype("uint8")
    red[0, 0, 0] = -999
    red[1, 0, 1] = nir[1, 0, 1] = 0
    fmask[:, 4, 5] = 2
    scenes = [
        plugin.native_transform(
            make.scene_of(product, {"nbart_red": r, "nbart_nir": n, "fmask": f}), product
        )
        for r, n, f in zip(red, nir, fmask, strict=True)
    ]
    day = plugin.fuse(xr.concat(scenes[:2], "time"))  # two scenes of the first day
    stack = xr.concat([day, *scenes[2:]], "time")
    made = plugin.reduce(stack)["ndvi_median"]

    bad = np.isin(fmask, [0, 2, 3]) | (red == -999) | (red + nir == 0)
    with np.errstate(all="ignore"):
        ndvi = np.where(bad, np.nan, (nir.astype(float) - red) / (nir.astype(float) + red))
    first = np.where(np.isnan(ndvi[0]), ndvi[1], ndvi[0])
    every = np.ma.masked_invalid([first, *ndvi[2:]])
    expected = np.ma.median(every, axis=0).filled(np.nan)
    np.testing.assert_allclose(made.data, expected, rtol=1e-6)
    assert np.isnan(made.data[4, 5])
    assert made.dtype == np.float32
    assert made.dims == ("y", "x")


def test_its_keys_are_checked_as_any_other(config):
    with pytest.raises(ConfigError, match=r"unknown key 'bad_class' \(did you mean 'bad_classes'"):
        load_plugin(config["plugin"], {"bad_class": ["cloud"]})


class Latest(StatsPlugin):
    """Only what must be written is written."""

    def reduce(self, stack):
        return stack.isel(time=-1)


def test_the_defaults_of_the_base_carry_bands_through(make):
    product = make.landsat()
    products = {product.name: product}
    plugin = Latest({"input_bands": ["red", "fmask", "pan"], "optional_bands": ["pan"]})
    spec = plugin.inputs(product)
    assert (spec.bands, spec.optional, spec.basis) == (("red", "fmask", "pan"), {"pan"}, "red")
    assert [(b.name, b.dtype, b.nodata) for b in plugin.native_bands(products)] == [
        ("red", "int16", -999),
        ("fmask", "uint8", 0),
    ]
    assert [(b.name, b.categorical) for b in plugin.output_bands(products)] == [
        ("red", False),
        ("fmask", True),
    ]
    scene = make.scene_of(product, {"red": [[1, -999]], "fmask": [[1, 0]]})
    xr.testing.assert_identical(plugin.native_transform(scene, product), scene)
    later = make.scene_of(product, {"red": [[7, 8]], "fmask": [[2, 2]]})
    fused = plugin.native_fuse(xr.concat([scene, later], "time"))
    np.testing.assert_array_equal(fused["red"].data, [[1, 8]])
    np.testing.assert_array_equal(fused["fmask"].data, [[1, 2]])


def test_optional_bands_of_one_product_are_missing_in_the_other(make):
    products = {
        "a": make.product("a", [("red", [], "int16", -999, None), ("pan", [], "int16", -1, None)]),
        "b": make.product("b", [("red", [], "int16", -999, None)]),
    }
    plugin = Latest({"input_bands": ["red", "pan"], "optional_bands": ["pan"]})
    assert [b.name for b in plugin.native_bands(products)] == ["red", "pan"]
    made = plugin.native_transform(make.scene_of(products["b"], {"red": [[5, 6]]}), products["b"])
    np.testing.assert_array_equal(made["pan"].data, [[-1, -1]])
