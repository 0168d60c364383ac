"""Clear counts under SCL, fmask and s2cloudless against NumPy and an exact distance transform."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from odc_stats_gpu.errors import ConfigError
from odc_stats_gpu.plugins import load_plugin

CASES = {
    "SCL": ("sentinel", [3, 8, 9, 10]),
    "fmask": ("sentinel_ard", [2, 3]),
    "oa_s2cloudless_mask": ("sentinel_ard", [2]),
}


def days(plugin, product, make, masks):
    """What ingest does: every scene masked, scenes of a day fused, days stacked."""
    band = plugin.config.mask_band
    stack = []
    for day in masks:
        made = [plugin.native_transform(make.scene_of(product, {band: m}), product) for m in day]
        stack.append(plugin.native_fuse(xr.concat(made, "time")))
    return xr.concat(stack, "time")


@pytest.mark.parametrize("band", CASES)
def test_counts_of_days_under_any_mask(make, band):
    maker, clouds = CASES[band]
    product = getattr(make, maker)()
    plugin = load_plugin("pq", {"mask_band": band}, products={product.name: product})
    rng = np.random.default_rng(1)
    classes = (
        [0, 0, 1, 1, 2, 3, 8, 9, 10]
        if band == "SCL"
        else [0, 0, 1, 1, 2, 3][: 6 if band == "fmask" else 5]
    )
    masks = []
    for n in (1, 2, 1, 3):
        coarse = rng.choice(classes, size=(n, 12, 13))
        masks.append(np.kron(coarse, np.ones((1, 5, 4))).astype("uint8"))
    made = plugin.reduce(days(plugin, product, make, masks))

    expected = {
        name: np.zeros((60, 52), int) for name in ("total", "clear", "clear_2_5", "clear_0_5")
    }
    for day in masks:
        valid = (day != 0).any(axis=0)
        cloud = np.isin(day, clouds).any(axis=0)
        expected["total"] += valid
        expected["clear"] += valid & ~cloud
        expected["clear_2_5"] += valid & ~make.disk(cloud, [("opening", 2), ("dilation", 5)])
        expected["clear_0_5"] += valid & ~make.disk(cloud, [("dilation", 5)])
    assert list(made.data_vars) == list(expected)
    for name, counts in expected.items():
        np.testing.assert_array_equal(made[name].data, counts)
        assert made[name].dtype == np.uint16
        assert made[name].attrs["nodata"] is None


def test_groups_of_two_utm_zones_are_united_after_the_warp(make):
    product = make.sentinel()
    plugin = load_plugin("pq", {"filters": {}}, products={product.name: product})
    planes = plugin.native_bands({product.name: product})
    assert [p.name for p in planes] == ["valid", "erased"]
    zones = make.stack_of(
        planes, {"valid": [[[1, 0, 1]], [[0, 1, 1]]], "erased": [[[0, 0, 1]], [[0, 1, 0]]]}
    )
    day = plugin.fuse(zones)
    np.testing.assert_array_equal(day["valid"].data, [[1, 1, 1]])
    np.testing.assert_array_equal(day["erased"].data, [[0, 1, 1]])
    assert {v.dtype.name for v in day.data_vars.values()} == {"uint8"}


def test_pairs_and_mappings_name_the_same_outputs(make):
    pairs = load_plugin("pq", {"filters": [[2, 5], [0, 3]]}).config.cleaned
    named = load_plugin(
        "pq",
        {
            "filters": {
                "clear_2_5": [["opening", 2], ["dilation", 5]],
                "clear_0_3": [["dilation", 3]],
            }
        },
    ).config.cleaned
    assert pairs == named


def test_other_classes_and_no_filters(make):
    product = make.sentinel()
    config = {
        "cloud_classes": ["snow or ice"],
        "nodata_classes": ["no data", "water"],
        "filters": {},
    }
    plugin = load_plugin("pq", config, products={product.name: product})
    stack = days(plugin, product, make, [[[[0, 4, 6, 9, 11]]], [[[4, 4, 4, 4, 4]]]])
    made = plugin.reduce(stack)
    np.testing.assert_array_equal(made["total"].data, [[1, 2, 1, 2, 2]])
    np.testing.assert_array_equal(made["clear"].data, [[1, 2, 1, 2, 1]])


def test_fill_beyond_the_named_classes_is_no_observation(make):
    flags = make.enum("qa", {0: "clear", 1: "cloud"})
    product = make.product("p", [("qa", [], "uint8", 255, flags)])
    config = {"mask_band": "qa", "cloud_classes": ["cloud"], "filters": []}
    plugin = load_plugin("pq", config, products={"p": product})
    made = plugin.reduce(days(plugin, product, make, [[[[0, 1, 255]]]]))
    np.testing.assert_array_equal(made["total"].data, [[1, 1, 0]])
    np.testing.assert_array_equal(made["clear"].data, [[1, 0, 0]])


def test_a_mask_that_cannot_tell_missing_pixels_is_refused(make):
    flags = make.enum("qa", {0: "clear", 1: "cloud"})
    product = make.product("p", [("qa", [], "uint8", None, flags)])
    with pytest.raises(ConfigError, match="band 'qa' of product 'p' has no nodata class"):
        load_plugin("pq", {"mask_band": "qa", "cloud_classes": ["cloud"]}, products={"p": product})
