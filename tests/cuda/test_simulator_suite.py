"""The kernels' suite in Numba's simulator, which must be chosen before numba is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

KERNELS = Path(__file__).parents[1] / "kernels"
FILES = (
    "test_fuse_counts.py", "test_geomedian.py", "test_geomedian_properties.py", "test_masks.py",
    "test_morphology.py", "test_warp.py",
)  # fmt: skip
LONG = (
    "one_by_one", "exact_distance", "blocks_give", "test_counts", "empty_mask", "slice_of",
    "together", "any_number_of_dates",
)  # fmt: skip
"""Seconds each: 10 us per pixel and step."""


def suite(selection):
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist",
         "-m", "not gpu", "-k", selection, *(str(KERNELS / name) for name in FILES)],
        capture_output=True, text=True, check=False, env=os.environ | {"NUMBA_ENABLE_CUDASIM": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:]
    counted = done.stdout.strip().splitlines()[-1]
    assert "passed" in counted
    assert "skipped" not in counted
    return int(counted.split()[0])


def test_small_shapes():
    assert suite(f"simulator and not ({' or '.join(LONG)})") > 60


@pytest.mark.slow
def test_all_shapes():
    assert suite("simulator") > 110
