"""`run --profile nsys|ncu`: print the profiler's command line around this command, then run it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

from odc_stats_gpu.errors import ConfigError

if TYPE_CHECKING:
    from odc_stats_gpu.engine import Profiler

_OURS = ("--profile", "--profile-output")
_DRY = ("--dry-run", "--dryrun")


def profile_run(
    tool: Profiler, output: str, arguments: Sequence[str], config: Mapping[str, Any], dry_run: bool
) -> int:
    """Profile the command of these arguments; with --dry-run only print how.

    `config` is what the command line and the YAML file say together: without a cluster in it, one
    worker process makes the tiles, so that there is one timeline.
    """
    from odc_stats_gpu.engine import execute, profiled

    if config.get("scheduler"):
        raise ConfigError(
            "--profile can't follow the workers of a cluster that runs already",
            "leave out --scheduler",
        )
    added = [] if config.get("cluster") else ["--cluster=worker"]
    if tool == "ncu":
        added.append("--max-processing-time=0")  # launches are replayed: a tile takes very long
    again = [sys.executable, "-m", "odc_stats_gpu", "run", *added, *_without(arguments[1:])]
    run = profiled(tool, again, output)
    typer.echo(run.line)
    if dry_run:
        return 0
    code = execute(run)
    if run.report.exists():
        typer.echo(f"wrote {run.report}")
    else:
        sys.stderr.write(f"{tool} left no {run.report}\n")
    return code


def _without(arguments: Sequence[str]) -> list[str]:
    """The arguments without those that are about the profile."""
    out: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        if argument in _OURS:
            next(rest, None)
        elif argument not in _DRY and argument.partition("=")[0] not in _OURS:
            out.append(argument)
    return out
