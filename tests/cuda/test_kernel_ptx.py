"""Kernels with their launches, written for whoever runs PTX elsewhere: complete, and true."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from odc_stats_gpu import kernels


def written(kernel_ptx, out, name):
    calls = dict(kernel_ptx.examples())
    (launch, *_) = kernel_ptx.record(calls[name])
    kernel_ptx.write(name, launch, (7, 5), out)
    about = json.loads((out / f"{name}.json").read_text())
    arrays = np.load(out / f"{name}.npz")
    return launch, about, arrays, (out / f"{name}.ptx").read_text()


OFTEN = ("geomad-6-int16-4-lanes", "decode_flags", "first_valid")


@pytest.mark.parametrize("name", OFTEN)
def test_a_launch_has_all_that_its_ptx_asks_for(kernel_ptx, tmp_path, name):
    launch, about, arrays, ptx = written(kernel_ptx, tmp_path, name)
    assert ".target sm_75" in ptx
    wanted = re.findall(rf"\.param [.\w ]*?{re.escape(about['entry'])}_param_\d+", ptx)
    assert len(wanted) == len(about["parameters"])
    data = [p["argument"] for p in about["parameters"] if p["is"] == "data"]
    for index in data:
        assert arrays[f"a{index}"].dtype == launch.arguments[index].dtype
    changed = [i for i in data if not np.array_equal(arrays[f"a{i}"], arrays[f"r{i}"])]
    assert changed  # something was computed
    threads = np.prod(about["block"])
    assert threads <= 1024
    assert threads % 32 == 0


def test_its_results_are_those_of_the_function(kernel_ptx, tmp_path):
    launch, _, arrays, _ = written(kernel_ptx, tmp_path, "geomad-6-int16-4-lanes")
    stack = arrays["a0"]
    want = kernels.geomad(stack, -999)
    pixels = stack.shape[2] * stack.shape[3]
    np.testing.assert_allclose(arrays["r6"], want.geomedian.reshape(6, pixels), rtol=0, atol=0.1)
    np.testing.assert_array_equal(arrays["r10"], want.count.ravel())
    assert len(launch.arguments) == 11


@pytest.mark.slow
def test_every_kernel_that_is_listed_has_an_example(kernel_ptx):
    from importlib import import_module

    launched = {
        launch.name for _, call in kernel_ptx.examples() for launch in kernel_ptx.record(call)
    }
    for room in ("warp", "masks", "morphology", "fuse", "counts"):
        for name, function, _ in import_module(f"odc_stats_gpu.kernels.{room}.cuda").KERNELS:
            if not name.startswith("nearest_onto"):  # a copy of `warp nearest` without a warp
                assert function.__name__ in launched, name
