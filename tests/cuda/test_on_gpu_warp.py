"""On hardware: every resampling of every type, on images of many blocks and waves."""

from __future__ import annotations

import math

import numpy as np
import pytest

from odc_stats_gpu import kernels
from odc_stats_gpu.kernels import reference, refine

pytestmark = pytest.mark.gpu

METHODS = ("nearest", "bilinear", "cubic", "average")


def turned(x, y):
    """Ten pixels of a rotated grid, a little smaller, a little bent."""
    c, s = 0.97 * math.cos(0.1), 0.97 * math.sin(0.1)
    return 40.3 + c * x - s * y, 17.9 + s * x + c * y + 1e-6 * x * y


def coarser(x, y):
    """Down to a third, as a band of 10 m on a grid of 30 m."""
    return 3 * x - 5.25, 3 * y + 2.5


def scene(dtype, shape, seed=1):
    rng = np.random.default_rng(seed)
    top = 250 if np.dtype(dtype).itemsize == 1 else 10000
    src = rng.integers(1, top, shape).astype(dtype)
    src[:, rng.random(shape[1:]) < 0.2] = 0
    return src


@pytest.mark.parametrize("dtype", ["int16", "uint16", "uint8", "float32"])
@pytest.mark.parametrize("method", METHODS)
def test_a_block_of_a_scene(board, method, dtype):
    bands, rows = board.pick((6, 1500), (2, 70))
    src = scene(dtype, (bands, rows, rows + 7))
    lattice = refine(turned, board.pick((1400, 1411), (37, 53)))
    expected = kernels.warp(src, 0, lattice, method)
    found = board.get(kernels.warp(board.put(src), 0, lattice, method))
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found == 0, expected == 0)
    if dtype == "float32":
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=0.02)
        return
    difference = np.abs(found.astype(int) - expected.astype(int))
    assert difference.max() <= (0 if method == "nearest" else 1)
    assert (difference != 0).mean() < 2e-4


@pytest.mark.parametrize("dtype", ["int32", "float64", "bool"])
@pytest.mark.parametrize("method", METHODS)
def test_types_of_other_products(board, method, dtype):
    shape = board.pick((2, 400, 301), (1, 45, 60))
    src = scene("int16", shape).astype(dtype)
    nodata = None if dtype == "bool" else 0
    lattice = refine(turned, board.pick((350, 222), (13, 21)))
    expected = kernels.warp(src, nodata, lattice, method)
    found = board.get(kernels.warp(board.put(src), nodata, lattice, method))
    if dtype == "float64":
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-6)
    else:
        difference = np.abs(found.astype(float) - expected.astype(float))
        assert difference.max() <= 1
        assert (difference != 0).mean() < 2e-4


@pytest.mark.parametrize("method", METHODS)
def test_against_float64(board, method):
    """The reference knows nothing of fixed-point coordinates."""
    src = scene("int16", (1, *board.pick((150, 150), (50, 50))))
    lattice = refine(coarser, board.pick((45, 47), (14, 15)))
    expected = reference.warp(src, 0, lattice, method)
    found = board.get(kernels.warp(board.put(src), 0, lattice, method))
    np.testing.assert_array_equal(found == 0, expected == 0)
    assert np.abs(found.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("method", METHODS)
def test_blocks_have_the_bits_of_the_tile(board, method):
    src = scene("int16", (2, *board.pick((500, 600), (70, 60))))
    rows, cols = board.pick((400, 500), (33, 41))
    lattice = refine(turned, (rows, cols))
    device = board.put(src)
    whole = board.get(kernels.warp(device, 0, lattice, method))
    cut = rows // 3, cols // 2
    for y0, y1, x0, x1 in ((0, cut[0], 0, cols), (cut[0], rows, cut[1], cols)):
        part = board.get(kernels.warp(device, 0, lattice.window(y0, y1, x0, x1), method))
        np.testing.assert_array_equal(part, whole[:, y0:y1, x0:x1])


def test_into_a_window_of_a_stack(board):
    """As blocks are filled: a strided slice of (band, time, y, x), nothing around it touched."""
    src = scene("int16", (3, *board.pick((300, 310), (50, 60))))
    shape = board.pick((200, 210), (20, 25))
    lattice = refine(turned, shape)
    stack = board.put(np.full((3, 4, *shape), 77, np.int16))
    kernels.warp(board.put(src), 0, lattice, "bilinear", out=stack[:, 2], fill=-999)
    found = board.get(stack)
    expected = kernels.warp(src, 0, lattice, "bilinear", fill=-999)
    assert np.abs(found[:, 2].astype(int) - expected).max() <= 1
    assert (np.delete(found, 2, axis=1) == 77).all()


def test_bands_of_another_resolution(board):
    src = scene("int16", (2, *board.pick((300, 301), (17, 19))))
    rows = np.arange(-3, 2 * src.shape[1] + 5) // 2
    cols = np.arange(1, 2 * src.shape[2] + 4) // 2
    expected = kernels.nearest_onto(src, rows, cols, fill=-1)
    found = kernels.nearest_onto(board.put(src), board.put(rows), board.put(cols), fill=-1)
    np.testing.assert_array_equal(board.get(found), expected)
