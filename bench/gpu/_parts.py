"""The parts of a run, each in a process of its own with a time limit; what it found or why not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.gpu._bench import Bench
from bench.gpu._children import end
from bench.gpu._children import start as begin
from bench.gpu._machine import REPOSITORY, machine

Found = dict[str, Any]
LEAST = 10.0
"""Seconds without which no part is begun."""
GRACE = 10.0
"""Seconds after its deadline that a part has for telling what it found."""
LOOK = 1.0


@dataclass(frozen=True)
class Part:
    """One section of the record."""

    name: str
    title: str
    seconds: float
    """after which its process is ended"""
    run: Callable[[Bench, Found, Path, float], Iterable[Found]]
    """(device, results of earlier parts by name, folder for files, deadline) -> the result, again
    and again while it grows"""


def _ceilings(bench: Bench, _: Found, __: Path, ___: float) -> Iterable[Found]:
    from bench.gpu._ceilings import ceilings

    return ceilings(bench)


def _kernels(bench: Bench, earlier: Found, _: Path, deadline: float) -> Iterable[Found]:
    from bench.gpu._kernels import kernels_table

    return kernels_table(bench, earlier.get("ceilings") or {}, deadline)


def _cpu(bench: Bench, _: Found, __: Path, deadline: float) -> Iterable[Found]:
    from bench.gpu._cpu import cpu_table

    return cpu_table(bench, deadline)


def _tiles(bench: Bench, _: Found, __: Path, deadline: float) -> Iterable[Found]:
    from bench.gpu._tile import tiles

    return tiles(bench, deadline)


def _profile(bench: Bench, _: Found, out: Path, deadline: float) -> Iterable[Found]:
    from bench.gpu._profile import capture

    return [capture(bench, out, deadline)]


def _tests(bench: Bench, _: Found, out: Path, deadline: float) -> Iterable[Found]:
    from bench.gpu._suite import suite

    return suite(bench, out / "tests.log", deadline)


def _sanitizer(bench: Bench, _: Found, out: Path, deadline: float) -> Iterable[Found]:
    from bench.gpu._suite import sanitizer

    return sanitizer(bench, out / "sanitizer.log", deadline)


PARTS = (
    Part("machine", "Machine", 60, lambda bench, *_: machine(simulate=bench.simulate)),
    Part("ceilings", "Measured ceilings", 40, _ceilings),
    Part("kernels", "Kernels", 150, _kernels),
    Part("tests", "Tests on the device", 210, _tests),
    Part("tiles", "Whole tiles", 120, _tiles),
    Part("cpu", "The same on this machine's CPU", 60, _cpu),
    Part("sanitizer", "Memory and races on the device", 120, _sanitizer),
    Part("profile", "Nsight Systems", 60, _profile),
)
KERNEL_PARTS = ("machine", "ceilings", "kernels", "cpu")
TEST_PARTS = ("tests", "sanitizer")


def run_part(
    part: Part, bench: Bench, record: Path, out: Path, limit: float, note: Callable[[Found], None]
) -> Found:
    """Run a part in a child process: {status, seconds, result, error}; never raises for it.

    `limit` is in seconds, if shorter than the part's own. `note` gets the state as it grows.
    """
    limit = min(limit, part.seconds)
    if limit < LEAST:
        return {"status": "failed", "error": "no time was left for it", "seconds": 0}
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="gpu-part-") as folder:
        answer, said = Path(folder, "answer.json"), Path(folder, "said")
        command = [
            sys.executable, "-m", "bench.gpu", "--part", part.name, "--answer", str(answer),
            "--record", str(record), "--out", str(out), "--budget", str(limit),
            *(["--simulate"] if bench.simulate else []), *(["--quick"] if bench.quick else []),
        ]  # fmt: skip
        env = os.environ | ({"NUMBA_ENABLE_CUDASIM": "1"} if bench.simulate else {})
        with said.open("wb") as log:  # a pipe would be held open by whoever outlives the child
            child = begin(command, cwd=REPOSITORY, env=env, stdout=log, stderr=log)
        try:
            problem = _wait(child, answer, start, limit + GRACE, note)
        finally:
            end(child)
        found = _read(answer) or {"status": "failed"}
        if problem and found["status"] != "ok":
            tail = said.read_text(errors="replace")[-600:].strip()
            found |= {"status": "failed", "error": f"{problem}; {tail}".rstrip("; ")}
    return found | {"seconds": round(time.monotonic() - start, 1)}


def _wait(
    child: subprocess.Popen[bytes],
    answer: Path,
    start: float,
    limit: float,
    note: Callable[[Found], None],
) -> str:
    """Wait for the child's end, telling what it has found so far; what went wrong, or nothing."""
    seen = 0
    while time.monotonic() < start + limit:
        with suppress(subprocess.TimeoutExpired):
            code = child.wait(LOOK)
            return f"its process ended with {code}" if code else ""
        with suppress(OSError):
            if (stamp := answer.stat().st_mtime_ns) != seen:
                seen = stamp
                note((_read(answer) or {}) | {"seconds": round(time.monotonic() - start, 1)})
    return f"stopped after {limit:.0f} s"


def _read(answer: Path) -> Found | None:
    try:
        found: Found = json.loads(answer.read_text())
    except (OSError, ValueError):
        return None
    return found


def answer_part(
    name: str, bench: Bench, record: Path, out: Path, answer: Path, limit: float
) -> None:
    """In the child: do the part within `limit` seconds, write the answer as it grows."""
    part = next(p for p in PARTS if p.name == name)
    earlier = {}
    with suppress(OSError, ValueError):
        parts = json.loads(record.read_text())["parts"]
        earlier = {key: value.get("result") for key, value in parts.items()}
    from bench.gpu._tile import MissingError

    deadline = time.monotonic() + limit
    found: Found = {"status": "unfinished"}
    try:
        for result in part.run(bench, earlier, out, deadline):
            found["result"] = result
            _write(answer, found)
        found["status"] = "ok"
        if problem := _problem(name, found["result"]):
            found |= {"status": "failed", "error": problem}
    except MissingError as exc:
        found |= {"status": "skipped", "error": str(exc)}
    except Exception as exc:  # noqa: BLE001 - recorded: the other parts go on
        traceback.print_exc()
        text = " ".join(str(exc).split()) or "no message"
        found |= {"status": "failed", "error": f"{type(exc).__name__}: {text[-1200:]}"}
    _write(answer, found)


def _write(answer: Path, found: Found) -> None:
    part = answer.with_suffix(".part")
    part.write_text(json.dumps(found))
    part.replace(answer)


def _problem(name: str, result: Found) -> str:
    """What in a result means that the part failed although it came to its end."""
    if name in TEST_PARTS and (failed := result["totals"]["failed"]):
        return f"{failed} tests failed; their output is in {name}.log beside the record"
    if name == "tests" and not result["totals"]["passed"]:
        return "no test ran: the table says why"
    if name == "kernels" and (wrong := [c["name"] for c in result["cases"] if "error" in c]):
        return f"{len(wrong)} cases failed: {'; '.join(wrong)}"
    if name == "tiles":
        far = {k: v for k, v in result["agreement"].items() if v["share_beyond"] > 1e-3}
        if far and set(far) - {"rgba"}:
            return f"the device's tiles differ from the CPU's in {', '.join(sorted(far))}"
    return ""
