"""python -m bench.gpu: tests and benchmarks on this machine's GPU into one record.

Exit codes: 0 everything passed or was skipped for a reason; 1 a part failed, the record says which;
2 wrong options; 4 no GPU that can be used, nothing was done.
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from bench.gpu._bench import Bench
from bench.gpu._machine import REPOSITORY, commit, cuda_problem, find_toolkit
from bench.gpu._parts import KERNEL_PARTS, PARTS, TEST_PARTS, answer_part, run_part
from bench.gpu._record import SCHEMA, name_of, write
from bench.gpu._wheels import WheelError, unpacked

NO_GPU = 4


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Options of the command line."""
    as_it_is = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("bench.gpu", description=__doc__, formatter_class=as_it_is)
    add = parser.add_argument
    add("--tests", action="store_true", help="run the tests marked gpu, too")
    add("--kernels-only", action="store_true", help="no whole tiles: needs NumPy, Numba, CuPy only")
    add("--simulate", action="store_true", help="tiny, in Numba's simulator: no claim of speed")
    add("--quick", action="store_true", help="smaller stacks, fewer repeats")
    add("--budget", type=float, default=540, metavar="SECONDS",
        help="for everything together; default 540")  # fmt: skip
    add("--only", nargs="+", choices=[p.name for p in PARTS], help="these parts and nothing else")
    add("--out", type=Path, help="folder of the record; default $OUT, else docs/gpu "
        "(build/gpu when simulated)")  # fmt: skip
    add("--wheels", type=Path, help="folder of carried wheels, used without installing anything")
    add("--part", choices=[p.name for p in PARTS], help=argparse.SUPPRESS)
    add("--answer", type=Path, help=argparse.SUPPRESS)
    add("--record", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main() -> int:
    """Run what was asked for; see the module."""
    options = parse()
    bench = Bench(simulate=options.simulate, quick=options.quick)
    if options.part:
        answer_part(
            options.part, bench, options.record, options.out, options.answer, options.budget
        )
        return 0
    if options.wheels:
        try:
            _with_wheels(options.wheels)
        except WheelError as exc:
            print(f"--wheels {options.wheels}: {exc}", file=sys.stderr)
            return 2
    find_toolkit()
    if not bench.simulate and (problem := cuda_problem()):
        print(f"no GPU run: {problem}", file=sys.stderr)
        return NO_GPU
    default = REPOSITORY / ("build/gpu" if bench.simulate else "docs/gpu")
    out = (options.out or Path(os.environ.get("OUT") or default)).resolve()
    out.mkdir(parents=True, exist_ok=True)
    return _run(bench, _wanted(options), out, options.budget)


def _wanted(options: argparse.Namespace) -> list[str]:
    """Names of parts in their order."""
    if options.only:
        return [p.name for p in PARTS if p.name in {"machine", *options.only}]
    names = [p.name for p in PARTS if not options.kernels_only or p.name in KERNEL_PARTS]
    tests = TEST_PARTS if options.tests else ()
    return [p.name for p in PARTS if p.name in (tests if p.name in TEST_PARTS else names)]


def _run(bench: Bench, wanted: list[str], out: Path, budget: float) -> int:
    until = time.monotonic() + budget
    record: dict[str, Any] = {
        "schema": SCHEMA,
        "made": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "simulated": bench.simulate,
        "quick": bench.quick,
        "parts": {},
    }
    parts = [part for part in PARTS if part.name in wanted]
    for part in parts:
        record["parts"][part.name] = {"title": part.title, "status": "not begun", "seconds": 0}
    paths: list[Path] = []

    def note(name: str, title: str, found: dict[str, Any]) -> None:
        """Write the record as it is: whatever happens next, this is kept."""
        record["parts"][name] = {"title": title, **found}
        stale = paths[:]
        paths[:] = write(record, out, name_of(record))
        for path in set(stale) - set(paths):  # the device's name is known by now
            path.unlink(missing_ok=True)

    for part in parts:
        print(f"{part.title} ...", flush=True)
        note(part.name, part.title, {"status": "unfinished", "seconds": 0})
        earlier = next(p for p in paths if p.suffix == ".json")
        left = until - time.monotonic()
        found = run_part(
            part, bench, earlier, out, left, lambda f, p=part: note(p.name, p.title, f)
        )
        note(part.name, part.title, found)
        print(
            f"  {found['status']} after {found['seconds']} s {found.get('error', '')}", flush=True
        )
    failed = [p["title"] for p in record["parts"].values() if p["status"] == "failed"]
    print(next(p for p in paths if p.suffix == ".md").read_text())
    for path in paths:
        print(f"record: {path}")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _with_wheels(folder: Path) -> None:
    """Start this program again with the wheels' contents before what is installed."""
    place = unpacked(folder)
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if str(place) in paths:
        return
    rest = [p for p in paths if p]
    env = os.environ | {"PYTHONPATH": os.pathsep.join((str(place), str(REPOSITORY), *rest))}
    os.execve(sys.executable, [sys.executable, "-m", "bench.gpu", *sys.argv[1:]], env)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends the part's processes, too
    raise SystemExit(main())
