"""One run under Nsight Systems, where it is installed: the timeline and its table of kernels."""

from __future__ import annotations

import csv
import io
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.gpu._bench import Bench
from bench.gpu._tile import MissingError, environment, missing, prepare, run_command
from odc_stats_gpu.engine import profiled


def capture(bench: Bench, out: Path, deadline: float) -> dict[str, Any]:
    """Run the tiles under nsys; the report is left in `out`.

    Raises:
        MissingError: no nsys, or no packages for whole tiles.
    """
    nsys = shutil.which("nsys")
    if bench.simulate:
        raise MissingError("nothing to see in the simulator")
    if nsys is None:
        raise MissingError("nsys is not installed")
    if lacking := missing():
        raise MissingError(f"whole tiles need {', '.join(lacking)}")
    folder = Path(tempfile.mkdtemp(prefix="gpu-nsys-"))
    report = out / "tiles.nsys-rep"
    try:
        work = prepare(Bench(simulate=False, quick=True), folder)
        run = profiled("nsys", run_command(folder, work["tiles"], "cuda"), str(report))
        done = subprocess.run(
            run.command, cwd=folder, env=environment(bench, "cuda") | run.environment,
            check=False, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            timeout=max(30.0, deadline - time.monotonic()),
        )  # fmt: skip
        if not report.exists():
            raise RuntimeError(f"nsys left no report ({done.returncode}): {done.stdout[-800:]}")
        return {"report": report.name, "bytes": report.stat().st_size} | _kernels(nsys, report)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _kernels(nsys: str, report: Path) -> dict[str, Any]:
    """Time by kernel, the longest first; what nsys said where it could make no table."""
    command = [nsys, "stats", "--report", "cuda_gpu_kern_sum", "--format", "csv", str(report)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    start = done.stdout.find("Time (%)")
    if done.returncode or start < 0:
        return {"stats": (done.stdout + done.stderr)[-400:]}
    rows = list(csv.DictReader(io.StringIO(done.stdout[start:])))
    return {
        "kernels": [
            {"share": row["Time (%)"], "instances": row["Instances"], "name": row["Name"][:80]}
            for row in rows[:12]
        ]
    }
