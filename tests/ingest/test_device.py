"""Planes and stack on a device: Numba's CUDA simulator, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import contextlib, importlib.util, sys, tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import numpy as np
from affine import Affine
spec = importlib.util.spec_from_file_location("archive_of_tests", sys.argv[1])
C = importlib.util.module_from_spec(spec)
spec.loader.exec_module(C)
from odc_stats_gpu.ingest import load_block, plan_tile
from odc_stats_gpu.kernels import SimulatedDeviceArray
from odc_stats_gpu.model import as_stack

class Device:
    uploads = 0
    def upload(self, array):
        self.uploads += 1
        return np.array(array).view(SimulatedDeviceArray)
    def empty(self, shape, dtype):
        return np.empty(shape, dtype).view(SimulatedDeviceArray)
    def active(self):
        return contextlib.nullcontext()

class Watching(C.Plain):
    def native_transform(self, scene, product):
        assert all(type(v.data) is SimulatedDeviceArray for v in scene.data_vars.values())
        out = super().native_transform(scene, product)
        assert all(type(v.data) is SimulatedDeviceArray for v in out.data_vars.values())
        return out
    def fuse(self, scenes):
        assert all(type(v.data) is SimulatedDeviceArray for v in scenes.data_vars.values())
        return super().fuse(scenes)

archive = C.Archive(Path(tempfile.mkdtemp()))
T = Affine(30, 0, 500000, 0, -30, 6_000_000)
shape = (24, 26)
def bands(seed):
    mask = np.ones(shape, "uint8"); mask[5:8, 9:12] = 2
    return {"red": C.smooth(shape, seed), "nir": C.smooth(shape, seed + 9), "mask": mask}
scenes = [
    archive.scene("2020-01-01T00", bands(1), transform=T),
    archive.scene("2020-01-01T01", bands(2), transform=T * Affine.translation(3, 2)),
    archive.scene("2020-01-01T02", bands(3), transform=T * Affine.translation(0.5, 2)),
]
task = C.make_task(scenes, C.albers(shape=(8, 9), around=(500390, 5_999_640), shift=3))
for resampling in ("bilinear", "lanczos"):
    plugin = {"filters": (("dilation", 2),), "resampling": resampling}
    plan, host = plan_tile(task, Watching(**plugin)), plan_tile(task, C.Plain(**plugin))
    device = Device()
    with ThreadPoolExecutor(1) as pool:
        found = load_block(plan, plan.whole, pool, device=device)
        expected = as_stack(load_block(host, host.whole, pool))
    stack = as_stack(found)
    assert type(stack) is SimulatedDeviceArray, type(stack)
    assert type(as_stack(found, ["nir", "red"])) is SimulatedDeviceArray
    brought_back = 2 if resampling == "lanczos" else 0  # GDAL warps on the host, group by group
    assert device.uploads == 9 + brought_back
    assert (expected != -999).any()
    np.testing.assert_array_equal(np.asarray(stack), expected)
print("same")
"""


def test_arrays_stay_on_the_device():
    """Also where GDAL warps: over the host and back."""
    conftest = Path(__file__).with_name("conftest.py")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT, str(conftest)],
        capture_output=True, text=True, check=False, timeout=250,
        env=os.environ | {"NUMBA_ENABLE_CUDASIM": "1"},
    )  # fmt: skip
    assert done.stdout.strip().endswith("same"), done.stderr[-3000:]
