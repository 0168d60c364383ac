"""The tests marked `gpu`, one process per file: a crash or a hang costs that file only."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench.gpu._bench import Bench
from bench.gpu._machine import REPOSITORY
from bench.gpu._tile import MissingError

ROOMS = ("tests/cuda", "tests/kernels", "tests/engine", "tests/ingest", "tests/plugins")
"""Folders with tests marked `gpu`; in tests/kernels the fixture marks them."""
TOOLS = ("board", "truth", "geomedian_cases", "oracle", "hostlaunch", "cudahost", "sass")
COUNTED = re.compile(r"(\d+) (passed|failed|skipped|error|errors)")


def suite(bench: Bench, out: Path, deadline: float) -> dict[str, Any]:
    """Run every file; `out` gets the output of those that didn't pass.

    Raises:
        MissingError: no pytest, no hypothesis.
    """
    if lacking := [name for name in ("pytest", "hypothesis") if find_spec(name) is None]:
        raise MissingError(f"{' and '.join(lacking)} not installed (make gpu-wheels collects them)")
    files, left_out = [], {}
    for path in test_files(bench):
        if lacking := sorted(set(_missing(path))):
            left_out[str(path.relative_to(REPOSITORY))] = f"needs {', '.join(lacking)}"
        else:
            files.append(path)
    together = max(1, min(4, (os.cpu_count() or 1) // 3))
    with ThreadPoolExecutor(together) as pool:
        found = list(pool.map(lambda path: _run(bench, path, out, deadline), files))
    totals = {key: sum(f[key] for f in found) for key in ("passed", "failed", "skipped")}
    return {"totals": totals, "files": found, "left_out": left_out}


def test_files(bench: Bench) -> list[Path]:
    """Files with tests for a device; those of the rehearsal are the ones written for both."""
    if bench.simulate:
        parts = ("masks",) if bench.quick else ("geomedian", "warp", "masks")
        return [REPOSITORY / "tests" / "cuda" / f"test_on_gpu_{part}.py" for part in parts]
    found = []
    for room in ROOMS:
        for path in sorted((REPOSITORY / room).glob("test_*.py")):
            text = path.read_text()
            if "mark.gpu" in text or (room == "tests/kernels" and "impl" in text):
                found.append(path)
    return sorted(found, key=lambda path: "geomedian" not in path.name)  # the longest first


def _missing(path: Path) -> Iterator[str]:
    """Packages that a test file imports at its top and that aren't there."""
    for node in ast.parse(path.read_text()).body:
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or ""]
        for name in names:
            top = name.partition(".")[0]
            if top not in TOOLS and find_spec(top) is None:
                yield top


def _run(bench: Bench, path: Path, out: Path, deadline: float) -> dict[str, Any]:
    name = str(path.relative_to(REPOSITORY))
    found: dict[str, Any] = {"file": name, "passed": 0, "failed": 0, "skipped": 0}
    limit = deadline - time.monotonic()
    if limit < 5:
        return found | {"failed": 1, "error": "no time was left for it"}
    start = time.monotonic()
    command = [
        sys.executable, "-m", "pytest", "-q", "-ra", "-m", "gpu", "--import-mode=importlib",
        "-o", "addopts=", "-p", "no:cacheprovider", "--tb=short", name,
    ]  # fmt: skip
    if find_spec("pytest_timeout"):
        command[3:3] = ["-p", "pytest_timeout"]
    try:
        done = subprocess.run(
            command, cwd=REPOSITORY, env=_environment(bench), text=True, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=limit,
        )  # fmt: skip
        code, said = done.returncode, done.stdout
    except subprocess.TimeoutExpired as exc:
        said = exc.stdout or b""
        said = said.decode(errors="replace") if isinstance(said, bytes) else said
        code, found["error"] = -1, f"stopped after {limit:.0f} s"
    found["seconds"] = round(time.monotonic() - start, 1)
    for count, what in COUNTED.findall(said.strip().rpartition("\n")[2]):
        key = "failed" if what.startswith("error") else what
        found[key] += int(count)
    reasons = re.findall(r"^SKIPPED \[\d+\] [^:]+:\d+: (.+)$", said, re.MULTILINE)
    found["skips"] = sorted(set(reasons))
    if code not in {0, 5}:  # 5: nothing of the file is for a device
        found["failed"] = max(1, found["failed"])
        found.setdefault("error", f"pytest ended with {code}")
        found["failures"] = re.findall(r"^(?:FAILED|ERROR) (.+)$", said, re.MULTILINE)[:20]
        (out / f"{path.stem}.log").write_text(said)
    return found


def _environment(bench: Bench) -> dict[str, str]:
    path = os.pathsep.join((str(REPOSITORY), os.environ.get("PYTHONPATH", "")))
    mine = {
        "PYTHONPATH": path.rstrip(os.pathsep),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # whatever else is installed stays out of it
    }
    if bench.simulate:
        mine |= {"ODC_STATS_GPU_REHEARSAL": "simulator", "NUMBA_ENABLE_CUDASIM": "1"}
    return os.environ | mine
