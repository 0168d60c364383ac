"""Decoding masks and blanking bands."""

from __future__ import annotations

import math

import numpy as np
import pytest

from odc_stats_gpu import kernels

INTEGERS = ["uint8", "int8", "int16", "uint16", "int32", "uint32"]


@pytest.mark.parametrize("dtype", [*INTEGERS, "float32"])
def test_classes(impl, dtype):
    mask = np.arange(24).astype(dtype).reshape(2, 3, 4)
    found = impl.decode_enum(mask, [3, 8, 21, 1000000, -1, 2.5])
    assert found.dtype == np.bool_
    np.testing.assert_array_equal(found, np.isin(mask, [3, 8, 21]))
    assert not impl.decode_enum(mask, []).any()
    np.testing.assert_array_equal(
        impl.decode_enum(mask[:, ::2, 1:], {3, 8}), found[:, ::2, 1:] & (mask[:, ::2, 1:] < 9)
    )


def test_negative_and_undefined_classes(impl):
    np.testing.assert_array_equal(
        impl.decode_enum(np.array([-999, 0, 5], np.int16), [-999, 5]), [True, False, True]
    )
    floats = np.array([math.nan, 0, 5], np.float32)
    np.testing.assert_array_equal(impl.decode_enum(floats, [math.nan]), [True, False, False])
    flags = np.array([True, False])
    np.testing.assert_array_equal(impl.decode_enum(flags, [0]), [False, True])


@pytest.mark.parametrize("dtype", INTEGERS)
def test_bit_fields(impl, dtype):
    rng = np.random.default_rng(0)
    info = np.iinfo(dtype)
    mask = rng.integers(info.min, info.max, (31, 17), dtype=dtype, endpoint=True)
    bits = mask.astype(np.int64)
    found = impl.decode_flags(mask, [(1, 1, 1), (3, 2, 2), (6, 1, 0)])
    expected = (bits >> 1 & 1 == 1) | (bits >> 3 & 3 == 2) | (bits >> 6 & 1 == 0)
    assert found.dtype == np.bool_
    np.testing.assert_array_equal(found, expected)
    assert not impl.decode_flags(mask, []).any()
    top = 8 * info.dtype.itemsize - 1
    np.testing.assert_array_equal(impl.decode_flags(mask, [(top, 1, 1)]), bits >> top & 1 == 1)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ((7, 2, 1), r"bits 7\.\.8 are not in a mask of 8 bits"),
        ((-1, 1, 1), "are not in a mask"),
        ((3, 2, 4), "a field of 2 bits can't be 4"),
    ],
)
def test_fields_that_are_not_there(impl, rule, message):
    with pytest.raises(ValueError, match=message):
        impl.decode_flags(np.zeros((2, 2), np.uint8), [rule])


def test_only_integers_have_bit_fields(impl):
    with pytest.raises(ValueError, match="integer type of 8 to 32 bits, got float32"):
        impl.decode_flags(np.zeros((2, 2), np.float32), [(0, 1, 1)])


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float32"])
def test_blanking(impl, dtype):
    rng = np.random.default_rng(0)
    bands = rng.integers(1, 100, (2, 3, 20, 33)).astype(dtype)
    before = bands.copy()
    bad = rng.random((20, 33)) < 0.3
    found = impl.mask_where(bands, bad, [0, 77])
    np.testing.assert_array_equal(found[0], np.where(bad, 0, bands[0]))
    np.testing.assert_array_equal(found[1], np.where(bad, 77, bands[1]))
    np.testing.assert_array_equal(bands, before)
    np.testing.assert_array_equal(impl.mask_where(bands[0, 0], bad, 0), found[0, 0])
    each = rng.random((3, 20, 33)) < 0.3
    np.testing.assert_array_equal(impl.mask_where(bands[1], each, 0), np.where(each, 0, bands[1]))
    np.testing.assert_array_equal(impl.mask_where(bands, each, 0), np.where(each, 0, bands))


def test_blanking_in_place():
    stack = np.ones((2, 5, 20, 30), np.int16)
    bad = np.eye(10, dtype=bool)
    block = stack[:, 2, 5:15, 7:17]
    assert kernels.mask_where(block, bad, -999, out=block) is block
    assert (stack[:, 2, 5:15, 7:17][:, bad] == -999).all()
    assert (stack == -999).sum() == 20


@pytest.mark.parametrize(
    ("bad", "nodata", "message"),
    [
        (np.zeros((3, 4), bool), -1, "uint8 can't hold the nodata value -1"),
        (np.zeros((3, 4), bool), [1, 2, 3], "3 nodata values for 2 bands"),
        (np.zeros((4, 3), bool), 0, "bad must be bool"),
        (np.zeros((3, 4), np.uint8), 0, "got uint8"),
    ],
)
def test_refusals_say_what_and_why(impl, bad, nodata, message):
    with pytest.raises(ValueError, match=message):
        impl.mask_where(np.zeros((2, 3, 4), np.uint8), bad, nodata)
