"""What plugins do between kernels, on arrays that know the array-API standard and nothing else."""

from __future__ import annotations

from dataclasses import fields, is_dataclass

import array_api_strict
import numpy as np
import pytest
import xarray as xr

from odc_stats_gpu import kernels, model
from odc_stats_gpu.plugins import _geomedian, load_plugin

STRICT = type(array_api_strict.asarray(0))
KERNELS = (
    "any_true", "clean_mask", "count_true", "decode_enum", "decode_flags", "first_valid", "geomad",
    "mask_where",
)  # fmt: skip
BANDS = ("nbart_red", "nbart_nir")
GM = {"bands": list(BANDS), "cloud_filters": {"cloud": [["opening", 1]], "shadow": []}}


def plain(value):
    return np.asarray(value) if isinstance(value, STRICT) else value


def strict(value):
    if isinstance(value, np.ndarray):
        return array_api_strict.asarray(value.copy())
    if is_dataclass(value):
        return type(value)(*(strict(getattr(value, f.name)) for f in fields(value)))
    return type(value)(*map(strict, value)) if isinstance(value, tuple) else value


@pytest.fixture
def strict_kernels(monkeypatch):
    """Kernels take and give strict arrays; how they compute is not the question here."""

    def wrapped(function):
        def call(*args, **options):
            given = [plain(a) for a in args]
            assert any(isinstance(a, STRICT) for a in args)
            return strict(function(*given, **{k: plain(v) for k, v in options.items()}))

        return call

    for name in KERNELS:
        monkeypatch.setattr(kernels, name, wrapped(getattr(kernels, name)))

    def as_stack(ds):
        return array_api_strict.stack([v.data for v in ds.data_vars.values()])

    monkeypatch.setattr(_geomedian, "as_stack", as_stack)


def to_strict(ds):
    made = {k: (v.dims, array_api_strict.asarray(v.data), v.attrs) for k, v in ds.variables.items()}
    return xr.Dataset({k: v for k, v in made.items() if k in ds.data_vars}, attrs=ds.attrs)


def life_of_a_stack(plugin, product, days, convert):
    """Mask, fuse in native pixels and after the warp, reduce: as the engine does."""
    plugin.native_bands({product.name: product})
    slots = []
    for day in days:
        made = [plugin.native_transform(convert(scene), product) for scene in day]
        layers = {
            name: (
                ("time", "y", "x"),
                array_namespace(made[0][name].data).stack([m[name].data for m in made]),
                dict(made[0][name].attrs),
            )
            for name in made[0].data_vars
        }
        slots.append(plugin.native_fuse(xr.Dataset(layers)))
    stack = {
        name: (
            ("time", "y", "x"),
            array_namespace(slots[0][name].data).stack([s[name].data for s in slots]),
            dict(slots[0][name].attrs),
        )
        for name in slots[0].data_vars
    }
    twice = {k: (d, v[:2, ...], a) for k, (d, v, a) in stack.items()}
    return plugin.fuse(xr.Dataset(twice)), plugin.reduce(xr.Dataset(stack))


def array_namespace(array):
    return array.__array_namespace__()


def scenes(make, product, mask, seed=1):
    rng = np.random.default_rng(seed)
    names = [b for b in (*BANDS, "nbart_contiguity") if product.find(b)]
    return [
        [
            make.scene_of(
                product,
                {b: rng.integers(1, 3000, (9, 11)) for b in names if b != "nbart_contiguity"}
                | {b: rng.integers(0, 2, (9, 11)) for b in names if b == "nbart_contiguity"}
                | {mask: rng.choice([0, 1, 1, 1, 2, 3], (9, 11))},
            )
            for _ in range(count)
        ]
        for count in (1, 2, 1, 3)
    ]


@pytest.mark.parametrize(
    ("name", "config", "kind"),
    [
        ("gm-ls", GM, "landsat"),
        ("gm-ls", GM | {"numerics": "compat"}, "landsat"),
        ("gm-generic", GM | {"mask_band": "oa_fmask"}, "mixed"),
        ("pq", {"mask_band": "oa_fmask", "filters": {"clear_1_2": [1, 2], "raw": []}}, "landsat"),
    ],
)  # fmt: skip
def test_between_the_kernels_only_the_standard_is_used(make, strict_kernels, name, config, kind):
    product = mixed(make) if kind == "mixed" else make.landsat()
    days = scenes(make, product, config.get("mask_band", "oa_fmask"))

    def plugin():
        return load_plugin(name, config, products={product.name: product})

    if name == "gm-ls":
        days = [[s.rename(oa_fmask="fmask") for s in day] for day in days]
    found = life_of_a_stack(plugin(), product, days, to_strict)
    with pytest.MonkeyPatch.context() as undo:
        for kernel in KERNELS:
            undo.setattr(kernels, kernel, getattr(kernels, kernel).__closure__[0].cell_contents)
        undo.setattr(_geomedian, "as_stack", model.as_stack)
        expected = life_of_a_stack(plugin(), product, days, lambda scene: scene)
    for ours, theirs in zip(found, expected, strict=True):
        assert list(ours.data_vars) == list(theirs.data_vars)
        for band, variable in theirs.data_vars.items():
            made = ours[band]
            assert isinstance(made.data, STRICT), band
            assert np.asarray(made.data).dtype == variable.dtype
            assert made.attrs.keys() == variable.attrs.keys()
            np.testing.assert_array_equal(np.asarray(made.data), variable.data, err_msg=band)


def mixed(make):
    """Bands of different types: what is read is converted."""
    flags = make.enum("fmask", {0: "nodata", 1: "valid", 2: "cloud", 3: "shadow"})
    bands = [("nbart_red", [], "uint8", 255, None), ("nbart_nir", [], "float32", None, None)]
    return make.product("mixed", [*bands, ("oa_fmask", [], "uint8", 0, flags)])


def test_the_accessor_of_cupy_xarray_is_at_hand():
    """As far as that can be seen without a device; `test_on_gpu_device.py` has the rest."""
    pytest.importorskip("cupy_xarray", reason="the CUDA wheels are not installed")
    stack = xr.Dataset({"a": (("time", "y", "x"), np.ones((2, 3, 4), "int16"))})
    assert not stack.cupy.is_cupy
    assert not stack["a"].cupy.is_cupy
    xr.testing.assert_identical(stack.cupy.as_numpy(), stack)
