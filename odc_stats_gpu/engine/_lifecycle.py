"""The life of one tile: skip test, plan, blocks, commit. A failure leaves nothing half-written."""

from __future__ import annotations

import hashlib
import resource
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from odc_stats_gpu.engine._cut import with_enough_memory
from odc_stats_gpu.engine._device import Device
from odc_stats_gpu.engine._env import set_threads
from odc_stats_gpu.engine._job import CancelToken, Guard, OnProgress, TaskJob, TaskResult
from odc_stats_gpu.engine._memory import BlockPlan
from odc_stats_gpu.engine._pipeline import run_blocks
from odc_stats_gpu.engine._session import Session, session_for
from odc_stats_gpu.errors import Cancelled, OdcStatsError
from odc_stats_gpu.model import RunConfig, Task
from odc_stats_gpu.output import (
    ChangedError,
    OvertakenError,
    TileWriter,
    is_done,
    item_uri,
    read_back,
)
from odc_stats_gpu.telemetry import GpuWatch, fault_point, recording, span, stage


def process_task(
    job: TaskJob,
    config: RunConfig,
    token: CancelToken | None = None,
    progress: OnProgress | None = None,
    confirm: Guard | None = None,
) -> TaskResult:
    """Make one tile, or skip it when it is there. Never raises for a bad tile: the result says so.

    Raises Cancelled when `token` was set; the tile is then as if it had never been begun.
    `confirm` says that others may be at the same tile: it is called before the first file and
    before the item and may raise Cancelled; a tile that somebody else has finished meanwhile is
    looked through, left alone and counts as skipped, and nothing that others may have written is
    taken back. Done or skipped then means that the item was read.
    """
    started = time.perf_counter()
    token = token or CancelToken()
    _reset_peak()
    status, uri, error, trace = "failed", "", "", ""
    gpu = GpuWatch()
    with recording() as stages, span(f"tile {job.tile}", "tile"):
        try:
            session = session_for(config)
            set_threads(session.threads)
            fault_point("task_start")
            token.check()
            with stage("task"):
                task = session.task(job)
            uri = item_uri(task, session.store)
            with stage("exists"):
                skip = not config.overwrite and is_done(task, session.store)
            if skip:
                if confirm is not None:
                    read_back(task, session.store)
                    # who finished it may have been killed right after, or somebody else beside it
                    session.store.sweep(task.path(""), alone=True)
                status = "skipped"
            else:
                tell = progress or (lambda *_: None)
                with gpu.watch(session.gpu):
                    made = _make(task, session, token, tell, job.tile, confirm)
                status = "done" if made else "skipped"
        except Cancelled:
            raise
        except OdcStatsError as exc:
            error, trace = str(exc), traceback.format_exc()
        except MemoryError as exc:
            error = f"out of memory ({exc}): lower --memory-limit, --threads or --block-size"
            trace = traceback.format_exc()
        except Exception as exc:  # noqa: BLE001 - a bug in one tile must not take the others along
            text = str(exc).strip().splitlines()
            error = f"{type(exc).__name__}: {text[0] if text else 'no message'}"
            trace = traceback.format_exc()
    return TaskResult(
        index=job.tile,
        status=status,  # type: ignore[arg-type]
        uri=uri,
        error=" ".join(error.split()),
        seconds=round(time.perf_counter() - started, 3),
        stages=stages.seconds(),
        peak_memory=_peak(),
        gpu=gpu.facts(),
        trace=trace,
    )


def _make(
    task: Task,
    session: Session,
    token: CancelToken,
    progress: OnProgress,
    name: str,
    confirm: Guard | None,
) -> bool:
    """Read, reduce, commit; False when somebody else was first."""
    plugin, config = session.plugin, session.config
    with stage("plan"):
        plan = session.plan(task)
        bands = plugin.output_bands(task.products)
    fault_point("task_planned")
    token.check()
    rgb = (plugin.rgb_bands, plugin.rgb_clamp) if plugin.rgb_bands else None

    def attempt(device: Device, cut: BlockPlan) -> bool:
        writer = TileWriter(
            task, bands, session.store, cog=config.cog, rgb=rgb,
            info=replace(session.info, device=device.name),
            threads=session.threads, shared=confirm is not None,
        )  # fmt: skip
        try:
            run_blocks(
                plan, cut.blocks, plugin, writer, device, threads=session.threads,
                check=token.check, progress=lambda done, total: progress(name, done, total),
            )  # fmt: skip
            with stage("commit"):
                writer.commit(_gate(task, session, token, confirm))
        except OvertakenError:
            return _left_to_others(task, session)
        except BaseException as exc:
            writer.abort()
            if isinstance(exc, ChangedError) and is_done(task, session.store):
                return _left_to_others(task, session)
            if isinstance(exc, Cancelled) and not token.lost and confirm is None:
                _withdraw(task, session)
            raise
        return True

    if not with_enough_memory(session, task, plan, name, attempt):
        return False
    fault_point("task_done")
    if confirm is not None:
        _vouch(task, session)
    return True


def _left_to_others(task: Task, session: Session) -> bool:
    """Look whether what somebody else has finished is whole; raises StoreError."""
    read_back(task, session.store, assets=True)
    _vouch(task, session)
    return False


def _vouch(task: Task, session: Session) -> None:
    """Let the sha1 file speak of the item that is there.

    Two workers at one tile write equal assets but items of different times; whoever is last here
    leaves item and checksums in agreement.
    """
    name, path = task.path(".stac-item.json"), task.path(".sha1")
    digest = hashlib.sha1(session.store.read(name), usedforsecurity=False).hexdigest()
    line = f"{digest}  {name.rpartition('/')[2]}"
    lines = session.store.read(path).decode().splitlines()
    mended = [line if old.endswith(".stac-item.json") else old for old in lines]
    if mended != lines:
        session.store.put(path, ("\n".join(mended) + "\n").encode(), "text/plain")


def _gate(
    task: Task, session: Session, token: CancelToken, confirm: Guard | None
) -> Callable[[], None]:
    """What is asked before the first file and before the item."""

    def check() -> None:
        token.check()
        if confirm is not None:
            confirm()
            if not session.config.overwrite and is_done(task, session.store):
                raise OvertakenError("another worker has finished this tile")

    return check


def sweep_task(job: TaskJob, config: RunConfig) -> None:
    """Remove what a killed process left of a tile; the next attempt would do it too, but when?"""
    session = session_for(config)
    with suppress(OdcStatsError):
        task = session.task(job)
        if job.guarded:  # others may be at it: only what dead processes left is removed
            session.store.sweep(task.path(""))
        else:
            _withdraw(task, session)


def _withdraw(task: Task, session: Session) -> None:
    """Take back what an unfinished attempt has published; a finished tile stays as it is."""
    with suppress(OdcStatsError):  # a store that refuses now has refused the tile already
        session.store.sweep(task.path(""), alone=True)
        if is_done(task, session.store):
            return
        bands = [b.name for b in session.plugin.output_bands(task.products)]
        files = [*(f"_{name}.tif" for name in (*bands, "rgba")), "_thumbnail.jpg", ".sha1"]
        for suffix in files:
            session.store.delete(task.path(suffix))


def _reset_peak() -> None:
    with suppress(OSError):  # some sandboxes refuse: then the peak is that of the process so far
        Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int:
    """Highest resident bytes of this process since the last reset."""
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(x for x in lines if x.startswith("VmHWM:")).split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
