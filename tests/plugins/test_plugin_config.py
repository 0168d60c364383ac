"""Configurations of the world load unchanged; wrong ones say what is wrong and what is right."""

from __future__ import annotations

import logging
import math

import pytest
import yaml

from odc_stats_gpu.errors import ConfigError
from odc_stats_gpu.model import OutputBand
from odc_stats_gpu.plugins import load_plugin
from odc_stats_gpu.plugins._filters import MaskRule

OLD_README = """
plugin: gm-ls
plugin_config:
  resampling: bilinear
  bands: ["blue", "red", "green", "nir", "swir1", "swir2"]
  rgb_bands: ["red", "green", "blue"]
  mask_band: fmask
  cloud_classes: ["shadow", "cloud"]
  filters: [0, 0]
  aux_names:
    smad: sdev
    emad: edev
    bcmad: bcdev
    count: count
"""

GA_LANDSAT = """
plugin: gm-ls
plugin_config:
  bands:
    [nbart_blue, nbart_red, nbart_green, nbart_nir, nbart_swir_1, nbart_swir_2, nbart_contiguity]
  contiguity_band: nbart_contiguity
  mask_band: fmask
  cloud_filters:
    cloud:
      - [opening, 3]
      - [dilation, 6]
    shadow:
      - [dilation, 6]
  transform_code: "EPSG:9688"
  area_of_interest: [-180, -90, 180, 90]
  aux_names: {smad: sdev, emad: edev, bcmad: bcdev, count: count}
  work_chunks: [400, 400]
  reshape_strategy: mem
  chunks: {y: -1, x: -1}
"""

GA_SENTINEL = """
plugin: gm-s2
plugin_config:
  bands:
    [nbart_blue, nbart_green, nbart_red, nbart_red_edge_1, nbart_red_edge_2, nbart_red_edge_3,
     nbart_nir_1, nbart_nir_2, nbart_swir_2, nbart_swir_3]
  mask_band: oa_s2cloudless_mask
  nodata_classes: [nodata]
  cloud_filters: {cloud: [[opening, 3], [dilation, 6]]}
  aux_names: {smad: smad, emad: emad, bcmad: bcmad, count: count}
"""

GA_FINANCIAL_YEAR = GA_SENTINEL.replace(
    "[opening, 3], [dilation, 6]", "[opening, 0], [dilation, 0]"
)

EXAMPLE_PQ = """
plugin: pq
plugin_config: {filters: [[2, 5], [0, 5]], resampling: nearest}
"""


def load(text, *products, **kw):
    doc = yaml.safe_load(text)
    return load_plugin(
        doc["plugin"], doc["plugin_config"], products={p.name: p for p in products}, **kw
    )


def test_the_old_readme_loads_unchanged(make):
    product = make.landsat()
    plugin = load(OLD_README, product)
    products = {product.name: product}
    bands = ["blue", "red", "green", "nir", "swir1", "swir2"]
    made = plugin.output_bands(products)
    assert [b.name for b in made] == [*bands, "sdev", "edev", "bcdev", "count"]
    assert {(b.dtype, b.nodata) for b in made[:6]} == {("int16", -999)}
    assert all(b.dtype == "float32" and math.isnan(b.nodata) for b in made[6:9])
    assert made[9] == OutputBand("count", "uint16", None, categorical=True)
    assert plugin.rgb_bands == ("red", "green", "blue")
    assert plugin.rgb_clamp == (1, 3000)
    assert plugin.config.rules == (MaskRule(("shadow", "cloud")),)
    spec = plugin.inputs(product)
    assert spec.bands == (*bands, "fmask", "nbart_contiguity")
    assert (spec.basis, spec.resampling, spec.margin) == ("blue", "bilinear", 0)
    assert [b.name for b in plugin.native_bands(products)] == bands


def test_the_landsat_configuration_of_geoscience_australia(make):
    products = [make.landsat(f"ga_ls{n}c_ard_3") for n in (8, 9)]
    plugin = load(GA_LANDSAT, *products)
    names = [b.name for b in plugin.output_bands({p.name: p for p in products})]
    assert names[:6] == [f"nbart_{b}" for b in ("blue", "red", "green", "nir", "swir_1", "swir_2")]
    assert names[6:] == ["sdev", "edev", "bcdev", "count"]
    spec = plugin.inputs(products[0])
    assert spec.bands[-2:] == ("fmask", "nbart_contiguity")
    assert spec.bands.count("nbart_contiguity") == 1
    assert spec.optional == {"nbart_contiguity"}
    assert spec.transform_code == "EPSG:9688"
    assert spec.area_of_interest == (-180, -90, 180, 90)
    assert spec.margin == 12  # opening looks 3 + 3 pixels far, dilation 6
    assert plugin.rgb_bands is None


@pytest.mark.parametrize(("text", "margin"), [(GA_SENTINEL, 12), (GA_FINANCIAL_YEAR, 0)])
def test_the_sentinel_configurations_of_geoscience_australia(make, text, margin):
    product = make.sentinel_ard()
    plugin = load(text, product)
    names = [b.name for b in plugin.output_bands({product.name: product})]
    assert len(names) == 14
    assert names[10:] == ["smad", "emad", "bcmad", "count"]
    assert plugin.inputs(product).margin == margin


def test_the_example_of_pixel_quality(make):
    product = make.sentinel()
    plugin = load(EXAMPLE_PQ, product)
    assert plugin.output_bands({product.name: product}) == tuple(
        OutputBand(n, "uint16", None, categorical=True)
        for n in ("total", "clear", "clear_2_5", "clear_0_5")
    )
    spec = plugin.inputs(product)
    assert (spec.bands, spec.resampling, spec.margin) == (("SCL",), "nearest", 9)


@pytest.mark.parametrize(
    ("name", "facts", "aux", "rgb"),
    [
        (
            "gm-s2",
            ("gm_s2_annual", "0.0.0"),
            ["SMAD", "EMAD", "BCMAD", "COUNT"],
            ("B04", "B03", "B02"),
        ),
        (
            "gm-ls",
            ("gm_ls_annual", "3.0.1"),
            ["sdev", "edev", "bcdev", "count"],
            ("nbart_red", "nbart_green", "nbart_blue"),
        ),
    ],
)
def test_defaults_of_the_geomedians(make, name, facts, aux, rgb):
    product = make.sentinel() if name == "gm-s2" else make.landsat()
    plugin = load_plugin(name, None, products={product.name: product})
    assert (plugin.name, plugin.version, plugin.product_family) == (*facts, "geomedian")
    assert plugin.short_name == facts[0]
    assert [b.name for b in plugin.output_bands({product.name: product})][-4:] == aux
    assert plugin.rgb_bands == rgb


def test_sentinel_cleans_one_union_and_landsat_does_not_buffer():
    (rule,) = load_plugin("gm-s2").config.rules
    assert rule.classes == (
        "cloud shadows", "cloud medium probability", "cloud high probability", "thin cirrus",
    )  # fmt: skip
    assert rule.operations == (("opening", 2), ("dilation", 5))
    assert load_plugin("gm-ls").config.rules == (MaskRule(("cloud", "shadow")),)


@pytest.mark.parametrize(
    "filters",
    [
        {"cloud,shadow": [["opening", 2], ["dilation", 5]]},
        {("cloud", "shadow"): [("opening", 2), ("dilation", 5)]},
        {"cloud, shadow": [2, 5]},
        [{"classes": ["cloud", "shadow"], "filters": [["opening", 2], ["dilation", 5]]}],
        [{"classes": ["cloud", "shadow"], "filters": [{"opening": 2}, {"dilation": 5}]}],
    ],
)
def test_several_classes_under_one_key_are_one_union(filters):
    plugin = load_plugin("gm-ls", {"cloud_filters": filters})
    assert plugin.config.rules == (
        MaskRule(("cloud", "shadow"), (("opening", 2), ("dilation", 5))),
    )


def test_filters_without_classes_apply_to_the_default_classes():
    plugin = load_plugin("gm-ls", {"filters": [0, 4]})
    assert plugin.config.rules == (MaskRule(("cloud", "shadow"), (("dilation", 4),)),)
    plugin = load_plugin("gm-s2", {"cloud_classes": ["thin cirrus"]})
    assert plugin.config.rules == (MaskRule(("thin cirrus",), (("opening", 2), ("dilation", 5))),)


def test_generic_with_nodata_classes_only_masks_cloud_and_shadow_as_the_incumbent():
    config = {"bands": ["red"], "mask_band": "fmask", "nodata_classes": ["nodata"]}
    assert load_plugin("gm-generic", config).config.rules == (MaskRule(("cloud", "shadow")),)


def test_settings_of_another_memory_layout_are_mentioned_and_ignored(caplog):
    with caplog.at_level(logging.INFO, "odc_stats_gpu"):
        load_plugin(
            "gm-ls", {"chunks": {"x": 800}, "work_chunks": [4, 4], "reshape_strategy": "mem"}
        )
    text = caplog.text
    assert all(key in text for key in ("chunks = {'x': 800}", "work_chunks", "reshape_strategy"))


def test_lists_numbers_and_nulls_of_yaml():
    plugin = load_plugin(
        "gm-ls", {"rgb_clamp": [50, 2000], "transform_code": 9688, "group_by": None}
    )
    assert plugin.rgb_clamp == (50.0, 2000.0)
    assert plugin.config.transform_code == "EPSG:9688"
    assert plugin.config.group_by == "idx"


GENERIC = {"bands": ["red", "nir"], "mask_band": "fmask", "cloud_classes": ["cloud"]}


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        (
            "gm-ls",
            {"band": ["red"]},
            "plugin_config of gm-ls: unknown key 'band' (did you mean 'bands'?)",
        ),
        (
            "gm-s2",
            {"cloud_filter": {}},
            "unknown key 'cloud_filter' (did you mean 'cloud_filters'?)",
        ),
        ("pq", {"cloud_filters": {}}, "plugin_config of pq: unknown key 'cloud_filters'"),
        ("gm-ls", {"zzz": 1}, "unknown key 'zzz' (remove it or check its spelling)"),
        (
            "gm-ls",
            {"resampling": "bilinaer"},
            "unknown resampling 'bilinaer' (did you mean 'bilinear'?",
        ),
        ("gm-ls", {"numerics": "fast"}, "numerics = 'fast': Input should be 'exact' or 'compat'"),
        ("gm-ls", {"rgb_clamp": [3000, 1]}, "rgb_clamp [3000, 1] is empty"),
        (
            "gm-ls",
            {"rgb_bands": ["nbart_red", "nbart_green", "nbart_bleu"]},
            "did you mean 'nbart_blue'?",
        ),
        ("gm-ls", {"rgb_bands": ["nbart_red"]}, "rgb_bands"),
        ("gm-ls", {"area_of_interest": [180, -90, -180, 90]}, "is not a rectangle"),
        ("gm-ls", {"aux_names": {"sdev": "x"}}, "aux_names: unknown key 'sdev'"),
        ("gm-ls", {"aux_names": {"smad": "count"}}, "two output bands are called 'count'"),
        ("gm-ls", {"aux_names": ["a"]}, "aux_names = ['a']"),
        ("gm-ls", {"bands": []}, "bands is empty"),
        ("gm-ls", {"bands": ["fmask", "nbart_red"]}, "mask_band 'fmask' is listed in bands"),
        ("gm-ls", {"bands": [f"b{i}" for i in range(17)]}, "bands lists 17 bands"),
        (
            "gm-ls",
            {"basis": "nbart_red", "basis_band": "nbart_nir"},
            "'nbart_red' and basis_band 'nbart_nir' differ",
        ),
        ("gm-ls", {"scale": 0}, "scale 0 is not positive"),
        ("gm-ls", {"cloud_filters": {}}, "no mask class is configured (give cloud_classes"),
        ("gm-ls", {"cloud_classes": []}, "no mask class is configured"),
        ("gm-ls", {"cloud_filters": {"": [2, 5]}}, "an entry names no class"),
        (
            "gm-ls",
            {"cloud_filters": {"cloud": [["openning", 2]]}},
            "unknown operation 'openning' (did you mean 'opening'?",
        ),
        (
            "gm-ls",
            {"cloud_filters": {"cloud": [["opening", -2]]}},
            "cloud_filters.cloud: opening has the radius -2",
        ),
        (
            "gm-ls",
            {"cloud_filters": {"cloud": "opening"}},
            "cloud_filters.cloud: can't read 'opening'",
        ),
        ("gm-ls", {"cloud_filters": {"cloud": 5}}, "cloud_filters.cloud: can't read 5"),
        ("gm-ls", {"cloud_filters": [{"class": ["cloud"]}]}, "cloud_filters[0]: can't read"),
        (
            "gm-ls",
            {"cloud_filters": {"cloud": []}, "filters": [0, 0]},
            "cloud_filters and filters are both given",
        ),
        ("gm-generic", {"mask_band": "fmask"}, "bands is empty"),
        ("gm-generic", {"bands": ["red"]}, "mask_band is missing"),
        (
            "gm-generic",
            {"bands": ["red"], "mask_band": "fmask"},
            "plugin_config of gm-generic: no mask class is configured",
        ),
        ("pq", {"cloud_classes": []}, "no mask class is configured"),
        ("pq", {"filters": {"total": [2, 5]}}, "filters: 'total' can't be an output band"),
        ("pq", {"filters": [[["opening", 2]]]}, "has no name"),
        ("pq", ["filters"], "is not a mapping"),
    ],
)
def test_wrong_configurations_say_what_is_right(name, config, message):
    with pytest.raises(ConfigError) as caught:
        load_plugin(name, config)
    assert message in str(caught.value)
    assert caught.value.remedy
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {**GENERIC, "bands": ["red", "nri"]},
            (
                "product 'ga_ls8c_ard_3' has no band 'nri' "
                "(did you mean 'nir'? known: nbart_blue (blue), "
            ),
        ),
        ({**GENERIC, "mask_band": "scl"}, "has no band 'scl'"),
        ({**GENERIC, "basis": "pan"}, "has no band 'pan'"),
        (
            {**GENERIC, "cloud_classes": ["clouds"]},
            (
                "band 'oa_fmask' of product 'ga_ls8c_ard_3' has no class 'clouds' "
                "(did you mean 'cloud'? known: nodata, valid, cloud, shadow, snow, water)"
            ),
        ),
        ({**GENERIC, "nodata_classes": ["no data"]}, "has no class 'no data'"),
        (
            {**GENERIC, "mask_band": "green"},
            "names no classes, so 'cloud' can't be found (write pixel values",
        ),
    ],
)
def test_bands_and_classes_are_checked_against_the_product(make, config, message):
    product = make.landsat()
    with pytest.raises(ConfigError) as caught:
        load_plugin("gm-generic", config, products={product.name: product})
    assert message in str(caught.value)


def test_a_flag_of_a_bit_field_needs_its_value(make):
    product = make.usgs()
    config = {"bands": ["red"], "mask_band": "pq", "cloud_classes": ["cloud_confidence"]}
    with pytest.raises(ConfigError, match="cloud_confidence=high") as caught:
        load_plugin("gm-generic", config, products={product.name: product})
    assert "has no flag 'cloud_confidence'" in caught.value.message


def test_a_band_without_nodata_is_refused(make):
    fmask = ("fmask", [], "uint8", 0, make.enum("fmask", {0: "nodata", 2: "cloud"}))
    product = make.product("p", [("red", [], "int16", None, None), fmask])
    config = {"bands": ["red"], "mask_band": "fmask", "cloud_classes": ["cloud"]}
    with pytest.raises(ConfigError, match=r"band 'red' \(int16\) of p has no nodata"):
        load_plugin("gm-generic", config, products={"p": product})


def test_products_of_different_types(make):
    first, second = make.landsat("a"), make.landsat("b", nodata=0)
    plugin = load_plugin("gm-ls", products={"a": first, "b": second})
    assert {b.nodata for b in plugin.native_bands({"a": first, "b": second})} == {-999}
    wide = make.landsat("c", dtype="uint16", nodata=0)
    with pytest.raises(ConfigError, match="uint16 in product 'c' but int16 in 'a'"):
        load_plugin("gm-ls", products={"a": first, "c": wide})


def test_no_class_is_guessed_for_an_unknown_mask(make):
    flags = make.enum("mask", {0: "nodata", 1: "bad"})
    product = make.product("p", [("mask", [], "uint8", 0, flags)])
    with pytest.raises(ConfigError, match="no mask class is configured for the mask band 'mask'"):
        load_plugin("pq", {"mask_band": "mask"}, products={"p": product})


def test_default_classes_follow_what_the_mask_calls_them(make):
    """gm-s2 on another mask than SCL: nodata is found by its name, clouds must be given."""
    product = make.sentinel_ard()
    config = {"bands": ["nbart_red"], "mask_band": "oa_s2cloudless_mask"}
    plugin = load_plugin(
        "gm-s2", {**config, "cloud_classes": ["cloud"]}, products={product.name: product}
    )
    scene = make.scene_of(product, {"nbart_red": [[3, 4]], "oa_s2cloudless_mask": [[0, 1]]})
    assert plugin.native_transform(scene, product)["nbart_red"].data.tolist() == [[-999, 4]]
    with pytest.raises(ConfigError, match="has no class 'cloud shadows'"):
        load_plugin("gm-s2", config, products={product.name: product})


def test_colours_of_a_plugin_are_bands_that_it_makes(make):
    product = make.sentinel()
    with pytest.raises(ConfigError, match=r"rgb_bands: 'claer' is no output band of pc_s2_annual"):
        load_plugin(
            "pq", {"rgb_bands": ["clear", "total", "claer"]}, products={product.name: product}
        )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            {"m": {"bits": [0, 2], "values": {0: "a"}}},
            "flag 'm' of band 'm' .* has the bits",
        ),
        (
            {"m": {"bits": [0, 1], "values": {"x": "a"}}},
            "flag 'm' of band 'm' .* can't be read",
        ),
        ({"m": 3}, "can't be read"),
    ],
)
def test_a_flags_definition_that_cannot_be_read(make, flags, message):
    product = make.product("p", [("m", [], "uint8", 0, flags)])
    with pytest.raises(ConfigError, match=message):
        load_plugin("pq", {"mask_band": "m", "cloud_classes": ["a"]}, products={"p": product})
