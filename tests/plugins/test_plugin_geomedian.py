"""Masks, fusing and reduction of the geomedian family against NumPy and exact distances."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import xarray as xr

from odc_stats_gpu.errors import ConfigError
from odc_stats_gpu.plugins import load_plugin

BANDS = ("nbart_red", "nbart_green", "nbart_blue", "nbart_nir", "nbart_swir_1", "nbart_swir_2")


def blobs(rng, shape, classes, default):
    """A class image of rectangles of all sizes, single pixels among them."""
    out = np.full(shape, default, dtype="uint8")
    for _ in range(40):
        y, x = rng.integers(0, shape[0]), rng.integers(0, shape[1])
        h, w = rng.integers(1, 12, 2)
        out[y : y + h, x : x + w] = rng.choice(classes)
    return out


def landsat_scene(make, rng, product, shape=(60, 70)):
    arrays = {b: rng.integers(1, 4000, shape) for b in BANDS}
    arrays["nbart_red"][5:9, 5:9] = -999
    arrays["fmask"] = blobs(rng, shape, [0, 2, 3, 4, 5], 1)
    arrays["nbart_contiguity"] = (rng.random(shape) > 0.05).astype("uint8")
    return make.scene_of(product, {k: v for k, v in arrays.items() if product.find(k)}), arrays


def test_landsat_masks_nodata_cloud_shadow_and_gaps_without_buffer(make):
    rng = np.random.default_rng(1)
    product = make.landsat()
    plugin = load_plugin("gm-ls", products={product.name: product})
    scene, arrays = landsat_scene(make, rng, product)
    made = plugin.native_transform(scene, product)
    assert list(made.data_vars) == list(BANDS)
    bad = np.isin(arrays["fmask"], [0, 2, 3]) | (arrays["nbart_contiguity"] == 0)
    assert 0.1 < bad.mean() < 0.9
    for band in BANDS:
        expected = np.where(bad, -999, arrays[band])
        np.testing.assert_array_equal(made[band].data, expected)
        assert made[band].dtype == np.int16
        assert made[band].attrs["nodata"] == -999
    np.testing.assert_array_equal(scene["nbart_red"].data, arrays["nbart_red"])  # untouched


CLEANING = [
    (
        {
            "cloud_filters": {
                "cloud": [["opening", 3], ["dilation", 6]],
                "shadow": [["dilation", 6]],
            }
        },
        [([2], [("opening", 3), ("dilation", 6)]), ([3], [("dilation", 6)])],
    ),
    (
        {"cloud_filters": {"cloud,shadow": [["opening", 2], ["dilation", 5]]}},
        [([2, 3], [("opening", 2), ("dilation", 5)])],
    ),
    (
        {"cloud_classes": ["shadow", "cloud"], "filters": [2, 5]},
        [([2, 3], [("opening", 2), ("dilation", 5)])],
    ),
    ({"cloud_classes": ["shadow", "cloud"], "filters": [0, 3]}, [([2, 3], [("dilation", 3)])]),
    (
        {"cloud_filters": {"snow": [["closing", 3], ["erosion", 1]]}},
        [([4], [("closing", 3), ("erosion", 1)])],
    ),
]


@pytest.mark.parametrize(("config", "cleaned"), CLEANING)
def test_clouds_are_cleaned_class_by_class_or_as_one_union(make, config, cleaned):
    product = make.landsat(contiguity=False)
    plugin = load_plugin("gm-ls", config, products={product.name: product})
    scene, arrays = landsat_scene(make, np.random.default_rng(2), product)
    bad = arrays["fmask"] == 0
    for classes, operations in cleaned:
        bad |= make.disk(np.isin(arrays["fmask"], classes), operations)
    made = plugin.native_transform(scene, product)["nbart_nir"].data
    np.testing.assert_array_equal(made, np.where(bad, -999, arrays["nbart_nir"]))


def test_sentinel_opens_by_two_then_dilates_by_five(make):
    rng = np.random.default_rng(3)
    product = make.sentinel()
    plugin = load_plugin("gm-s2", products={product.name: product})
    spec = plugin.inputs(product)
    assert (spec.basis, spec.margin) == ("B02", 9)
    scl = blobs(rng, (80, 80), [0, 3, 8, 9, 10, 11, 6], 4)
    arrays = {b: rng.integers(1, 9000, (80, 80)) for b in spec.bands if b != "SCL"}
    made = plugin.native_transform(make.scene_of(product, {**arrays, "SCL": scl}), product)
    clouds = make.disk(np.isin(scl, [3, 8, 9, 10]), [("opening", 2), ("dilation", 5)])
    bad = clouds | (scl == 0)
    for band, values in arrays.items():
        np.testing.assert_array_equal(made[band].data, np.where(bad, 0, values))


def test_a_window_with_its_margin_is_masked_as_the_whole_scene(make):
    rng = np.random.default_rng(4)
    product = make.landsat()
    config = {"cloud_filters": {"cloud": [["opening", 3], ["dilation", 6]], "shadow": [2, 3]}}
    plugin = load_plugin("gm-ls", config, products={product.name: product})
    scene, _ = landsat_scene(make, rng, product, (90, 90))
    whole = plugin.native_transform(scene, product)
    margin = plugin.inputs(product).margin
    inner = slice(30, 60)
    window = scene.isel(y=slice(30 - margin, 60 + margin), x=slice(30 - margin, 60 + margin))
    cut = slice(margin, -margin)
    part = plugin.native_transform(window, product).isel(y=cut, x=cut)
    xr.testing.assert_equal(part, whole.isel(y=inner, x=inner))


def test_contiguity_is_read_by_any_of_its_names_and_never_made(make):
    product = make.landsat()
    config = {"bands": [*BANDS, "contiguity"]}  # an alias of the default contiguity_band
    plugin = load_plugin("gm-ls", config, products={product.name: product})
    products = {product.name: product}
    assert [b.name for b in plugin.output_bands(products)][:7] == [*BANDS, "sdev"]
    assert [b.name for b in plugin.native_bands(products)] == list(BANDS)
    assert "nbart_contiguity" in plugin.inputs(product).bands
    assert "contiguity" not in plugin.inputs(product).bands


def test_a_product_without_contiguity_is_masked_by_classes_alone(make):
    product = make.landsat(contiguity=False)
    plugin = load_plugin("gm-ls", products={product.name: product})
    assert plugin.inputs(product).optional == {"nbart_contiguity"}
    scene, arrays = landsat_scene(make, np.random.default_rng(5), product)
    made = plugin.native_transform(scene, product)["nbart_blue"].data
    bad = np.isin(arrays["fmask"], [0, 2, 3])
    np.testing.assert_array_equal(made, np.where(bad, -999, arrays["nbart_blue"]))


def test_nodata_classes_are_found_by_what_the_product_calls_them(make):
    product = make.sentinel_ard()
    config = {
        "bands": ["nbart_red"],
        "mask_band": "oa_s2cloudless_mask",
        "cloud_classes": ["cloud"],
    }
    plugin = load_plugin("gm-generic", config, products={product.name: product})
    scene = make.scene_of(product, {"nbart_red": [[1, 2, 3]], "oa_s2cloudless_mask": [[0, 1, 2]]})
    made = plugin.native_transform(scene, product)
    np.testing.assert_array_equal(made["nbart_red"].data, [[-999, 2, -999]])


def test_classes_may_be_pixel_values(make):
    product = make.landsat()
    config = {
        "bands": ["red"],
        "mask_band": "fmask",
        "cloud_classes": [2, "water"],
        "nodata_classes": [],
    }
    plugin = load_plugin("gm-generic", config, products={product.name: product})
    scene = make.scene_of(product, {"red": [[1, 2, 3, 4]], "fmask": [[0, 2, 3, 5]]})
    np.testing.assert_array_equal(
        plugin.native_transform(scene, product)["red"].data, [[1, -999, 3, -999]]
    )


def test_bit_fields_are_compared_by_value(make):
    product = make.usgs()
    config = {
        "bands": ["red", "nir"],
        "mask_band": "pq",
        "cloud_classes": {"cloud": "high_confidence", "cloud_confidence": "medium"},
    }
    plugin = load_plugin("gm-generic", config, products={product.name: product})
    qa = np.array([[0b0, 0b1, 0b100, 0b1000, 1 << 8, 2 << 8, 3 << 8]])
    scene = make.scene_of(product, {"red": np.full((1, 7), 9), "nir": np.full((1, 7), 9), "pq": qa})
    made = plugin.native_transform(scene, product)["red"].data
    np.testing.assert_array_equal(made, [[9, 0, 9, 0, 9, 0, 9]])


def test_a_second_product_comes_in_the_types_of_the_first(make):
    products = {"a": make.landsat("a"), "b": make.landsat("b", nodata=0)}
    plugin = load_plugin("gm-ls", products=products)
    scene, arrays = landsat_scene(make, np.random.default_rng(6), products["b"])
    scene["nbart_red"].data[...] = np.where(arrays["nbart_red"] == -999, 0, arrays["nbart_red"])
    made = plugin.native_transform(scene, products["b"])["nbart_red"]
    bad = np.isin(arrays["fmask"], [0, 2, 3]) | (arrays["nbart_contiguity"] == 0)
    np.testing.assert_array_equal(made.data, np.where(bad, -999, arrays["nbart_red"]))
    assert made.attrs["nodata"] == -999


def test_scenes_of_a_day_give_the_first_valid_value_of_each_band(make):
    product = make.landsat()
    plugin = load_plugin("gm-ls", {"bands": ["red", "nir"]}, products={product.name: product})
    planes = plugin.native_bands({product.name: product})
    red = [[[1, -999, -999]], [[4, 5, -999]]]
    nir = [[[-999, 2, -999]], [[6, 7, -999]]]
    fused = plugin.native_fuse(make.stack_of(planes, {"red": red, "nir": nir}))
    np.testing.assert_array_equal(fused["red"].data, [[1, 5, -999]])
    np.testing.assert_array_equal(fused["nir"].data, [[6, 2, -999]])
    assert fused["red"].dims == ("y", "x")
    assert "time" not in fused.coords


def weiszfeld(points):
    """Geometric median in float64: many damped steps from the mean; for generic points."""
    at = points.mean(axis=0)
    for _ in range(3000):
        distance = np.linalg.norm(points - at, axis=1)
        weight = 1 / np.maximum(distance, 1e-9)
        at = (points * weight[:, None]).sum(axis=0) / weight.sum()
    return at


def spread(points, at, scale, offset):
    """SMAD, EMAD, BCMAD by their formulas in float64."""
    x, m = points * scale + offset, at * scale + offset
    cosine = (x @ m) / np.linalg.norm(x, axis=1) / np.linalg.norm(m)
    curtis = np.abs(x - m).sum(axis=1) / np.abs(x + m).sum(axis=1)
    return (
        np.median(1 - cosine),
        np.median(np.linalg.norm(points - at, axis=1)),
        np.median(curtis),
    )


@pytest.fixture
def two_bands(make):
    product = make.landsat()
    config = {"bands": ["red", "nir"], "aux_names": {"smad": "s", "count": "n"}}

    def load(**kw):
        plugin = load_plugin("gm-ls", {**config, **kw}, products={product.name: product})
        return plugin, plugin.native_bands({product.name: product})

    return load


def test_reduce_is_the_geomedian_with_its_spread_and_count(make, two_bands):
    rng = np.random.default_rng(7)
    plugin, planes = two_bands()
    arrays = {b: rng.integers(200, 3000, (9, 3, 4)).astype("int16") for b in ("red", "nir")}
    gone = rng.random((9, 3, 4)) < 0.3
    arrays["red"][gone] = -999
    arrays["nir"][rng.random((9, 3, 4)) < 0.1] = -999  # one band is enough to drop a date
    arrays["nir"][:, 0, 0] = -999
    made = plugin.reduce(make.stack_of(planes, arrays))
    assert list(made.data_vars) == ["red", "nir", "s", "edev", "bcdev", "n"]
    assert made["n"].dtype == np.uint16
    for y in range(3):
        for x in range(4):
            points = np.stack([arrays["red"][:, y, x], arrays["nir"][:, y, x]], axis=1)
            points = points[(points != -999).all(axis=1)].astype("float64")
            pixel = made.isel(y=y, x=x)
            assert pixel["n"] == len(points)
            if not len(points):
                assert (pixel["red"], pixel["nir"]) == (-999, -999)
                assert np.isnan([pixel["s"], pixel["edev"], pixel["bcdev"]]).all()
                continue
            at = weiszfeld(points)
            np.testing.assert_allclose([pixel["red"], pixel["nir"]], at, atol=0.61)
            expected = spread(points, at, 1e-4, -1e-4)
            found = [float(pixel[k]) for k in ("s", "edev", "bcdev")]
            np.testing.assert_allclose(found, expected, rtol=2e-3, atol=1e-6)


def test_one_observation_is_itself_and_two_are_their_midpoint_rounded_to_even(make, two_bands):
    plugin, planes = two_bands()
    red = [[[1, 100, 101, 7]], [[-999, 103, 102, -999]]]
    nir = [[[2, 201, 204, -999]], [[5, 204, 205, 9]]]
    made = plugin.reduce(make.stack_of(planes, {"red": red, "nir": nir}))
    np.testing.assert_array_equal(made["red"].data, [[1, 102, 102, -999]])  # 101.5, 101.5 -> 102
    np.testing.assert_array_equal(
        made["nir"].data, [[2, 202, 204, -999]]
    )  # 202.5 -> 202, 204.5 -> 204
    np.testing.assert_array_equal(made["n"].data, [[1, 2, 2, 0]])
    assert made["red"].dtype == np.int16
    assert made["red"].attrs["nodata"] == -999


def test_no_observed_pixel_becomes_nodata(make, two_bands):
    plugin, planes = two_bands()
    red = [[[-998, -1001]], [[-1000, -998]]]  # midpoints -999 and -999.5
    nir = [[[10, 10]], [[20, 20]]]
    made = plugin.reduce(make.stack_of(planes, {"red": red, "nir": nir}))
    np.testing.assert_array_equal(made["red"].data, [[-998, -1000]])
    np.testing.assert_array_equal(made["n"].data, [[2, 2]])


def test_compat_truncates_as_the_incumbent(make, two_bands):
    plugin, planes = two_bands(numerics="compat")
    values = np.arange(1, 10001, dtype="int16").reshape(1, 100, 100)
    made = plugin.reduce(make.stack_of(planes, {"red": values, "nir": values}))
    lower = values[0] - made["red"].data
    assert set(np.unique(lower)) == {0, 1}
    assert abs(lower.mean() - 0.3743) < 0.0005  # measured with odc-stats on single observations
    exact = two_bands()[0].reduce(make.stack_of(planes, {"red": values, "nir": values}))
    np.testing.assert_array_equal(exact["red"].data, values[0])


def test_the_run_or_the_plugin_chooses_the_numerics():
    assert load_plugin("gm-ls", numerics="compat").numerics == "compat"
    assert load_plugin("gm-ls", {"numerics": "exact"}, numerics="compat").numerics == "exact"


def test_byte_bands_come_back_as_bytes_and_mixed_ones_in_their_own_type(make):
    mask = ("mask", [], "uint8", 0, make.enum("mask", {0: "nodata", 2: "cloud"}))
    bands = [
        ("a", [], "uint8", 255, None),
        ("b", [], "uint16", 0, None),
        ("c", [], "float32", None, None),
    ]
    product = make.product("p", [*bands, mask])
    products = {"p": product}
    for names, dtype in (("a", "int16"), ("ab", "uint16"), ("abc", "float32")):
        config = {"bands": list(names), "mask_band": "mask", "cloud_classes": ["cloud"]}
        plugin = load_plugin("gm-generic", config, products=products)
        planes = plugin.native_bands(products)
        assert {p.dtype for p in planes} == {dtype}
        scene = make.scene_of(product, {**{n: [[7, 8]] for n in names}, "mask": [[1, 2]]})
        made = plugin.native_transform(scene, product)
        stack = made.expand_dims("time")
        for name in names:
            stack[name].attrs.update(made[name].attrs)
        out = plugin.reduce(stack)
        for name, wanted in zip(names, plugin.output_bands(products), strict=False):
            assert out[name].dtype == wanted.dtype
            np.testing.assert_array_equal(
                out[name].data, np.array([[7, wanted.nodata]], wanted.dtype)
            )


def test_optional_bands_of_the_geomedian(make):
    product = make.landsat()
    config = {"bands": ["red", "pan"], "optional_bands": ["pan"]}
    plugin = load_plugin("gm-ls", config, products={product.name: product})
    assert [b.name for b in plugin.native_bands({product.name: product})] == ["red"]
    with pytest.raises(ConfigError, match="has no band 'pan'"):
        load_plugin("gm-ls", {"bands": ["red", "pan"]}, products={product.name: product})


def test_a_plugin_travels_to_another_process(make):
    product = make.landsat()
    plugin = load_plugin("gm-ls", {"filters": [1, 2]}, products={product.name: product})
    copy = pickle.loads(pickle.dumps(plugin))
    scene, _ = landsat_scene(make, np.random.default_rng(8), product)
    xr.testing.assert_identical(
        copy.native_transform(scene, product), plugin.native_transform(scene, product)
    )
