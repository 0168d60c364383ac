"""The kernels' own IR on arrays inside of guarded memory: nothing else is read or written."""

from __future__ import annotations

import math

import hostlaunch
import numpy as np
import pytest

from odc_stats_gpu import kernels
from odc_stats_gpu.kernels import SimulatedDeviceArray, refine

ODD = [(1, 1), (7, 33), (31, 65), (40, 129)]


@pytest.fixture(autouse=True)
def _on_host(monkeypatch):
    hostlaunch.use(monkeypatch)


class Guarded:
    """An array in the middle of a larger one that is filled with a value that must not matter."""

    def __init__(self, array, guard, *, step=1):
        margin = 3 * step
        shape = tuple(n * step + 2 * margin for n in array.shape)
        self.whole = np.full(shape, guard, array.dtype)
        self.inside = tuple(slice(margin, margin + n * step, step) for n in array.shape)
        self.guard = guard
        self.whole[self.inside] = array

    @property
    def array(self):
        return self.whole.view(SimulatedDeviceArray)[self.inside]

    def untouched(self):
        outside = np.ones(self.whole.shape, bool)
        outside[self.inside] = False
        return (self.whole[outside] == self.guard).all()


def both(function, arrays, guards, *, step=1):
    """A function on guarded device arrays and on NumPy arrays; guards stay, whatever they are."""
    expected = function(*arrays)
    for guard in guards:
        given = [Guarded(a, np.asarray(guard).astype(a.dtype)[()], step=step) for a in arrays]
        found = function(*(g.array for g in given))
        assert type(found) is SimulatedDeviceArray
        np.testing.assert_array_equal(np.asarray(found), expected)
        assert all(g.untouched() for g in given)


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("shape", ODD, ids=str)
def test_masks_fusing_and_counts(shape, step):
    rng = np.random.default_rng(1)
    stack = rng.integers(-1, 4, (5, *shape)).astype(np.int16)
    flags = stack.astype(np.uint8)
    both(lambda a: kernels.decode_enum(a, [1, 3]), [flags], [1, 2], step=step)
    both(lambda a: kernels.decode_flags(a, [(0, 1, 1)]), [flags], [0, 1], step=step)
    both(lambda a: kernels.first_valid(a, -1), [stack], [-1, 3], step=step)
    both(kernels.any_true, [stack], [0, 1], step=step)
    both(
        lambda a, b, c: kernels.count_true(a, b, unless=c),
        [flags, flags[::-1].copy(), flags == 2],
        [0, 1],
        step=step,
    )
    both(lambda a, b: kernels.mask_where(a, b, -9), [stack, flags[0] == 1], [0, 1], step=step)


@pytest.mark.parametrize("ops", [[("dilation", 3)], [("closing", 2), ("erosion", 1)]], ids=str)
@pytest.mark.parametrize("shape", ODD, ids=str)
def test_morphology(shape, ops):
    mask = np.random.default_rng(2).random((2, *shape)) < 0.2
    both(lambda a: kernels.clean_mask(a, ops), [mask], [False, True], step=2)


def test_a_disk_wider_than_a_strip_of_shared_memory():
    mask = np.zeros((70, 300), bool)
    mask[35, 150], mask[3, 290] = True, True
    for ops in ([("dilation", 61)], [("dilation", 140)], [("erosion", 300)]):
        given = mask if ops[0][0] == "dilation" else ~mask
        both(lambda a, ops=ops: kernels.clean_mask(a, ops), [given], [False, True])


def tilted(x, y):
    """No round numbers: a value half-way between two integers may be rounded either way."""
    c, s = 0.91 * math.cos(0.37), 0.87 * math.sin(0.37)
    return 1.3 + math.sqrt(2) + c * x - s * y, -math.pi + s * x + c * y + 1e-5 * x * y


@pytest.mark.parametrize("method", ["nearest", "bilinear", "cubic", "average"])
@pytest.mark.parametrize("shape", ODD, ids=str)
def test_warp(shape, method):
    src = np.random.default_rng(3).integers(0, 3000, (2, *shape)).astype(np.int16)
    src[src < 200] = -999
    lattice = refine(tilted, (37, 43))
    both(lambda a: kernels.warp(a, -999, lattice, method), [src], [-999, 32000], step=2)


@pytest.mark.parametrize("method", ["nearest", "bilinear", "cubic", "average"])
def test_warp_into_a_part_of_a_stack(method):
    src = np.random.default_rng(3).integers(0, 3000, (2, 30, 40)).astype(np.int16)
    lattice = refine(tilted, (19, 35))
    expected = kernels.warp(src, 0, lattice, method)
    stack = np.full((2, 3, 25, 45), 7, np.int16)
    out = stack.view(SimulatedDeviceArray)[:, 1, 4:23, 3:38]
    assert kernels.warp(src.view(SimulatedDeviceArray), 0, lattice, method, out=out) is out
    np.testing.assert_array_equal(stack[:, 1, 4:23, 3:38], expected)
    stack[:, 1, 4:23, 3:38] = 7
    assert (stack == 7).all()


def test_blanking_in_place_and_with_leading_axes():
    rng = np.random.default_rng(0)
    bands = rng.integers(1, 100, (2, 3, 2, 9, 11)).astype(np.uint16)
    for axes in range(4):
        bad = rng.random(bands.shape[3 - axes :]) < 0.3
        expected = kernels.mask_where(bands, bad, [0, 65535])
        device = bands.copy().view(SimulatedDeviceArray)
        found = kernels.mask_where(device, bad.view(SimulatedDeviceArray), [0, 65535], out=device)
        assert found is device
        np.testing.assert_array_equal(np.asarray(device), expected)


def test_large_planes_of_16_bit_pixels():
    """Many blocks of threads; weights of 30 bits round as float64 does but for a few pixels."""
    rng = np.random.default_rng(5)
    src = rng.integers(0, 65535, (2, 300, 310)).astype(np.uint16)
    src[rng.random(src.shape) < 0.1] = 0
    lattice = refine(tilted, (290, 333))
    device = src.view(SimulatedDeviceArray)
    for method in ("nearest", "bilinear", "cubic", "average"):
        expected = kernels.warp(src, 0, lattice, method).astype(int)
        found = np.asarray(kernels.warp(device, 0, lattice, method)).astype(int)
        np.testing.assert_array_equal(found == 0, expected == 0)
        different = np.abs(found - expected)
        assert different.max() <= 1
        assert (different > 0).mean() < (2e-4 if method == "cubic" else 2e-5)


@pytest.mark.parametrize("method", ["bilinear", "cubic", "average"])
def test_floats_are_within_their_own_precision(method):
    rng = np.random.default_rng(6)
    src = rng.random((90, 95), np.float32)
    src[rng.random(src.shape) < 0.1] = math.nan
    lattice = refine(tilted, (88, 91))
    expected = kernels.warp(src, math.nan, lattice, method)
    found = np.asarray(kernels.warp(src.view(SimulatedDeviceArray), math.nan, lattice, method))
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    assert np.nanmax(np.abs(found - expected)) < 5e-7
