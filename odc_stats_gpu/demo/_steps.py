"""The commands of the tour, and how one of them is run and shown."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

_SHOWN, _WIDTH = 12, 160  # lines and columns of a step's output that a newcomer should see


@dataclass(frozen=True, slots=True)
class Step:
    """One command of the tour."""

    name: str
    """What it is called in the table of times."""
    why: str
    """One line for the reader."""
    args: tuple[str, ...]
    """Arguments after the program's name."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a step ended."""

    code: int
    seconds: float
    output: str


def perform(step: Step, log: Path, console: Console) -> Outcome:
    """Echo a command, run it as a process of its own and show what it said.

    Everything it prints goes to `log`; a failed step's output is shown in full.
    """
    console.print(f"\n[bold]# {step.why}[/bold]")
    shown = f"$ odc-stats-gpu {shlex.join(step.args)}"  # on one line, to be copied
    console.print(shown, style="cyan", markup=False, soft_wrap=True)
    start = time.perf_counter()
    lines: list[str] = []
    command = [sys.executable, "-m", "odc_stats_gpu", *step.args]
    env = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with (
        log.open("w") as file,
        console.status("running ..."),
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env,
            errors="replace",
        ) as process,
    ):  # fmt: skip
        for line in process.stdout or ():
            file.write(line)
            lines.append(line.rstrip())
        code = process.wait()
    seconds = time.perf_counter() - start
    if code:
        _show(console, lines)
        console.print(f"  failed with exit code {code}", style="bold red")
    else:
        told = [_clip(line) for line in lines if "] configuration " not in line]
        _show(console, told[-_SHOWN:])
        console.print(f"  done in {seconds:.1f} s", style="green", highlight=False)
    return Outcome(code, seconds, "\n".join(lines))


def _clip(line: str) -> str:
    """A line as long as a newcomer reads; the log has the rest."""
    return line if len(line) <= _WIDTH else line[: _WIDTH - 4] + " ..."


def _show(console: Console, lines: Sequence[str]) -> None:
    for line in lines:
        console.print(f"  {line}", style="dim", markup=False, highlight=False, soft_wrap=True)
