"""`run --profile`: the same command once more, under Nsight Systems or Nsight Compute.

`profiled` builds the command line from facts alone; `execute` runs it, hands signals on and leaves
nothing behind.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from odc_stats_gpu.errors import ConfigError
from odc_stats_gpu.telemetry import NVTX_SWITCH

Profiler = Literal["nsys", "ncu"]
LINEINFO = "ODC_STATS_LINEINFO"
"""1: CUDA kernels are compiled with line numbers; registers and instructions stay the same."""
LAUNCHES = 2
"""Of a kernel per grid and block that Nsight Compute profiles: it replays each ~40 times."""
_REMEDY = {
    "nsys": "install Nsight Systems (package nsight-systems-cli) and put nsys on PATH",
    "ncu": "install Nsight Compute (package cuda-nsight-compute-13-0) and put ncu on PATH",
}
_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_GRACE = 12.0
"""Seconds that the profiled command has to end after its profiler; it needs 10 at most."""


@dataclass(frozen=True, slots=True)
class ProfiledRun:
    """A command under a profiler."""

    tool: Profiler
    command: tuple[str, ...]
    environment: Mapping[str, str]
    """What is added to the environment."""
    report: Path
    """The file that the profiler will write."""

    @property
    def line(self) -> str:
        """As a shell would take it."""
        added = [f"{name}={shlex.quote(value)}" for name, value in self.environment.items()]
        return " ".join([*added, shlex.join(self.command)])


def profiled(tool: Profiler, command: Sequence[str], output: str = "") -> ProfiledRun:
    """The command line of a profile of `command`; `output` with or without the tool's suffix.

    Both tools follow child processes: the worker that computes is one. Nsight Systems does so by
    itself; its `--trace-fork-before-exec` is for children that never exec, and risks a deadlock.
    """
    suffix = f".{tool}-rep"
    base = (output or "odc-stats-gpu").removesuffix(suffix)
    if tool == "nsys":
        prefix = [
            "nsys", "profile", "--trace=cuda,nvtx,osrt", "--sample=process-tree",
            "--force-overwrite=true", f"--output={base}",
        ]  # fmt: skip
        environment = {NVTX_SWITCH: "1"}
    else:
        prefix = [
            "ncu", "--target-processes=all", "--nvtx", "--kernel-name-base=mangled",
            "--kernel-name=regex:odc_stats_gpu",  # mangled names hold the module's
            "--filter-mode=per-launch-config", f"--launch-count={LAUNCHES}", "--set=full",
            "--import-source=yes", "--force-overwrite", f"--export={base}",
        ]  # fmt: skip
        environment = {NVTX_SWITCH: "1", LINEINFO: "1"}
    return ProfiledRun(tool, (*prefix, *command), environment, Path(base + suffix))


def execute(run: ProfiledRun) -> int:
    """Run it to its end: the profiler's exit code, which is the command's; 3 after a signal.

    SIGINT, SIGTERM and SIGHUP go to the profiler and the command alike. Raises ConfigError when
    there is no such profiler, or no folder for its report.
    """
    if shutil.which(run.tool) is None:
        raise ConfigError(f"--profile {run.tool}: {run.tool} is not installed", _REMEDY[run.tool])
    if not run.report.parent.is_dir():
        raise ConfigError(
            f"--profile-output: there is no folder {run.report.parent}", "make it first"
        )
    received: list[int] = []
    groups: list[int] = []

    def forward(number: int, _frame: object) -> None:
        received.append(number)
        for group in groups:
            _tell(group, number)

    old = {number: signal.signal(number, forward) for number in _FORWARDED}
    try:
        process = subprocess.Popen(
            run.command,
            env=os.environ | run.environment,
            process_group=0,  # whatever it starts can be told, and ended, together
        )
        groups.append(process.pid)
        for number in received:  # while it was being started
            _tell(process.pid, number)
        code = process.wait()
    finally:
        for group in groups:
            _end(group)
        for number, handler in old.items():
            signal.signal(number, handler)
    if received:
        return 3
    if code < 0:
        raise ConfigError(
            f"{run.tool} was killed by {signal.Signals(-code).name}", "try the command without it"
        )
    return code


def _tell(group: int, number: int) -> bool:
    """Send a signal to the group; whether there was anybody."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
        return True
    return False


def _end(group: int) -> None:
    """Wait for what the profiler has left running, then end it."""
    until = time.monotonic() + _GRACE
    while _tell(group, 0) and time.monotonic() < until:
        time.sleep(0.05)
    _tell(group, signal.SIGKILL)
