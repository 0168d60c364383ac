"""The tests marked `gpu` without a GPU: they run, small, and need what a bare machine has."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
REFUSE = REPOSITORY / "tests" / "tools" / "refuse_imports.py"
KERNELS = [f"tests/cuda/test_on_gpu_{part}.py" for part in ("geomedian", "warp", "masks")]
DEVICE = [f"tests/cuda/test_on_gpu_{part}.py" for part in ("streams", "memory", "device", "tiles")]
QUICK = (
    "every_number_of_bands and (1] or 6] or 16]) or number_of_dates and (2] or 5]) or fit_on_chip"
    " or random_numbers or block_of_a_scene and uint16 or against_float64 or window_of_a_stack"
    " or bit_flags or nodata_where or counts or scenes_of_a_day"
)
BARE = """
import sys
import odc_stats_gpu.kernels as kernels
import numpy as np
found = kernels.geomad(np.array([[3, 5], [4, 8]], np.int16).reshape(2, 2, 1, 1), 0)
assert found.count.item() == 2 and found.geomedian.ravel().tolist() == [4, 6]
kernels.warp(np.ones((4, 4), np.int16), 0, kernels.refine(lambda x, y: (x, y), (4, 4)), "cubic")
kernels.clean_mask(np.ones((4, 4), bool), [("opening", 1)])
print(sorted({name.partition(".")[0] for name, m in sys.modules.items() if m is not None}))
"""


def python(*args, **env):
    done = subprocess.run(
        [sys.executable, *map(str, args)], capture_output=True, text=True, check=False,
        cwd=REPOSITORY, env=os.environ | env,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def rehearse(kind, *args):
    code, said = python(
        "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", "gpu", *args,
        ODC_STATS_GPU_REHEARSAL=kind, NUMBA_ENABLE_CUDASIM="1" if kind == "simulator" else "0",
    )  # fmt: skip
    assert code == 0, said[-4000:]
    return int(re.search(r"(\d+) passed", said)[1])


def test_kernels_need_only_numpy_and_numba():
    code, said = python(REFUSE, "-c", BARE)
    assert code == 0, said
    loaded = set(eval(said.strip().splitlines()[-1]))
    assert not loaded & {"rasterio", "datacube", "xarray", "pandas", "pydantic", "odc", "yaml"}


def test_the_gpu_tests_are_collected_on_a_bare_machine():
    """Whole tiles, too: they skip there, but don't stop the others."""
    code, said = python(
        REFUSE, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--collect-only", "-m", "gpu",
        *KERNELS, *DEVICE, PYTEST_DISABLE_PLUGIN_AUTOLOAD="1", PYTEST_PLUGINS="pytest_timeout",
    )  # fmt: skip
    assert code == 0, said[-4000:]
    assert int(re.search(r"(\d+) tests collected", said)[1]) > 140


def test_without_a_gpu_each_says_why_it_skips():
    code, said = python(
        REFUSE, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "gpu", *KERNELS, *DEVICE,
        PYTEST_DISABLE_PLUGIN_AUTOLOAD="1", PYTEST_PLUGINS="pytest_timeout",
        CUDA_VISIBLE_DEVICES="",
    )  # fmt: skip
    assert code == 0, said[-4000:]
    assert re.search(r"\d+ skipped", said)
    assert "no CUDA device" in said or "CuPy is not installed" in said


def test_a_part_of_them_in_the_simulator():
    assert rehearse("simulator", "-k", QUICK, *KERNELS) > 25


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_all_of_them_in_the_simulator():
    assert rehearse("simulator", *KERNELS, *DEVICE) > 120


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_warps_of_many_lanes_on_the_host():
    pytest.importorskip("numba_cuda", reason="the CUDA wheels are not installed")
    assert rehearse("host", "-k", "lanes or fit_on_chip or launch_and_window", KERNELS[0]) > 12
