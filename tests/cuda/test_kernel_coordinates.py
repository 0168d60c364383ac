"""Fixed-point coordinates choose the pixels that float64 chooses."""

from __future__ import annotations

import math

import hostlaunch
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from odc_stats_gpu import kernels
from odc_stats_gpu.kernels import Lattice, SimulatedDeviceArray, refine
from odc_stats_gpu.kernels.warp._coordinates import coordinates
from odc_stats_gpu.kernels.warp._cuda_cells import cells


@pytest.fixture(autouse=True)
def _on_host(monkeypatch):
    hostlaunch.use(monkeypatch)


def same(src, lattice, method, nodata=-999, within=0):
    expected = kernels.warp(src, nodata, lattice, method)
    found = np.asarray(kernels.warp(src.view(SimulatedDeviceArray), nodata, lattice, method))
    np.testing.assert_array_equal(found == nodata, expected == nodata)
    assert np.abs(found.astype(int) - expected).max(initial=0) <= within
    return expected


@pytest.mark.parametrize("shift", [0.5, 1.5, 0.25, 1 / 3, 0.1])
@pytest.mark.parametrize("scale", [1.0, 2.0, 0.5, 10 / 30, 25 / 30])
def test_grids_of_one_crs(shift, scale):
    """Centres on edges and corners of source pixels, by the million in real archives."""
    src = np.arange(60 * 70, dtype=np.int16).reshape(60, 70)
    src[::7, ::5] = -999
    lattice = refine(lambda x, y: (shift + scale * x, scale * y - shift + 2), (50, 61))
    # with weights like 0.3, which no binary number is, a value half-way between two may go either
    # way: on the CPU by the rounding of doubles
    binary = all(math.frexp(v)[0] in {0.5, 0.75} for v in (shift, scale))
    assert (same(src, lattice, "nearest") != -999).mean() > 0.3
    for method in ("bilinear", "cubic", "average"):
        same(src, lattice, method, within=0 if binary else 1)


@given(
    step=st.sampled_from([1, 2, 3, 5, 7, 12, 32, 100]),
    origin=st.sampled_from([(0, 0), (-3, 5), (40000, 1000000)]),
    angle=st.floats(0, 6.28),
    scale=st.floats(0.05, 30),
    window=st.tuples(st.integers(0, 30), st.integers(0, 30)),
)
@settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
def test_any_lattice(step, origin, angle, scale, window):
    c, s = scale * math.cos(angle), scale * math.sin(angle)

    def transform(x, y):
        x, y = x - 20, y - 20
        return 25 + origin[1] + c * x - s * y, 20 + origin[0] + s * x + c * y + 1e-4 * x * y

    tile = refine(transform, (40, 41), step, tolerance=math.inf)
    lattice = tile.window(window[0], 40, window[1], 41, *origin)
    src = np.random.default_rng(1).integers(0, 3000, (45, 50)).astype(np.int16)
    same(src, lattice, "nearest")
    same(src, lattice, "bilinear", within=1)


@pytest.mark.parametrize("step", [1, 3, 8, 32])
@pytest.mark.parametrize("half", [-1, 0, 1])
def test_coordinates_are_good_to_1e_11_pixels(step, half):
    def bent(x, y):
        return 8000 + 1.01 * x - 0.02 * y + 1e-5 * x * y, 5000 + 0.03 * x + 0.98 * y

    lattice = refine(bent, (70, 90), step, tolerance=math.inf).window(13, 60, 17, 81, 4990, 7990)
    made = cells(lattice)
    expected = coordinates(lattice, half=half)
    q = 2 * (lattice.phase[0] + np.arange(47)) + half
    p = 2 * (lattice.phase[1] + np.arange(64)) + half
    i = np.clip(q // (2 * step), 0, made.terms.shape[0] - 1)
    j = np.clip(p // (2 * step), 0, made.terms.shape[1] - 1)
    v, u = (q - i * 2 * step)[:, None], (p - j * 2 * step)[None]
    for axis, origin in ((0, 7990), (1, 4990)):
        n, a, b, c = np.moveaxis(made.terms[i][:, j], -1, 0)[4 * axis : 4 * axis + 4]
        fixed = n + ((a * v + b * u + ((c * v) >> made.guard) * u) >> made.guard)
        error = fixed / 2.0**made.bits - (expected[axis] - origin)
        assert np.abs(error).max() < 1e-11


@pytest.mark.parametrize("step", [257, 512, 9600, 100_000])
def test_one_cell_for_the_whole_tile(step):
    """What an affine transform allows."""

    def affine(x, y):
        return 0.61 * x + 0.2 * y + 0.77, -0.11 * x + 0.83 * y + 3.3

    far = np.array([[0.5, step + 0.5]] * 2)
    x, y = affine(far, far.T)
    src = np.random.default_rng(1).integers(0, 3000, (60, 70)).astype(np.int16)
    one = Lattice(x=x, y=y, step=step, shape=(50, 60))
    expected = same(src, one, "nearest")
    np.testing.assert_array_equal(expected, same(src, refine(affine, (50, 60)), "nearest"))
    same(src, one, "bilinear", within=1)


def test_a_neighbour_at_infinity_or_nowhere():
    """As on the CPU: nothing where a node of the cell is unknown, else the node's own pixel."""
    x = np.array([[0.6, 1.7, 1e30, 2.4, math.nan, 1.2, math.inf, 0.3, 0.4]] * 2)
    lattice = Lattice(x=x, y=np.full_like(x, 0.5), step=1, shape=(1, 9))
    src = np.array([[10, 20, 30]], np.int16)
    expected = same(src, lattice, "nearest")
    assert expected.tolist() == [[10, 20, -999, -999, -999, -999, -999, 10, 10]]
    same(src, lattice, "bilinear")


def test_a_box_of_a_million_pixels_has_its_mean():
    src = np.random.default_rng(1).integers(0, 65535, (1500, 1400)).astype(np.uint16)
    lattice = refine(lambda x, y: (700 * x, 750 * y), (2, 2))
    found = kernels.warp(src.view(SimulatedDeviceArray), None, lattice, "average")
    expected = src.reshape(2, 750, 2, 700).mean(axis=(1, 3))
    assert np.abs(np.asarray(found) - expected).max() <= 0.501
