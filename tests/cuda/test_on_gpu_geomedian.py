"""On hardware: geomedian, MADs and counts against CPU and float64, by any plan and any launch."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import numpy as np
import pytest
from geomedian_cases import AWKWARD, NODATA, as_pixels, awkward, surface_reflectance
from truth import check_geomad

from odc_stats_gpu import kernels
from odc_stats_gpu.kernels.geomedian.reference import objective

pytestmark = pytest.mark.gpu


def on_board(board, stack, nodata=NODATA, **options):
    return board.get(kernels.geomad(board.put(stack), nodata, **options))


def assert_same(got, want, select=np.s_[...]):
    for field, a, b in zip(want._fields, got, want, strict=True):
        np.testing.assert_array_equal(a, b[select], err_msg=field)


@contextlib.contextmanager
def planned(change):
    """Launches as `change(plan, stack)` says."""
    from odc_stats_gpu.kernels.geomedian import cuda

    usual = cuda.plan_for
    cuda.plan_for = lambda stack: change(usual(stack), stack)
    try:
        yield
    finally:
        cuda.plan_for = usual


@pytest.mark.parametrize("bands", range(1, 17))
def test_every_number_of_bands(board, bands):
    size, dates = board.pick(((9, 67), 40), ((1, 4), 9))
    stack = surface_reflectance(bands, dates, bands, size)
    usual = bands in (6, 10)
    check_geomad(on_board(board, stack), stack, NODATA, looked_at=600, cpu=usual)


@pytest.mark.parametrize(("bands", "dates"), [(6, 90), (10, 70), (10, 150), (3, 365)])
def test_a_years_stack(board, bands, dates):
    """Ordinary work, ten thousand pixels and more."""
    size, dates = board.pick(((128, 160), dates), ((1, 2), 20))
    stack = surface_reflectance(bands + dates, dates, bands, size)
    check_geomad(on_board(board, stack), stack, NODATA, looked_at=board.pick(60, 2))


@pytest.mark.parametrize("dates", [1, 2, 3, 4, 5, 31, 32, 33, 64, 100, 250, 500, 1000])
def test_any_number_of_dates(board, dates):
    size = board.pick((30, 67), (1, 2))
    dates = board.pick(dates, min(dates, 40))
    masked = 0.0 if dates < 4 else 0.45
    stack = surface_reflectance(dates, dates, 6, size, masked=masked)
    check_geomad(on_board(board, stack), stack, NODATA, looked_at=20 if dates < 500 else 5)


@pytest.mark.parametrize("bands", [6, 10])
def test_beyond_what_fits_on_chip(board, bands):
    """Then observations go through device memory, a few thousand pixels per launch."""
    from odc_stats_gpu.kernels.geomedian import cuda

    dates = board.pick(1000, 12)
    while board.real and _plan(board, cuda, bands, dates).on_chip:
        dates *= 2
    assert dates < 65536
    stack = surface_reflectance(1, dates, bands, board.pick((5, 33), (1, 3)))
    with contextlib.nullcontext() if board.real else planned(_off_chip):
        check_geomad(on_board(board, stack), stack, NODATA, looked_at=4)


def _plan(board, cuda, bands, dates):
    return cuda.plan_for(board.put(np.zeros((bands, dates, 1, 1), np.int16)))


def _off_chip(how, stack, lanes=None):
    from odc_stats_gpu.kernels.geomedian._cuda_plan import Multiprocessors, off_chip

    bands, dates, height, width = stack.shape
    chips = Multiprocessors(count=2, shared_bytes=64 << 10, blocks=16)
    kind = stack.dtype.name
    return off_chip(bands, kind, dates, height * width, chips, lanes or how.lanes)


@pytest.mark.parametrize("on_chip", [True, False])
@pytest.mark.parametrize("lanes", [1, 2, 4, 8, 16, 32])
def test_any_number_of_lanes_per_pixel(board, lanes, on_chip):
    """Each is a kernel of its own; other cards and other stacks choose other ones."""
    if board.kind == "simulator" and lanes > 1:
        pytest.skip("the simulator has no warps: one lane per pixel")
    from odc_stats_gpu.kernels.geomedian._cuda_plan import Multiprocessors, plan

    stack = surface_reflectance(lanes, board.pick(36, 8), 6, board.pick((32, 67), (1, 5)))

    def choose(how, given):
        if not on_chip:
            return _off_chip(how, given, lanes)
        bands, dates, height, width = given.shape
        chips = Multiprocessors(count=2, shared_bytes=1 << 20, blocks=32)
        return plan(bands, given.dtype.name, dates, height * width, chips, lanes)

    with planned(choose):
        check_geomad(on_board(board, stack), stack, NODATA, looked_at=board.pick(40, 3))


@pytest.mark.parametrize("bands", [6, 10])
@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_other_types_and_layouts(board, dtype, bands):
    stack = surface_reflectance(5, board.pick(24, 7), bands, board.pick((40, 50), (2, 3)))
    stack = np.where(stack == NODATA, 40000, np.maximum(stack, 0)).astype(dtype)
    got = on_board(board, stack, 40000)
    check_geomad(got, stack, 40000, looked_at=board.pick(60, 3))
    for other in (np.asfortranarray(stack), stack[:, :, ::-1].copy()[:, :, ::-1]):
        assert_same(on_board(board, other, 40000), got)


def test_reflectance_between_0_and_1(board):
    dn = surface_reflectance(6, board.pick(30, 8), 6, board.pick((40, 50), (1, 4)))
    stack = np.where(dn == NODATA, np.nan, np.maximum(dn, 1) * np.float32(1e-4)).astype("float32")
    got = on_board(board, stack, np.nan, scale=1.0, offset=0.0)
    want = kernels.geomad(stack, np.nan, scale=1.0, offset=0.0)
    np.testing.assert_array_equal(got.count, want.count)
    assert (np.abs(got.geomedian - want.geomedian) > 2e-5).mean() < 2e-3
    np.testing.assert_allclose(got.emad, want.emad, rtol=1e-3, atol=2e-6)


def test_random_numbers_of_the_whole_range(board):
    """Nothing like a scene: every int16, half of the pixels with few dates."""
    rng = np.random.default_rng(4)
    size, dates = board.pick(((64, 64), 17), ((2, 4), 6))
    stack = rng.integers(-32767, 32768, (6, dates, *size)).astype(np.int16)
    stack[:, rng.random((dates, *size)) < rng.random(size)] = -32768
    got = on_board(board, stack, -32768)
    check_geomad(got, stack, -32768, looked_at=board.pick(200, 8))


def test_nodata_of_each_band(board):
    stack = surface_reflectance(9, board.pick(20, 6), 3, board.pick((16, 40), (1, 6)))
    own = (-999, 7, -5)
    for b, value in enumerate(own):
        stack[b][stack[b] == NODATA] = value
    got, want = on_board(board, stack, own), kernels.geomad(stack, own)
    np.testing.assert_array_equal(got.count, want.count)
    np.testing.assert_allclose(got.geomedian, want.geomedian, rtol=0, atol=0.2)
    nothing = on_board(board, np.full((3, 4, 2, 5), NODATA, np.int16))
    assert not nothing.count.any()
    assert all(np.isnan(a).all() for a in nothing[:4])


@pytest.mark.parametrize("kind", AWKWARD)
def test_awkward_series_reach_the_optimum(board, kind):
    cases = [awkward(kind, seed, 6) for seed in range(board.pick(300, 2))]
    if not board.real:
        cases = [x[:12] for x in cases]
    stack = as_pixels(cases)
    got, want = on_board(board, stack), kernels.geomad(stack, NODATA)
    for j, x in enumerate(cases):
        y, m = (a.geomedian[:, 0, j].astype(np.float64) for a in (got, want))
        assert objective(x, y) <= objective(x, m) * (1 + 1e-6) + 1e-3


def mixed(board):
    """Ordinary pixels with awkward ones between them."""
    size = board.pick((48, 101), (3, 7))
    stack = surface_reflectance(11, 12, 6, size)
    rng = np.random.default_rng(2)
    for k in range(board.pick(900, 8)):
        x = awkward(AWKWARD[k % (len(AWKWARD) - 1)], k, 6)[:12]
        i, j = rng.integers(size[0]), rng.integers(size[1])
        stack[:, :, i, j] = NODATA
        stack[:, : len(x), i, j] = x.T
    return stack


def test_launch_and_window_do_not_change_a_bit(board):
    stack = mixed(board)
    whole = on_board(board, stack)
    pixels = stack.shape[2] * stack.shape[3]
    for warps in (1, 2, 4):

        def launch(how, _, warps=warps):
            assert how.on_chip
            blocks = -(-pixels // (warps * 32 // how.lanes))
            shared = how.shared_bytes // how.warps * warps
            return replace(how, warps=warps, blocks=blocks, grid=blocks, shared_bytes=shared)

        with planned(launch):
            assert_same(on_board(board, stack), whole)

    part = np.s_[..., 1:-1, 1:-2]
    assert_same(on_board(board, stack[part]), whole, part)
    for grid in (1, 3):  # off chip: blocks per launch
        with planned(lambda how, given, g=grid: replace(_off_chip(how, given), grid=g)):
            assert_same(on_board(board, stack), whole)


def test_runs_of_the_same_launch_are_equal(board):
    """A race would show sooner or later."""
    stack = mixed(board)
    device = board.put(stack)
    first = board.get(kernels.geomad(device, NODATA))
    for _ in range(board.pick(50, 1)):
        assert_same(board.get(kernels.geomad(device, NODATA)), first)


def test_masked_dates_and_their_order(board):
    stack = mixed(board)
    whole = on_board(board, stack)
    longer = np.insert(stack, [0, 5, 5, 12], NODATA, axis=1)
    longer[1:, 0] = 5  # one band missing is enough
    got = on_board(board, longer)
    np.testing.assert_array_equal(got.count, whole.count)
    np.testing.assert_allclose(got.emad, whole.emad, rtol=1e-3, atol=1e-2)
    order = np.random.default_rng(0).permutation(12)
    check_geomad(on_board(board, stack[:, order]), stack[:, order], NODATA, looked_at=0)
