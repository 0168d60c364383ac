"""On hardware: every kernel under compute-sanitizer."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.gpu

REPOSITORY = Path(__file__).parents[2]
FOUND = [shutil.which("compute-sanitizer"), "/usr/local/cuda/bin/compute-sanitizer"]
SANITIZER = next((path for path in FOUND if path and Path(path).exists()), None)
REFUSALS = ("not supported", "unable to find injection", "error code 999")


@pytest.mark.parametrize("tool", ["memcheck", "racecheck", "synccheck"])
def test_compute_sanitizer_finds_nothing(cupy, tool):
    if SANITIZER is None:
        pytest.skip("compute-sanitizer is not installed")
    done = subprocess.run(
        [SANITIZER, "--tool", tool, "--error-exitcode", "9", sys.executable,
         str(REPOSITORY / "tests" / "tools" / "every_kernel.py")],
        capture_output=True, text=True, check=False, timeout=140, cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": os.pathsep.join((str(REPOSITORY), *sys.path[1:]))},
    )  # fmt: skip
    said = done.stdout + done.stderr
    if done.returncode and "every kernel ran" not in said:
        for line in said.splitlines():
            if any(text in line.lower() for text in REFUSALS):
                pytest.skip(f"compute-sanitizer refuses this machine: {line.strip()}")
    assert "every kernel ran" in said, said[-4000:]
    assert done.returncode == 0, said[-4000:]
