"""`run` without a queue: the tiles of a task database, planned or made."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import typer

from odc_stats_gpu.errors import Cancelled

if TYPE_CHECKING:
    from odc_stats_gpu.engine import CancelToken, RunRequest, TaskJob, TaskResult

LogFormat = Literal["console", "json"]


def plan_tiles(request: RunRequest, log_format: LogFormat) -> int:
    """Print what would be done: a line per task, its plan below."""
    from odc_stats_gpu.engine import dry_run, one_of_the_workers
    from odc_stats_gpu.telemetry import configure_logging

    configure_logging(log_format)
    for task in dry_run(one_of_the_workers(request)):
        typer.echo(task.line)
        for line in task.plan:
            typer.echo(f"    {line}")
    return 0


def make_tiles(request: RunRequest, log_format: LogFormat, debug: bool) -> int:
    """Make the tiles; exit code 0 all done, 1 some failed, 3 interrupted."""
    from odc_stats_gpu.engine import CancelToken, heartbeat, open_executor, run_tasks
    from odc_stats_gpu.telemetry import RunProgress, configure_logging, log

    token = CancelToken()
    beat = str(request.config.get("heartbeat_filepath") or "")
    with signals(token), heartbeat(beat):
        configure_logging(log_format, "debug" if debug else "info")
        progress = RunProgress(log_format, "debug" if debug else "info")
        executor = open_executor(request, token=token, progress=progress.block)
        try:
            prepared = executor.prepare(request)
            progress.total = len(prepared.jobs)
            log("configuration", **prepared.config)
            log(
                "run", tasks=len(prepared.jobs), location=prepared.location,
                device=prepared.device, threads=prepared.threads,
                memory_limit_mib=prepared.memory_limit >> 20,
            )  # fmt: skip

            def on_result(_job: TaskJob, result: TaskResult) -> None:
                progress.tile(result.index)
                tell(result, debug)

            with progress:
                summary = run_tasks(prepared.jobs, executor, on_result, token)
        except Cancelled:
            if not token.cancelled:
                raise
            log(f"interrupted: {token.reason}", level="error")
            return 3
        finally:
            executor.close()
    if summary.interrupted:
        log(
            f"interrupted: {token.reason}",
            level="error",
            remaining=len(prepared.jobs) - summary.total,
        )
    if log_format == "json":
        log(summary.line, tasks=summary.total, done=summary.done, skipped=summary.skipped,
            failed=len(summary.failed), seconds=summary.seconds)  # fmt: skip
    else:
        for result in summary.failed:
            sys.stderr.write(f"failed: {result.index}: {result.error}\n")
        typer.echo(summary.line)
        typer.echo(
            f"{summary.done} made, {summary.skipped} skipped, {len(summary.failed)} failed "
            f"of {len(prepared.jobs)} in {summary.seconds:.1f} s, in {prepared.location}"
        )
    return summary.exit_code


def tell(result: TaskResult, debug: bool) -> None:
    """The line of one task."""
    from odc_stats_gpu.telemetry import log

    facts: dict[str, Any] = {"tile": result.index, "seconds": result.seconds}
    if result.status == "failed":
        log("task failed", level="error", **facts, error=result.error)
        if debug and result.trace:
            sys.stderr.write(result.trace)
    elif result.status == "skipped":
        log("task skipped", **facts, uri=result.uri)
    else:
        facts |= {"uri": result.uri, "peak_mib": result.peak_memory >> 20}
        facts["stages"] = dict(result.stages)
        if result.gpu:
            facts["gpu"] = dict(result.gpu)
        log("task done", **facts)


@contextlib.contextmanager
def signals(token: CancelToken) -> Iterator[None]:
    """SIGINT and SIGTERM ask the run to stop; a second one ends it at once."""

    def stop(number: int, _frame: object) -> None:
        if token.cancelled:
            os._exit(3)
        token.cancel(f"received {signal.Signals(number).name}")
        if token.interrupts:
            raise Cancelled(token.reason)

    old = {n: signal.signal(n, stop) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
