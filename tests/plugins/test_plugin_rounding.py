"""Float to pixel type, on NumPy and on an array type that knows the standard only."""

from __future__ import annotations

import array_api_strict
import numpy as np
import pytest

from odc_stats_gpu.model import NativeBand
from odc_stats_gpu.plugins._planes import convert, is_nodata
from odc_stats_gpu.plugins._rounding import to_pixels, to_pixels_compat

SPACES = [np, array_api_strict]


def pixels(xp, values, *args, **kw):
    return np.asarray(to_pixels(xp.asarray(np.array(values, "float32")), *args, **kw))


@pytest.mark.parametrize("xp", SPACES)
@pytest.mark.parametrize(
    ("values", "dtype", "nodata", "expected"),
    [
        ([0.5, 1.5, 2.5, -0.5, np.nan], "int16", -999, [0, 2, 2, 0, -999]),
        ([-999.4, -999.0, -998.6, -999.5], "int16", -999, [-1000, -998, -998, -1000]),
        ([0.0, 0.4, 0.6, np.nan], "uint16", 0, [1, 1, 1, 0]),
        ([65535.0, 65534.6, 65534.4], "uint16", 65535, [65534, 65534, 65534]),
        ([-32768.0, -32767.6], "int16", -32768, [-32767, -32767]),
        ([254.6, 300.0, -3.0], "uint8", 255, [254, 254, 0]),
        ([2147483520.0, np.nan], "int32", -1, [2147483520, -1]),
    ],
)
def test_round_half_to_even_and_away_from_nodata(xp, values, dtype, nodata, expected):
    found = pixels(xp, values, dtype, nodata)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, np.array(expected, dtype))


@pytest.mark.parametrize("xp", SPACES)
def test_floats_are_only_cast(xp):
    np.testing.assert_array_equal(pixels(xp, [0.25, np.nan], "float64", -9.0), [0.25, -9.0])
    np.testing.assert_array_equal(pixels(xp, [0.25, np.nan], "float32", np.nan), [0.25, np.nan])


@pytest.mark.parametrize("xp", SPACES)
@pytest.mark.parametrize(
    ("scale", "offset", "share"), [(1e-4, -1e-4, 0.3743), (2.75e-5, -0.2, 0.5444), (1e-4, 0, 0)]
)
def test_compat_loses_the_share_of_single_observations_that_the_incumbent_loses(
    xp, scale, offset, share
):
    values = np.arange(1, 10001, dtype="float32")
    found = to_pixels_compat(xp.asarray(values), "int16", -999, scale=scale, offset=offset)
    assert np.mean(np.asarray(found) != values) == pytest.approx(share, abs=1e-4)


@pytest.mark.parametrize("xp", SPACES)
def test_compat_cuts_and_keeps_nodata(xp):
    values = xp.asarray(np.array([10.9, -10.9, np.nan], "float32"))
    found = to_pixels_compat(values, "int16", -999, scale=1.0, offset=0.0)
    np.testing.assert_array_equal(np.asarray(found), [10, -10, -999])


@pytest.mark.parametrize("xp", SPACES)
def test_planes_translate_nodata_and_type(xp):
    plane = NativeBand("a", "int16", -999)
    same = xp.asarray(np.array([1, -999], "int16"))
    assert convert(same, -999, plane) is same
    source = xp.asarray(np.array([1, 255, 0], "uint8"))
    found = convert(source, 255, plane)
    np.testing.assert_array_equal(np.asarray(found), np.array([1, -999, 0], "int16"))
    np.testing.assert_array_equal(np.asarray(source), [1, 255, 0])


@pytest.mark.parametrize("xp", SPACES)
def test_nan_is_missing_whatever_the_nodata(xp):
    values = xp.asarray(np.array([np.nan, -1.0, 2.0]))
    np.testing.assert_array_equal(np.asarray(is_nodata(values, -1)), [True, True, False])
    np.testing.assert_array_equal(np.asarray(is_nodata(values, None)), [True, False, False])
