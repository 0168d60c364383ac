"""Validate a run before any work: everything that can be wrong with a request is said here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from odc_stats_gpu.engine._cuda_cluster import parse_pool
from odc_stats_gpu.engine._cut import cut_tile
from odc_stats_gpu.engine._device import CpuDevice, Device, plan_device
from odc_stats_gpu.engine._job import Prepared, RunRequest, TaskJob
from odc_stats_gpu.engine._limits import parse_bytes, show_bytes
from odc_stats_gpu.engine._memory import DeviceTooSmallError, parse_block_size
from odc_stats_gpu.engine._session import Session, open_database, session_for
from odc_stats_gpu.errors import ConfigError, DataError, OdcStatsError
from odc_stats_gpu.ingest import plan_tile
from odc_stats_gpu.model import RunConfig, TileIndex, parse_config
from odc_stats_gpu.output import check_cog_options, is_done, item_uri
from odc_stats_gpu.tasks import select
from odc_stats_gpu.telemetry import log

_SCARCE = 3 << 30
"""Below this much memory the first tile is planned before the run begins."""


def prepare(request: RunRequest, *, embed: bool = False) -> Prepared:
    """Validate and name the jobs; `embed` puts the tasks themselves into the jobs.

    Raises ConfigError; a database or store that can't be used counts as one, too.
    """
    session = session_for(parse_config(request.config))
    indexes = _validate(request, session)
    session.store.check_writable()
    if session.why_cpu:
        log(session.why_cpu)
    if session.config.apply_eodatasets3:
        log(
            "apply_eodatasets3: a STAC item is written, EO3 documents are not supported yet",
            level="warning",
        )
    path = request.filedb
    jobs = [TaskJob(str(index), path) for index in indexes]
    if embed:
        jobs = [replace(job, task=session.task(job)) for job in jobs]
    return Prepared(
        jobs=tuple(jobs),
        device=session.device.name,
        location=session.store.location,
        threads=session.threads,
        memory_limit=session.limits.memory,
        config=session.config.redacted(),
    )


def _validate(request: RunRequest, session: Session) -> list[TileIndex]:
    """The tiles that are asked for; raises ConfigError."""
    config = session.config
    if config.device_memory:
        parse_bytes(config.device_memory)
    if config.block_size:
        parse_block_size(config.block_size)
    parse_pool(config.rmm_pool)  # also where there is no GPU: it may be meant for elsewhere
    check_cog_options(config.cog)
    if request.queue:
        return []
    if not request.filedb:
        raise ConfigError(
            "no task database given", "name the .db file that save-tasks wrote, or filedb in YAML"
        )
    try:
        database = open_database(request.filedb)
        indexes = select(database.indexes(), request.selectors)
        session.check_products(database.products)
    except DataError as exc:  # nothing can be done with this database: no tile's own failure
        raise ConfigError(exc.message, exc.remedy) from exc
    if indexes and (config.resolution or config.dataset_filters or config.memory_limit):
        _check_memory(session, TaskJob(str(indexes[0]), request.filedb))  # wrong values show now
    return indexes


def _check_memory(session: Session, job: TaskJob) -> None:
    """Plan a tile where memory is scarce; raises ConfigError."""
    task = session.task(job)
    if session.limits.memory < _SCARCE:
        tile = plan_tile(task, session.plugin, threads=session.threads)
        with suppress(DeviceTooSmallError):  # then the CPU makes it
            cut_tile(session, task, tile)


def check_part(config: RunConfig, job: TaskJob, *, workers: int, threads: int, memory: int) -> None:
    """Whether one of several workers can make a tile with its part; raises ConfigError."""
    if memory >= _SCARCE:
        return
    part = config.model_copy(update={"threads": threads, "memory_limit": str(memory)})
    try:
        _check_memory(Session(part, CpuDevice()), job)
    except ConfigError as exc:
        raise ConfigError(
            f"one of {workers} workers: {exc.message}", f"{exc.remedy}, or --workers"
        ) from None


def run_config(request: RunRequest) -> RunConfig:
    """The validated configuration of a request."""
    return parse_config(request.config)


@dataclass(frozen=True, slots=True)
class DryTask:
    """One task of a dry run."""

    line: str
    """As the incumbent prints it."""
    plan: tuple[str, ...]
    """What would be done, for people."""


def dry_run(request: RunRequest) -> Iterator[DryTask]:
    """What `run` would do, task by task; writes nothing. Raises ConfigError."""
    config = parse_config(request.config)
    device, why = plan_device(
        config.device, request.device_memory, assumed=bool(config.device_memory)
    )
    session = Session(config, device)
    indexes = _validate(request, session)
    if why:
        log(why)
    for index in indexes:
        yield _dry(session, TaskJob(str(index), request.filedb))


def _dry(session: Session, job: TaskJob) -> DryTask:
    task = session.task(job)
    days = len({(ds.time + task.utc_offset).date() for ds in task.datasets})
    done = is_done(task, session.store)
    flag = "new" if not done else "recompute" if session.config.overwrite else "skip"
    line = (
        f"{task.folder} days={days:03} ds={len(task.datasets):04} "
        f"{item_uri(task, session.store)} ({flag})"
    )
    try:
        plan = plan_tile(task, session.plugin, threads=session.threads)
        bands = session.plugin.output_bands(task.products)
        device: Device = session.device
        short = []
        try:
            cut = cut_tile(session, task, plan)
        except DeviceTooSmallError as exc:
            short, device = [f"{exc}: the CPU makes it"], CpuDevice()
            cut = cut_tile(session, task, plan, device)
        shape = cut.tile
        names = ", ".join(b.name for b in bands)
        tile = f"tile {shape[0]}x{shape[1]} {task.geobox.crs}"
        lines = [
            f"{len(task.datasets)} datasets on {days} days, {tile}, {len(bands)} bands: {names}",
            _reads(plan.describe()),
            *short,
            f"{cut}, {session.threads} threads, device {device.name}",
        ]
    except OdcStatsError as exc:
        lines = [f"can't be made: {exc}"]
    return DryTask(line, tuple(lines))


def _reads(counts: Mapping[str, int]) -> str:
    """What would be read, from the counts of the tile's plan."""
    return (
        f"reads {counts['reads']} bands of {counts['datasets']} scenes in {counts['crs']} CRS, "
        f"{show_bytes(counts['native_bytes'])} of native pixels"
    )
