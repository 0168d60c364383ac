"""Feed jobs to an executor and collect what comes of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, wait

from odc_stats_gpu.engine._executor import Executor
from odc_stats_gpu.engine._job import CancelToken, RunSummary, TaskJob, TaskResult
from odc_stats_gpu.errors import Cancelled

_LOOK = 0.1
"""Seconds between two looks at the cancel token."""


def run_tasks(
    jobs: Iterable[TaskJob],
    executor: Executor,
    on_result: Callable[[TaskJob, TaskResult], None],
    token: CancelToken | None = None,
) -> RunSummary:
    """Make all tiles, as many at a time as the executor has slots; one bad tile stops nothing.

    `jobs` may be a generator that waits for a queue: it is asked for the next job only when there
    is room. `on_result` is called in this thread, once per finished job. When `token` is set the
    executor is killed: unfinished tiles have no result, the summary is `interrupted`.
    """
    token = token or CancelToken()
    summary, started = RunSummary(), time.monotonic()
    source = iter(jobs)
    running: dict[Future[TaskResult], TaskJob] = {}
    more = True
    while not token.cancelled:
        while more and len(running) < executor.slots and not token.cancelled:
            try:
                job = next(source)
            except StopIteration:
                more = False
                break
            running[executor.submit(job)] = job
        if not running:
            break
        finished, _ = wait(running, timeout=_LOOK, return_when=FIRST_COMPLETED)
        for future in finished:
            job = running.pop(future)
            try:
                result = future.result()
            except Cancelled as exc:
                token.cancel(str(exc))
                continue
            summary.add(result)
            on_result(job, result)
    if token.cancelled:
        executor.kill(token.reason)
        summary.interrupted = True
    summary.seconds = round(time.monotonic() - started, 3)
    return summary
