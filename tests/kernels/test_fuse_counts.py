"""Merging layers of a day and counting layers of a year."""

from __future__ import annotations

import math

import numpy as np
import pytest


def test_the_first_valid_value_wins(impl):
    stack = np.array([[[-9, 1, -9, 4]], [[5, 6, -9, 8]], [[7, 7, 7, 7]]], np.int16)
    assert impl.first_valid(stack[:2], -9).tolist() == [[5, 1, -9, 4]]
    assert impl.first_valid(stack, -9).tolist() == [[5, 1, 7, 4]]
    assert impl.first_valid(stack[::-1], -9).tolist() == [[7, 7, 7, 7]]


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int16", "uint16", "float32", "float64"])
def test_every_band_for_itself(impl, dtype):
    stack = np.random.default_rng(0).integers(0, 3, (2, 4, 30, 41)).astype(dtype)
    nodata = [0, 1]
    found = impl.first_valid(stack, nodata)
    assert found.dtype == stack.dtype
    for band, value, fused in zip(stack, nodata, found, strict=True):
        valid = band != value
        first = np.take_along_axis(band, valid.argmax(axis=0)[None], axis=0)[0]
        np.testing.assert_array_equal(fused, np.where(valid.any(axis=0), first, value))
        np.testing.assert_array_equal(impl.first_valid(band, value), fused)
    block = stack[:, ::2, 3:20, 5:30]
    np.testing.assert_array_equal(
        impl.first_valid(block, nodata), impl.first_valid(block.copy(), nodata)
    )


def test_nan_is_nodata_in_floats(impl):
    nan = math.nan
    stack = np.array([[[nan, 1, nan, -1]], [[2, 3, nan, nan]]], np.float32)
    np.testing.assert_array_equal(impl.first_valid(stack, nan), [[2, 1, nan, -1]])
    np.testing.assert_array_equal(impl.first_valid(stack, -1), [[2, 1, -1, -1]])


def test_without_nodata_the_first_layer_wins(impl):
    stack = np.array([[[0, 1]], [[5, 6]]], np.uint8)
    found = impl.first_valid(stack, None)
    assert found.tolist() == [[0, 1]]
    assert not np.shares_memory(found, stack)
    assert impl.first_valid(stack[:0], None).tolist() == [[0, 0]]
    assert impl.first_valid(stack[:0], 255).tolist() == [[255, 255]]


def test_masks_are_united(impl):
    stack = np.random.default_rng(0).random((2, 4, 30, 41)) < 0.2
    for flags in (stack, stack.astype(np.uint8) * 255, stack.astype(np.int16) * 256):
        found = impl.any_true(flags)
        assert found.dtype == np.bool_
        np.testing.assert_array_equal(found, stack.any(axis=1))
        np.testing.assert_array_equal(impl.any_true(flags[1, :, ::2, 7:]), found[1, ::2, 7:])


def test_counts(impl):
    rng = np.random.default_rng(0)
    valid, cloud, land = (rng.random((300, 20, 37)) < p for p in (0.98, 0.3, 0.5))
    for kind in (np.bool_, np.uint8, np.int16):
        flags = valid.astype(kind) if kind is np.bool_ else valid.astype(kind) * 3
        total = impl.count_true(flags)
        assert total.dtype == np.uint16
        np.testing.assert_array_equal(total, valid.sum(axis=0))
        assert total.max() > 255
        np.testing.assert_array_equal(
            impl.count_true(flags, unless=cloud), (valid & ~cloud).sum(axis=0)
        )
        np.testing.assert_array_equal(impl.count_true(flags, land), (valid & land).sum(axis=0))
        np.testing.assert_array_equal(
            impl.count_true(flags, land, unless=cloud), (valid & land & ~cloud).sum(axis=0)
        )
    assert impl.count_true(valid[:0]).tolist() == np.zeros((20, 37), int).tolist()
    np.testing.assert_array_equal(
        impl.count_true(valid[::2, 1:9, ::3]), valid[::2, 1:9, ::3].sum(axis=0)
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda impl: impl.first_valid(np.zeros((3, 3)), 0), r"got shape \(3, 3\)"),
        (lambda impl: impl.any_true(np.zeros((3, 3), bool)), r"got shape \(3, 3\)"),
        (lambda impl: impl.first_valid(np.zeros((2, 1, 3, 3), "u1"), [1]), "1 nodata values for 2"),
        (lambda impl: impl.first_valid(np.zeros((1, 3, 3), "u1"), -1), "uint8 can't hold"),
        (lambda impl: impl.count_true(np.zeros((3, 3), bool)), r"must be \(time, y, x\)"),
        (lambda impl: impl.count_true(np.zeros((1, 3, 3))), "bool or integer, got float64"),
        (
            lambda impl: impl.count_true(np.zeros((2, 3, 3), bool), np.zeros((1, 3, 3), bool)),
            "must have the stack's shape",
        ),
        (lambda impl: impl.count_true(np.zeros((65536, 1, 1), bool)), "65536 layers"),
    ],
)
def test_refusals_say_what_and_why(impl, call, message):
    with pytest.raises(ValueError, match=message):
        call(impl)
