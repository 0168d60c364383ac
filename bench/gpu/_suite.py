"""The tests marked `gpu`, one process per file: a crash or a hang costs that file only."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench.gpu._bench import Bench
from bench.gpu._children import end, start
from bench.gpu._machine import REPOSITORY
from bench.gpu._tile import MissingError

ROOMS = ("tests/cuda", "tests/kernels", "tests/engine", "tests/ingest", "tests/plugins")
"""Folders with tests marked `gpu`; in tests/kernels the fixture marks them."""
TOOLS = ("board", "truth", "geomedian_cases", "oracle", "hostlaunch", "cudahost", "sass")
REASON = re.compile(r"^SKIPPED \[\d+\] [^:]+:\d+: (.+)$", re.MULTILINE)
BROKEN = re.compile(r"^(?:FAILED|ERROR) (.+)$", re.MULTILINE)
TOLD = re.compile(r"^(?:\S+::.* |\[gw\d+\].*%\] )(PASSED|FAILED|ERROR|SKIPPED)\b", re.MULTILINE)
COUNTED = re.compile(r"(\d+) (passed|failed|skipped|error|errors)")
SANITIZER = "sanitizer"
"""in the name of the file that runs under compute-sanitizer: a part of its own"""
SPREAD = {"geomedian": 4, "tiles": 4, "sanitizer": 3}
"""Processes for files whose name has that in it: each compiles its own kernels"""
ONE_TEST = 150
"""seconds for one, compilations included"""
MOST = 300_000
"""characters of output kept per file"""


def suite(bench: Bench, log: Path, deadline: float) -> Iterator[dict[str, Any]]:
    """Run every file; yields what is known so far; `log` gets the output of those that failed.

    Raises:
        MissingError: no pytest, no hypothesis.
    """
    yield from _all(bench, [p for p in test_files(bench) if SANITIZER not in p.name], log, deadline)


def sanitizer(bench: Bench, log: Path, deadline: float) -> Iterator[dict[str, Any]]:
    """Run the tests under compute-sanitizer, which nothing else should slow down.

    Raises:
        MissingError: it can't be done here.
    """
    if bench.simulate:
        raise MissingError("nothing to watch in the simulator")
    files = [p for p in test_files(bench) if SANITIZER in p.name]
    yield from _all(bench, files, log, deadline)


def _all(bench: Bench, wanted: list[Path], log: Path, deadline: float) -> Iterator[dict[str, Any]]:
    if lacking := [name for name in ("pytest", "hypothesis") if find_spec(name) is None]:
        raise MissingError(f"{' and '.join(lacking)} not installed (make gpu-wheels collects them)")
    files, left_out, found = [], {}, []
    for path in wanted:
        if lacking := sorted(set(_missing(path))):
            left_out[str(path.relative_to(REPOSITORY))] = f"needs {', '.join(lacking)}"
        else:
            files.append(path)
    log.unlink(missing_ok=True)
    with ThreadPoolExecutor(max(1, (os.cpu_count() or 1) // 2)) as pool:
        for done in as_completed([pool.submit(_run, bench, p, log, deadline) for p in files]):
            found.append(done.result())
            totals = {key: sum(f[key] for f in found) for key in ("passed", "failed", "skipped")}
            yield {"totals": totals, "files": found, "left_out": left_out}
    if not files:
        yield {"totals": dict.fromkeys(("passed", "failed", "skipped"), 0), "files": [],
               "left_out": left_out}  # fmt: skip


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


def _run(bench: Bench, path: Path, log: Path, deadline: float) -> dict[str, Any]:
    name = str(path.relative_to(REPOSITORY))
    found: dict[str, Any] = {"file": name, "passed": 0, "failed": 0, "skipped": 0}
    begin = time.monotonic()
    if deadline - begin < 5:
        return found | {"failed": 1, "error": "no time was left for it"}
    with tempfile.TemporaryFile("w+", errors="replace") as out:
        child = start(
            [sys.executable, "-m", "pytest", *_options(path), name], cwd=REPOSITORY,
            env=_environment(bench), stdout=out, stderr=out,
        )  # fmt: skip
        try:
            code = child.wait(deadline - begin)
        except subprocess.TimeoutExpired:
            code, found["error"] = -1, f"stopped after {deadline - begin:.0f} s"
        end(child)
        out.seek(0)
        said = out.read()
    found["seconds"] = round(time.monotonic() - begin, 1)
    found |= _counts(said)
    found["skips"] = sorted(set(REASON.findall(said)))
    if code not in {0, 5}:  # 5: nothing of the file is for a device
        found["failed"] = max(1, found["failed"])
        found.setdefault("error", f"pytest ended with {code}")
        found["failures"] = [text[:300] for text in BROKEN.findall(said)[:20]]
        with log.open("a") as file:
            file.write(f"==== {name}\n{said[-MOST:]}\n")
    return found


def _options(path: Path) -> list[str]:
    """What pytest is told: a test that hangs or loses the device costs itself only."""
    found = [
        "-v", "-ra", "-m", "gpu", "--import-mode=importlib", "-o", "addopts=",
        "-p", "no:cacheprovider", "--tb=short",
    ]  # fmt: skip
    if find_spec("pytest_timeout"):
        found += ["-p", "pytest_timeout", f"--timeout={ONE_TEST}", "--timeout-method=thread"]
    if find_spec("xdist"):
        count = next((n for part, n in SPREAD.items() if part in path.name), 1)
        count = min(count, os.cpu_count() or 1)
        found += ["-p", "xdist.plugin", "-p", "lost_device", "-n", str(count)]
        found += ["--dist", "worksteal"]
    return found


def _counts(said: str) -> dict[str, int]:
    """By pytest's last line, or by the tests that it told of before it was stopped."""
    found = dict.fromkeys(("passed", "failed", "skipped"), 0)
    last = said.strip().rpartition("\n")[2]
    for count, what in COUNTED.findall(last):
        found["failed" if what.startswith("error") else what] += int(count)
    if not any(found.values()):
        for what in TOLD.findall(said):
            found["failed" if what == "ERROR" else what.lower()] += 1
    return found


def _environment(bench: Bench) -> dict[str, str]:
    tools = str(REPOSITORY / "tests" / "tools")
    path = os.pathsep.join((str(REPOSITORY), tools, os.environ.get("PYTHONPATH", "")))
    mine = {
        "PYTHONPATH": path.rstrip(os.pathsep),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # whatever else is installed stays out of it
    }
    if bench.simulate:
        mine |= {"ODC_STATS_GPU_REHEARSAL": "simulator", "NUMBA_ENABLE_CUDASIM": "1"}
    return os.environ | mine
