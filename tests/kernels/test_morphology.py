"""Mask cleaning against exact distance transforms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt

from odc_stats_gpu import kernels
from odc_stats_gpu.kernels import mask_margin

OPS = [
    [("dilation", 1)],
    [("dilation", 6)],
    [("erosion", 3)],
    [("opening", 2)],
    [("closing", 4)],
    [("opening", 3), ("dilation", 6)],
    [("closing", 2), ("erosion", 1.5), ("dilation", 2.9)],
    [("dilation", 2), ("closing", 3), ("opening", 5), ("closing", 1)],
    [("opening", 0), ("dilation", 0.9)],
    [],
]


def by_distance(mask, ops):
    """Distances from what is set, on a canvas that is empty and wide around the mask."""
    pad = 2 + sum(int(np.ceil(radius)) for _, radius in ops)
    work = np.pad(mask, pad)

    def dilate(m, radius):
        return (distance_transform_edt(~m) <= radius) if m.any() else m

    def erode(m, radius):
        return distance_transform_edt(m) > radius if not m.all() else m

    steps = {
        "dilation": [dilate],
        "erosion": [erode],
        "opening": [erode, dilate],
        "closing": [dilate, erode],
    }
    for name, radius in ops:
        for step in steps[name]:
            work = step(work, radius)
    return work[pad:-pad, pad:-pad]


def blobs(shape=(70, 90), density=0.04, seed=0):
    """Discs, bars, single pixels; some on the edges."""
    rng = np.random.default_rng(seed)
    mask = rng.random(shape) < density
    mask[:9, 20:45] = True
    mask[30:52, 60:] = True
    mask[40:44, 5:50] = True
    mask[-1, :12] = True
    return mask


@pytest.mark.parametrize("ops", OPS, ids=str)
@pytest.mark.parametrize("invert", [False, True])
def test_equals_the_exact_distance_transform(impl, ops, invert):
    mask = blobs() ^ invert
    np.testing.assert_array_equal(impl.clean_mask(mask, ops), by_distance(mask, ops))


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["opening", "closing", "dilation", "erosion"]),
            st.floats(0, 7) | st.integers(0, 7),
        ),
        max_size=4,
    ),
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from([0.0, 0.02, 0.5, 0.97, 1.0]),
)
def test_any_chain_on_any_mask(ops, rows, cols, density):
    mask = np.random.default_rng(rows * 41 + cols).random((rows, cols)) < density
    expected = by_distance(mask, ops)
    np.testing.assert_array_equal(kernels.clean_mask(mask, ops), expected)


@pytest.mark.parametrize(
    ("radius", "pixels"), [(0, 1), (1, 5), (1.5, 9), (2, 13), (3, 29), (5, 81)]
)
def test_disks(impl, radius, pixels):
    mask = np.zeros((15, 15), bool)
    mask[7, 7] = True
    assert impl.clean_mask(mask, [("dilation", radius)]).sum() == pixels


def test_a_disk_wider_than_the_image_and_than_a_byte():
    mask = np.zeros((3, 400), bool)
    mask[1, 0] = True
    found = kernels.clean_mask(mask, [("dilation", 300)])
    assert found.sum(axis=1).tolist() == [300, 301, 300]
    assert not kernels.clean_mask(~np.zeros((9, 9), bool), [("erosion", 300)]).any()


def test_outside_is_not_set(impl):
    full = np.ones((60, 60), bool)
    assert impl.clean_mask(full, [("erosion", 2)]).sum() == 56 * 56
    assert impl.clean_mask(full, [("opening", 2)]).sum() == 3588  # corners are rounded
    assert impl.clean_mask(full, [("closing", 2)]).all()


def test_an_empty_mask_stays_empty(impl):
    empty = np.zeros((12, 12), bool)
    for ops in OPS:
        assert not impl.clean_mask(empty, ops).any()
    assert impl.clean_mask(np.zeros((0, 12), bool), OPS[5]).shape == (0, 12)


def test_masks_in_a_stack_are_cleaned_one_by_one_and_left_as_they_are(impl):
    masks = np.stack([blobs(seed=1), ~blobs(seed=2), np.zeros((70, 90), bool)])
    before = masks.copy()
    for ops in (OPS[5], []):
        found = impl.clean_mask(masks, ops)
        assert found.dtype == np.bool_
        assert not np.shares_memory(found, masks)
        for one, mask in zip(found, masks, strict=True):
            np.testing.assert_array_equal(one, impl.clean_mask(mask, ops))
    np.testing.assert_array_equal(masks, before)


def test_a_mask_that_is_a_slice_of_something(impl):
    mask = blobs((80, 200))[::2, 5:190:3]
    np.testing.assert_array_equal(
        impl.clean_mask(mask, OPS[5]), impl.clean_mask(mask.copy(), OPS[5])
    )


@pytest.mark.parametrize("ops", OPS[:8], ids=str)
def test_windows_with_the_margin_give_the_whole(ops):
    mask = blobs((80, 90), 0.3)
    whole = kernels.clean_mask(mask, ops)
    margin = mask_margin(ops)
    for y0, y1, x0, x1 in ((0, 30, 0, 40), (30, 55, 40, 90), (55, 80, 17, 60)):
        top, left = max(y0 - margin, 0), max(x0 - margin, 0)
        window = mask[top : y1 + margin, left : x1 + margin]
        found = kernels.clean_mask(window, ops)
        np.testing.assert_array_equal(
            found[y0 - top : y1 - top, x0 - left : x1 - left], whole[y0:y1, x0:x1]
        )


def test_margin_counts_both_halves_of_an_opening():
    assert mask_margin([("opening", 3), ("dilation", 6)]) == 12
    assert mask_margin([("closing", 2.5), ("erosion", 0.5), ("opening", 0)]) == 4
    assert mask_margin([]) == 0


@pytest.mark.parametrize(
    ("ops", "message"),
    [
        ([("blur", 3)], "'blur': use one of opening, closing, dilation, erosion"),
        ([("opening", -1)], "radius of opening must be a number of pixels >= 0, got -1"),
        ([("opening", float("nan"))], "got nan"),
        ([("opening", "3")], "got '3'"),
    ],
)
def test_refusals_say_what_and_why(impl, ops, message):
    with pytest.raises(ValueError, match=message):
        impl.clean_mask(blobs(), ops)
    with pytest.raises(ValueError, match=message):
        mask_margin(ops)


def test_only_masks_are_cleaned(impl):
    with pytest.raises(ValueError, match="must be bool, got uint8"):
        impl.clean_mask(np.zeros((3, 3), np.uint8), OPS[0])
    with pytest.raises(ValueError, match=r"must be \(y, x\) or \(n, y, x\)"):
        impl.clean_mask(np.zeros(3, bool), OPS[0])
