"""Every kernel's PTX run on this CPU: results of its IR and of float64, no race."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import ptxhost
import pytest
from cudahost import runtime
from geomedian_cases import AWKWARD, NODATA, as_pixels, awkward, surface_reflectance
from hostlaunch import type_of
from truth import check_geomad

from odc_stats_gpu import kernels
from odc_stats_gpu.kernels import SimulatedDeviceArray
from odc_stats_gpu.kernels.geomedian import cuda
from odc_stats_gpu.kernels.geomedian._cuda_plan import Multiprocessors, off_chip, plan

TARGETS = ((7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0))
CHIP = Multiprocessors(count=2, shared_bytes=1 << 20, blocks=16)
SMALL = (
    "warp-nearest-int16", "warp-bilinear-int16", "warp-cubic-float32", "warp-average-int16",
    "decode_enum", "decode_flags", "mask_where", "clean_mask", "first_valid", "any_true",
    "count_true",
)  # fmt: skip

EVERY = (
    *SMALL, "warp-nearest-float32", "warp-bilinear-float32", "warp-cubic-int16",
    "warp-average-float32", "geomad-6-int16-1-lanes", "geomad-6-int16-4-lanes",
    "geomad-10-int16-8-lanes", "geomad-6-float32-4-lanes", "geomad-6-int16-32-lanes",
)  # fmt: skip


def compare(kernel_ptx, name, cc):
    """Launch an example's PTX; integers are the IR's bit for bit, floats within 1e-6 or 0.01 DN."""
    for launch in kernel_ptx.record(dict(kernel_ptx.examples(seed=5))[name]):
        given = [kernel_ptx.copied(a) for a in launch.arguments]
        types = tuple(map(type_of, given))
        run = ptxhost.compiled(launch.function, types, launch.fastmath, cc)
        run(launch.grid, launch.block, *given, shared=launch.shared)
        scratch = 5 if name.startswith("geomad") else -1
        for k, (got, want) in enumerate(zip(given, launch.results, strict=True)):
            if not isinstance(got, np.ndarray) or k == scratch:
                continue
            if got.dtype.kind == "f":
                np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
            else:
                np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("name", SMALL)
def test_results_are_those_of_the_ir(kernel_ptx, name):
    compare(kernel_ptx, name, (7, 5))


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("cc", TARGETS, ids=lambda cc: f"sm_{cc[0]}{cc[1]}")
def test_results_are_those_of_the_ir_on_every_target(kernel_ptx, name, cc):
    compare(kernel_ptx, name, cc)


def test_every_example_is_run(kernel_ptx):
    assert {name for name, _ in kernel_ptx.examples()} == set(EVERY)


@pytest.fixture
def geomad(monkeypatch):
    """geomad through PTX, by lanes per pixel and place of the observations."""

    def run(stack, nodata=NODATA, *, lanes=4, on_chip=True, cc=(9, 0), **options):
        ptxhost.use(monkeypatch, cc)

        def planned(array):
            bands, dates, height, width = array.shape
            choose = plan if on_chip else off_chip
            how = choose(bands, array.dtype.name, dates, height * width, CHIP, lanes)
            assert how.on_chip == on_chip
            return replace(how, grid=max(1, how.blocks // 2)) if how.blocks > 3 else how

        monkeypatch.setattr(cuda, "plan_for", planned)
        got = kernels.geomad(stack.view(SimulatedDeviceArray), nodata, **options)
        return type(got)(*map(np.asarray, got))

    return run


def series(kind, bands, dates):
    """A stack with ordinary pixels, and awkward ones where there are dates enough."""
    stack = surface_reflectance(dates, dates, bands, (2, 23), masked=0.3 if dates > 3 else 0.0)
    for k, name in enumerate(AWKWARD[:-1] if dates >= 40 else ()):
        x = awkward(name, k, bands)[:dates]
        stack[:, :, 1, k] = NODATA
        stack[:, : len(x), 1, k] = x.T
    if kind == "uint16":
        return np.where(stack == NODATA, 65535, np.maximum(stack, 0)).astype(np.uint16), 65535, {}
    if kind == "float32":
        return np.where(stack == NODATA, np.nan, stack * 1e-4).astype(np.float32), np.nan, UNIT
    return stack, NODATA, {}


UNIT = {"scale": 1.0, "offset": 0.0}


@pytest.mark.parametrize(("cc", "kind"), [((7, 5), "int16"), ((12, 0), "float32")])
def test_geomedian(geomad, cc, kind):
    stack, nodata, options = series(kind, 6, 40)
    check_geomad(geomad(stack, nodata, cc=cc, **options), stack, nodata, cpu=False, **options)


def test_a_sample_that_was_tried_in_vain(geomad):
    """Newton leaves the nearest sample, comes back to it, and steps past it."""
    x = [
        [2782, 985, 1553, 941, 1549, 346], [2617, 802, 1456, 1000, 1542, 427],
        [19999, 20000, 19999, 20000, 19999, 19999], [19999, 19999, 19999, 19999, 20000, 20000],
    ]  # fmt: skip
    stack = as_pixels([np.array(x)])
    check_geomad(geomad(stack, cc=(7, 5)), stack, NODATA, cpu=False)


def test_threads_in_any_order(geomad):
    """In both orders no race is seen, and the bits are the same."""
    stack, _, _ = series("int16", 6, 40)
    straight = geomad(stack, cc=(7, 5))
    runtime().ch_order(1)
    try:
        for a, b in zip(geomad(stack, cc=(7, 5)), straight, strict=True):
            np.testing.assert_array_equal(a, b)
    finally:
        runtime().ch_order(0)


@pytest.mark.slow
@pytest.mark.parametrize("dates", [1, 2, 3, 40, 150])
@pytest.mark.parametrize("kind", ["int16", "uint16", "float32"])
@pytest.mark.parametrize(
    ("bands", "lanes", "on_chip"),
    [
        (1, 2, True), (2, 1, True), (3, 16, True), (6, 1, True), (6, 4, True), (6, 32, False),
        (7, 8, True), (10, 8, True), (10, 32, False), (16, 4, True),
    ],
)  # fmt: skip
def test_geomedian_of_all_shapes(geomad, bands, lanes, on_chip, kind, dates):
    stack, nodata, options = series(kind, bands, dates)
    got = geomad(stack, nodata, lanes=lanes, on_chip=on_chip, **options)
    check_geomad(got, stack, nodata, cpu=False, **options)
