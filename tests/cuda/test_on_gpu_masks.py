"""On hardware: masks, morphology, fusing and counts give the CPU's bits."""

from __future__ import annotations

import numpy as np
import pytest

from odc_stats_gpu import kernels

pytestmark = pytest.mark.gpu


def classes(board, dtype="uint8", layers=7):
    rng = np.random.default_rng(2)
    size = board.pick((1200, 1111), (33, 70))
    return rng.integers(0, 5, (board.pick(layers, 2), *size)).astype(dtype)


def same(board, call, *arrays):
    found = board.get(call(*map(board.put, arrays)))
    expected = call(*arrays)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32"])
def test_classes(board, dtype):
    mask = classes(board, dtype)
    same(board, lambda a: kernels.decode_enum(a, [2, 3]), mask)
    same(board, lambda a: kernels.decode_enum(a, range(40)), mask)  # more than a register holds
    same(board, lambda a: kernels.decode_enum(a, []), mask)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "uint32"])
def test_bit_flags(board, dtype):
    rng = np.random.default_rng(3)
    top = np.iinfo(dtype).max
    mask = rng.integers(0, top, board.pick((3, 999, 1001), (2, 20, 33)), dtype=dtype, endpoint=True)
    same(board, lambda a: kernels.decode_flags(a, [(0, 2, 3)]), mask)
    same(board, lambda a: kernels.decode_flags(a, [(3, 1, 1), (5, 2, 2), (7, 1, 0)]), mask)


@pytest.mark.parametrize(
    "ops",
    [
        [("opening", 2), ("dilation", 5)],
        [("opening", 3), ("dilation", 6)],
        [("closing", 4), ("erosion", 1.5)],
        [("dilation", 40)],  # more than one strip of a block
    ],
)
@pytest.mark.parametrize("share", [0.001, 0.3, 0.9])
def test_morphology(board, ops, share):
    shape = board.pick((3, 1100, 1301), (1, 34, 67))
    same(
        board, lambda a: kernels.clean_mask(a, ops), np.random.default_rng(5).random(shape) < share
    )


def test_morphology_of_nothing_and_of_all(board):
    shape = board.pick((777, 130), (20, 40))
    ops = [("opening", 2), ("dilation", 5), ("closing", 3)]
    for value in (False, True):
        same(board, lambda a: kernels.clean_mask(a, ops), np.full(shape, value))


@pytest.mark.parametrize("dtype", ["int16", "uint16", "float32"])
def test_the_scenes_of_a_day(board, dtype):
    rng = np.random.default_rng(6)
    stack = rng.integers(0, 9000, board.pick((4, 5, 700, 701), (2, 3, 9, 40))).astype(dtype)
    stack[rng.random(stack.shape) < 0.5] = 0
    same(board, lambda a: kernels.first_valid(a, 0), stack)
    same(board, lambda a: kernels.first_valid(a, list(range(stack.shape[0]))), stack)
    same(board, lambda a: kernels.first_valid(a, None), stack)
    same(board, kernels.any_true, stack[0] > 8000)


def test_nodata_where_masked(board):
    rng = np.random.default_rng(7)
    bands = rng.integers(0, 9000, board.pick((6, 800, 801), (2, 20, 37))).astype(np.int16)
    bad = rng.random(bands.shape[1:]) < 0.4
    nodata = list(range(-1, -1 - len(bands), -1))
    same(board, lambda a, b: kernels.mask_where(a, b, nodata), bands, bad)
    device = board.put(bands.copy())
    kernels.mask_where(device, board.put(bad), -999, out=device)
    np.testing.assert_array_equal(board.get(device), kernels.mask_where(bands, bad, -999))


def test_counts_beyond_a_byte(board):
    rng = np.random.default_rng(8)
    stack = rng.random(board.pick((700, 200, 222), (300, 2, 19))) < 0.7
    other = rng.random(stack.shape) < 0.5
    same(board, kernels.count_true, stack)
    same(board, kernels.count_true, stack, other)
    same(board, lambda a, b: kernels.count_true(a, unless=b), stack, other)


def test_views_with_any_strides(board):
    mask = classes(board)
    device = board.put(mask)
    for view in (np.s_[:, ::-1, ::2], np.s_[:, 3:, 5:-1]):
        expected = kernels.decode_enum(mask[view], [1])
        np.testing.assert_array_equal(board.get(kernels.decode_enum(device[view], [1])), expected)
        expected = kernels.clean_mask(mask[view] == 2, [("dilation", 3)])
        found = kernels.clean_mask(device[view] == 2, [("dilation", 3)])
        np.testing.assert_array_equal(board.get(found), expected)
