"""What the warp promises beside agreeing with GDAL: the lattice, nodata, blocks, threads, types."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from odc_stats_gpu import kernels
from odc_stats_gpu.kernels import Lattice, reference, refine

METHODS = ("nearest", "bilinear", "cubic", "average")


def swirl(x, y):
    """Turned by 20 degrees, 0.9 of the size, slightly bent, partly outside of 70 x 80 pixels."""
    c, s = 0.9 * math.cos(0.35), 0.9 * math.sin(0.35)
    return 12 + c * x - s * y + 2e-5 * x * y, -9 + s * x + c * y - 1e-5 * x * x


def speckled(dtype, nodata, shape=(3, 70, 80)):
    rng = np.random.default_rng(3)
    src = rng.integers(0, 100, shape).astype(dtype)
    src[rng.random(shape) < 0.1] = nodata
    return src


def at(*points):
    """A lattice with these (x, y) as the points of one row of pixels."""
    x, y = np.array(points, float).T
    x, y = np.append(x, x[-1]), np.append(y, y[-1])
    return Lattice(x=np.stack([x, x]), y=np.stack([y, y]), step=1, shape=(1, len(points)))


@pytest.mark.parametrize(
    ("dtype", "nodata", "method"),
    [
        *(("int16", -999, method) for method in METHODS),
        *(("float32", math.nan, method) for method in METHODS),
        ("uint8", 255, "bilinear"),
        ("int32", 0, "bilinear"),
    ],
)
def test_compiled_warp_equals_the_reference_to_the_bit(dtype, nodata, method):
    src = speckled(dtype, nodata)
    lattice = refine(swirl, (60, 75))
    found = kernels.warp(src, nodata, lattice, method)
    expected = reference.warp(src, nodata, lattice, method)
    if dtype == "float32":  # sums in another order
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    else:
        np.testing.assert_array_equal(found, expected)
    missing = np.isnan(found) if dtype == "float32" else found == nodata
    assert 0.05 < missing.mean() < 0.9


@pytest.mark.parametrize(
    ("dtype", "method"),
    [
        ("bool", "bilinear"),
        ("uint16", "bilinear"),
        ("float64", "bilinear"),
        ("int8", "nearest"),
        ("int32", "nearest"),
        ("uint32", "nearest"),
    ],
)
def test_all_pixel_types(impl, dtype, method):
    src = np.array([[0, 1], [1, 1]]).astype(dtype)
    result = impl.warp(src, None, at((0.5, 0.5), (1.5, 0.5), (9, 9)), method)
    assert result.dtype == src.dtype
    assert result.tolist() == [[0, 1, 0]]


@pytest.mark.parametrize("method", METHODS)
def test_blocks_give_the_bits_of_the_whole_tile(impl, method):
    """Every block reads its own window of the source, as ingest does."""
    src = speckled("int16", -999, (70, 80))
    tile = refine(swirl, (61, 53))
    assert 1 < tile.step < 32
    whole = impl.warp(src, -999, tile, method)
    for rows, cols in ((17, 11), (1, 53), (32, 30)):
        pieced = np.full_like(whole, 7)
        for y0 in range(0, 61, rows):
            for x0 in range(0, 53, cols):
                y1, x1 = min(y0 + rows, 61), min(x0 + cols, 53)
                block = tile.window(y0, y1, x0, x1)
                low_y, high_y, low_x, high_x = block.source_bounds()
                r0, c0 = (max(math.floor(low) - 3, 0) for low in (low_y, low_x))
                window = src[r0 : max(math.ceil(high_y) + 3, 0), c0 : max(math.ceil(high_x) + 3, 0)]
                block = tile.window(y0, y1, x0, x1, r0, c0)
                pieced[y0:y1, x0:x1] = impl.warp(window, -999, block, method)
        np.testing.assert_array_equal(pieced, whole)


def test_a_window_of_a_window_is_that_window():
    src = speckled("float32", math.nan)
    tile = refine(swirl, (61, 53))
    once = kernels.warp(src, math.nan, tile.window(13, 40, 9, 30), "cubic")
    twice = kernels.warp(src, math.nan, tile.window(5, 50, 3, 53).window(8, 35, 6, 27), "cubic")
    np.testing.assert_array_equal(once, twice)


def test_bands_given_together_equal_bands_alone(impl):
    src = speckled("int16", -999)
    lattice = refine(swirl, (30, 40))
    together = impl.warp(src, -999, lattice, "bilinear")
    for band, alone in zip(together, src, strict=True):
        np.testing.assert_array_equal(band, impl.warp(alone, -999, lattice, "bilinear"))


def test_writes_into_a_plane_of_a_stack(impl):
    """`out` may have any strides: blocks of a tile are written where they belong."""
    src = speckled("int16", -999)
    lattice = refine(swirl, (30, 40))
    stack = np.full((3, 5, 50, 60), -7, np.int16)
    expected = impl.warp(src, -999, lattice, "bilinear")
    kernels.warp(src, -999, lattice, "bilinear", out=stack[:, 2, 10:40, 5:45])
    np.testing.assert_array_equal(stack[:, 2, 10:40, 5:45], expected)
    assert (stack == -7).sum() == stack.size - expected.size


class TestNodata:
    SRC = np.array(
        [[10, 20, 30, 40], [50, -9, 70, 80], [90, 10, 20, 30], [40, 50, 60, 70]], np.int16
    )

    def test_missing_taps_drop_out_and_the_rest_weighs_more(self, impl):
        # the corner of 10, 20, 50 and the missing pixel, a bit towards 20
        result = impl.warp(self.SRC, -9, at((1.1, 0.9)), "bilinear")
        weights = np.array([0.4 * 0.6, 0.6 * 0.6, 0.4 * 0.4])
        assert result[0, 0] == round(weights @ [10, 20, 50] / weights.sum())

    def test_a_point_in_a_missing_pixel_is_missing(self, impl):
        for method in ("nearest", "bilinear", "cubic"):
            points = at((1.01, 1.01), (1.99, 1.99), (1.5, 1.5))
            assert (impl.warp(self.SRC, -9, points, method) == -9).all()

    def test_cubic_with_a_missing_tap_is_bilinear(self, impl):
        points = at((2.2, 2.3), (1.7, 2.4))
        np.testing.assert_array_equal(
            impl.warp(self.SRC, -9, points, "cubic"), impl.warp(self.SRC, -9, points, "bilinear")
        )
        assert (
            impl.warp(self.SRC, None, points, "cubic")[0, 0]
            != impl.warp(self.SRC, None, points, "bilinear")[0, 0]
        )

    def test_outside_is_nodata_or_fill_or_zero(self, impl):
        points = at(
            (-0.01, 1), (1, -0.01), (4.01, 1), (1, 4.01), (math.nan, 1), (1, math.inf), (1e30, 1)
        )
        for method in METHODS[:3]:
            assert (impl.warp(self.SRC, -9, points, method) == -9).all()
            assert (impl.warp(self.SRC, -9, points, method, fill=3) == 3).all()
            assert (impl.warp(self.SRC, None, points, method) == 0).all()

    def test_centres_on_the_edge_of_the_source(self, impl):
        points = at((0, 0.5), (4, 0.5))
        assert impl.warp(self.SRC, None, points, "nearest", fill=-1).tolist() == [[10, -1]]

    @pytest.mark.parametrize(
        ("dtype", "nodata", "around", "expected"),
        [("int16", 0, (-1, 1), -1), ("uint8", 0, (0, 0), 0), ("uint16", 50, (49, 51), 49),
         ("int16", -32768, (-32768, -32767), -32767)],
    )  # fmt: skip
    def test_a_mean_never_becomes_nodata(self, impl, dtype, nodata, around, expected):
        """As GDAL does: one less, or one more where the type ends."""
        src = np.array([around], dtype)
        assert impl.warp(src, nodata, at((1.0, 0.5)), "bilinear")[0, 0] == expected

    def test_half_rounds_up(self, impl):
        src = np.array([[1, 2, -1, -2]], np.int16)
        assert impl.warp(src, None, at((1, 0.5), (3, 0.5)), "bilinear").tolist() == [[2, -1]]

    def test_cubic_overshoot_is_clamped(self, impl):
        src = np.zeros((4, 4), np.uint8)
        src[:, 2:] = 255
        found = impl.warp(src, None, at((1.4, 2), (2.8, 2)), "cubic")
        assert found.tolist() == [[0, 255]]

    def test_nan_is_missing_only_where_there_is_nodata(self, impl):
        src = np.array([[1, math.nan]], np.float32)
        points = at((0.9, 0.5), (1.2, 0.5))
        np.testing.assert_array_equal(impl.warp(src, -1, points, "bilinear"), [[1, -1]])
        assert np.isnan(impl.warp(src, None, points, "bilinear")).all()

    def test_a_flag_needs_more_than_half(self, impl):
        src = np.array([[True, False]])
        points = at((0.9, 0.5), (1.0, 0.5), (1.1, 0.5))
        assert impl.warp(src, None, points, "bilinear").tolist() == [[True, False, False]]

    def test_average_of_what_is_there(self, impl):
        double = refine(lambda x, y: (2 * x, 2 * y), (2, 3))
        found = impl.warp(self.SRC, -9, double, "average")
        assert found.tolist() == [[27, 55, -9], [48, 45, -9]]


class TestLattice:
    @pytest.mark.parametrize(
        "transform",
        [swirl, lambda x, y: (x + 1e-5 * (x * x - y * y), y - 2e-5 * x * y)],
        ids=["bent", "conformal"],
    )
    def test_no_pixel_is_off_by_more_than_the_tolerance(self, transform):
        """The second one is harmonic: its error cancels in the middle of cells, not on edges."""
        shape = (100, 117)
        coarse, fine = refine(transform, shape, tolerance=1e-3), refine(transform, shape, 1)
        assert coarse.step > 1
        ramp = np.add.outer(1000.0 * np.arange(150), np.arange(150.0))
        assert coarse.shape == fine.shape == shape
        rows, cols = np.mgrid[:100, :117] + 0.5
        exact_x, exact_y = transform(cols, rows)
        inside = (exact_x > 1) & (exact_x < 149) & (exact_y > 1) & (exact_y < 149)
        errors = []
        for axis, exact in ((ramp % 1000, exact_x), (ramp // 1000, exact_y)):
            found = kernels.warp(axis, None, coarse, "bilinear") + 0.5
            errors.append(np.abs(found - exact)[inside].max())
        assert 1e-5 < max(errors) <= 1e-3

    def test_affine_transforms_keep_the_first_step(self):
        lattice = refine(lambda x, y: (2.5 * x + 7, -y), (100, 33))
        assert lattice.step == 32
        assert lattice.x.shape == (5, 3)
        assert lattice.x[0, 0] == 2.5 * 0.5 + 7
        assert lattice.y[1, 0] == -32.5

    def test_points_without_a_source_are_missing(self, impl):
        def half_known(x, y):
            return np.where(x < 20, x, np.nan), y

        found = impl.warp(
            np.full((40, 40), 5, np.int16), -1, refine(half_known, (40, 40)), "bilinear"
        )
        assert (found[:, :19] == 5).all()
        assert (found[:, 20:] == -1).all()

    @given(st.integers(1, 90), st.integers(1, 90), st.sampled_from([1, 3, 8, 32]))
    @settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
    def test_any_shape_and_step_is_covered(self, rows, cols, step):
        lattice = refine(lambda x, y: (x, y), (rows, cols), step)
        src = np.arange(rows * cols, dtype=np.int32).reshape(rows, cols)
        np.testing.assert_array_equal(kernels.warp(src, None, lattice, "bilinear"), src)

    def test_what_does_not_fit_is_refused(self):
        nodes = np.zeros((3, 3))
        with pytest.raises(ValueError, match=r"end at pixel 16 of axis 1, the destination has 18"):
            Lattice(x=nodes, y=nodes, step=8, shape=(17, 18))
        with pytest.raises(ValueError, match="2 nodes or more"):
            Lattice(x=nodes[:1], y=nodes[:1], step=8, shape=(1, 1))
        with pytest.raises(ValueError, match="step >= 1"):
            refine(swirl, (10, 10), 0)
        with pytest.raises(ValueError, match=r"rows 0\.\.18"):
            Lattice(x=nodes, y=nodes, step=8, shape=(17, 17)).window(0, 18, 0, 1)


class TestArguments:
    LATTICE = refine(lambda x, y: (x, y), (4, 4))

    @pytest.mark.parametrize(
        ("src", "nodata", "method", "options", "message"),
        [
            (
                np.zeros((4, 4), "int16"),
                0,
                "lanczos",
                {},
                "'lanczos': use one of nearest, bilinear",
            ),
            (np.zeros(4, "int16"), 0, "nearest", {}, r"src must be \(y, x\)"),
            (np.zeros((4, 4), "uint8"), -999, "nearest", {}, "uint8 can't hold -999"),
            (np.zeros((4, 4), "int64"), 0, "nearest", {}, "no warp of int64"),
            (
                np.zeros((4, 4), "int16"),
                0,
                "nearest",
                {"out": np.zeros((4, 4))},
                "out must be int16",
            ),
        ],
    )
    def test_refusals_say_what_and_why(self, impl, src, nodata, method, options, message):
        with pytest.raises(ValueError, match=message):
            impl.warp(src, nodata, self.LATTICE, method, **options)

    def test_nodata_beyond_the_type_marks_nothing(self, impl):
        src = np.arange(16, dtype=np.uint8).reshape(4, 4)
        np.testing.assert_array_equal(impl.warp(src, -999, self.LATTICE, "nearest", fill=0), src)

    def test_an_empty_window_gives_only_nodata(self, impl):
        for method in METHODS:
            assert (impl.warp(np.zeros((0, 5), "int16"), -1, self.LATTICE, method) == -1).all()

    def test_a_source_of_one_pixel(self, impl):
        src = np.array([[7]], np.int16)
        for method in METHODS:
            found = impl.warp(src, -1, self.LATTICE, method)
            assert found[0, 0] == 7
            assert (found == 7).sum() == 1

    def test_other_arrays_are_refused(self):
        with pytest.raises(TypeError, match="NumPy or CuPy"):
            kernels.warp([[1, 2]], 0, self.LATTICE, "nearest")


def test_many_threads_at_once():
    src = speckled("int16", -999, (4, 300, 300))
    lattice = refine(swirl, (250, 250))
    expected = kernels.warp(src, -999, lattice, "bilinear")
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(lambda _: kernels.warp(src, -999, lattice, "bilinear"), range(40)):
            np.testing.assert_array_equal(found, expected)


def test_a_coarser_band_is_looked_up_on_the_basis_grid(impl):
    """20 m onto 10 m: the same as repeating every pixel, from whichever pixel the window begins."""
    src = speckled("int16", -999, (2, 12, 10))
    fine = src.repeat(2, axis=1).repeat(2, axis=2)
    rows, cols = (5 + np.arange(15)) // 2, (2 + np.arange(22)) // 2
    found = impl.nearest_onto(src, rows, cols, fill=-999)
    np.testing.assert_array_equal(found[:, :, :18], fine[:, 5:20, 2:20])
    assert (found[:, :, 18:] == -999).all()
    assert (impl.nearest_onto(src, rows - 3, cols - 2, fill=1)[:, 0] == 1).all()
    flag = impl.nearest_onto(src[0] > 50, rows, cols)
    np.testing.assert_array_equal(flag[:, :18], fine[0, 5:20, 2:20] > 50)
