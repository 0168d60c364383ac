"""`run --from-sqs`: one worker of a fleet."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, NamedTuple

import typer

from odc_stats_gpu.cli._run_tiles import LogFormat, signals, tell
from odc_stats_gpu.errors import Cancelled, StoreError

if TYPE_CHECKING:
    from odc_stats_gpu.engine import RunRequest, TaskResult


class QueueOptions(NamedTuple):
    """What the command line says of the queue."""

    queue: str
    idle_timeout: float | None
    max_tasks: int | None
    metrics_port: int | None
    spot_notice: bool
    prefetch: bool


def run_queue(
    request: RunRequest, options: QueueOptions, log_format: LogFormat, debug: bool
) -> int:
    """Work until the queue stays empty.

    Exit codes: 0 left in peace, 1 SQS or the store didn't answer for too long, 2 wrong use, 3
    interrupted.
    """
    from odc_stats_gpu.telemetry import configure_logging, log

    configure_logging(log_format, "debug" if debug else "info")
    try:
        return _work(request, options, lines=log_format == "json", debug=debug)
    except StoreError as exc:  # no fault of the request: another start may do better
        if debug:
            raise
        log(str(exc), level="error")
        return 1


def _work(request: RunRequest, options: QueueOptions, *, lines: bool, debug: bool) -> int:
    from odc_stats_gpu.engine import (
        CancelToken,
        QueueTerms,
        first_beat,
        open_executor,
        spot_notice,
        work_queue,
    )
    from odc_stats_gpu.model import parse_config
    from odc_stats_gpu.queue import in_background, queue_url, settled
    from odc_stats_gpu.telemetry import log, start_metrics

    config = parse_config(request.config)
    first_beat(config.heartbeat_filepath)
    token = CancelToken()
    with (
        signals(token),
        spot_notice(token, enabled=options.spot_notice),
        ExitStack() as closing,
    ):
        try:
            looking = in_background(lambda: queue_url(options.queue))
            if not settled(looking, token.event, 0):
                token.check()
            url = looking.result()
            executor = open_executor(request, token=token)
            closing.callback(executor.close)
            prepared = executor.prepare(request)
            log("configuration", **prepared.config)
            log("worker", queue=options.queue, location=prepared.location, device=prepared.device)
            if options.metrics_port is not None:
                samplers = _samplers(prepared.device, url)
                closing.enter_context(
                    start_metrics(options.metrics_port, device=prepared.device, samplers=samplers)
                )
            terms = QueueTerms(
                url, config.job_queue_max_lease, config.renew_safety_margin, options.idle_timeout,
                options.max_tasks, request.filedb, config.heartbeat_filepath,
                options.prefetch,
            )  # fmt: skip

            def ended(_: object, result: TaskResult) -> None:
                if lines:
                    _tell_stages(result)
                tell(result, debug)

            summary = work_queue(terms, executor, ended, token)
        except Cancelled:
            if not token.cancelled:
                raise
            log(f"interrupted: {token.reason}", level="error")
            return 3
    if summary.interrupted:
        log(f"interrupted: {token.reason}", level="error")
    with suppress(OSError):  # as with the log: a full disk under it changes no exit code
        typer.echo(summary.line)
    return 3 if summary.interrupted else 0


def _tell_stages(result: TaskResult) -> None:
    """A line per stage for Loki, which sums `seconds` by `stage`; also of a tile that failed."""
    from odc_stats_gpu.telemetry import log

    for stage, seconds in result.stages.items():
        log("stage", tile=result.index, stage=stage, seconds=round(seconds, 3))


def _sample_queue(url: str) -> None:
    """How the queue stands, for the dashboards: any worker sees the same."""
    import dataclasses

    from odc_stats_gpu.queue import queue_status
    from odc_stats_gpu.telemetry import metrics

    found = dataclasses.asdict(queue_status(url))
    del found["dead_queue"]
    metrics.queue_depth(found.pop("queue"), **found)


def _samplers(device: str, queue: str) -> list[tuple[float, Callable[[], None]]]:
    """What `/metrics` reads by itself, and every how many seconds."""
    from odc_stats_gpu.telemetry import gpu_sampler, sample_memory

    found: list[tuple[float, Callable[[], None]]] = [
        (15, sample_memory),
        (30, lambda: _sample_queue(queue)),
    ]
    if device != "cpu" and (sample := gpu_sampler()) is not None:
        found.append((5, sample))
    return found
