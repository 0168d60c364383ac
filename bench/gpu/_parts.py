"""The parts of a run, each in a process of its own with a time limit; what it found or why not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.gpu._bench import Bench
from bench.gpu._machine import REPOSITORY, machine

Found = dict[str, Any]


@dataclass(frozen=True)
class Part:
    """One section of the record."""

    name: str
    title: str
    seconds: float
    """after which its process is ended"""
    run: Callable[[Bench, Found, Path, float], Found]
    """(device, results of earlier parts by name, folder for files, deadline) -> result"""


def _machine(bench: Bench, _: Found, __: Path, ___: float) -> Found:
    return machine(simulate=bench.simulate)


def _ceilings(bench: Bench, _: Found, __: Path, ___: float) -> Found:
    from bench.gpu._ceilings import ceilings

    return ceilings(bench)


def _kernels(bench: Bench, earlier: Found, _: Path, deadline: float) -> Found:
    from bench.gpu._kernels import kernels_table

    return kernels_table(bench, earlier.get("ceilings") or {}, deadline)


def _cpu(bench: Bench, earlier: Found, _: Path, deadline: float) -> Found:
    from bench.gpu._cpu import cpu_table

    return cpu_table(bench, earlier, deadline)


def _tiles(bench: Bench, earlier: Found, _: Path, deadline: float) -> Found:
    from bench.gpu._tile import tiles

    return tiles(bench, earlier, deadline)


def _profile(bench: Bench, _: Found, out: Path, deadline: float) -> Found:
    from bench.gpu._profile import capture

    return capture(bench, out, deadline)


def _tests(bench: Bench, _: Found, out: Path, deadline: float) -> Found:
    from bench.gpu._suite import suite

    return suite(bench, out, deadline)


PARTS = (
    Part("machine", "Machine", 60, _machine),
    Part("tests", "Tests on the device", 560, _tests),
    Part("ceilings", "Measured ceilings", 60, _ceilings),
    Part("kernels", "Kernels", 220, _kernels),
    Part("cpu", "The same on this machine's CPU", 110, _cpu),
    Part("tiles", "Whole tiles", 170, _tiles),
    Part("profile", "Nsight Systems", 100, _profile),
)
KERNEL_PARTS = ("machine", "ceilings", "kernels", "cpu")


def run_part(part: Part, bench: Bench, record: Path, out: Path, limit: float) -> Found:
    """Run a part in a child process: {status, seconds, result or error}; never raises for it.

    `limit` is in seconds, if shorter than the part's own.
    """
    limit = min(limit, part.seconds)
    if limit < 15:
        return {"status": "failed", "error": "no time was left for it", "seconds": 0}
    answer = out / f".{part.name}-{os.getpid()}.json"
    command = [
        sys.executable, "-m", "bench.gpu", "--part", part.name, "--answer", str(answer),
        "--record", str(record), "--out", str(out), "--budget", str(limit),
        *(["--simulate"] if bench.simulate else []), *(["--quick"] if bench.quick else []),
    ]  # fmt: skip
    start = time.monotonic()
    env = os.environ | ({"NUMBA_ENABLE_CUDASIM": "1"} if bench.simulate else {})
    child = subprocess.Popen(
        command, cwd=REPOSITORY, env=env, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        said, _ = child.communicate(timeout=limit + 15)
        problem = f"its process ended with {child.returncode}" if child.returncode else ""
    except subprocess.TimeoutExpired:
        problem = f"stopped after {limit + 15:.0f} s"
        _end(child)
        said, _ = child.communicate()
    except BaseException:
        _end(child)
        raise
    seconds = round(time.monotonic() - start, 1)
    try:
        found: Found = json.loads(answer.read_text())
    except (OSError, ValueError):
        found = {"status": "failed", "error": f"{problem or 'no answer'}; {said[-600:].strip()}"}
    answer.unlink(missing_ok=True)
    return found | {"seconds": seconds}


def _end(child: subprocess.Popen[str]) -> None:
    """The whole process group: tests and tiles have children of their own."""
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)


def answer_part(
    name: str, bench: Bench, record: Path, out: Path, answer: Path, limit: float
) -> None:
    """In the child: do the part within `limit` seconds, write the answer."""
    part = next(p for p in PARTS if p.name == name)
    earlier = {}
    with suppress(OSError, ValueError):
        parts = json.loads(record.read_text())["parts"]
        earlier = {key: value.get("result") for key, value in parts.items()}
    from bench.gpu._tile import MissingError

    deadline = time.monotonic() + limit
    try:
        result = part.run(bench, earlier, out, deadline)
        found: Found = {"status": "ok", "result": result}
        if problem := _problem(name, result):
            found |= {"status": "failed", "error": problem}
    except MissingError as exc:
        found = {"status": "skipped", "error": str(exc)}
    except Exception as exc:  # noqa: BLE001 - recorded: the other parts go on
        traceback.print_exc()
        text = " ".join(str(exc).split()) or "no message"
        found = {"status": "failed", "error": f"{type(exc).__name__}: {text[-1200:]}"}
    answer.write_text(json.dumps(found))


def _problem(name: str, result: Found) -> str:
    """What in a result means that the part failed although it came to its end."""
    if name == "tests" and (failed := result["totals"]["failed"]):
        return f"{failed} tests failed; their output lies beside the record"
    if name == "kernels" and (wrong := [c["name"] for c in result["cases"] if "error" in c]):
        return f"{len(wrong)} cases failed: {'; '.join(wrong)}"
    if name == "tiles":
        far = {k: v for k, v in result["agreement"].items() if v["share_beyond"] > 1e-3}
        if far and set(far) - {"rgba"}:
            return f"the device's tiles differ from the CPU's in {', '.join(sorted(far))}"
    return ""
