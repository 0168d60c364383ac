"""`run`: make tiles of a task database."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from odc_stats_gpu.cli._reading import RequesterPays, Unsigned
from odc_stats_gpu.cli._run_tiles import LogFormat, make_tiles, plan_tiles
from odc_stats_gpu.errors import ConfigError


def run(
    ctx: typer.Context,
    filedb: Annotated[str, typer.Argument(help="Task database written by save-tasks.")] = "",
    tasks: Annotated[
        list[str] | None,
        typer.Argument(
            help="Which tasks: period/x/y, a row number of the csv, a slice like 0:10. Default all."
        ),
    ] = None,
    config: Annotated[
        str | None, typer.Option(help="YAML: a file, a URL, or the text itself.")
    ] = None,
    plugin: Annotated[
        str | None,
        typer.Option(help="gm-ls, gm-s2, gm-generic, pq, package.module.Class or file.py:Class."),
    ] = None,
    plugin_config: Annotated[
        str | None, typer.Option(help="YAML keys that overrule those of plugin_config.")
    ] = None,
    cog_config: Annotated[
        str | None, typer.Option(help="YAML that replaces cog_opts as a whole.")
    ] = None,
    location: Annotated[
        str | None,
        typer.Option(help="Where tiles go: a folder, file:///dir or s3://bucket/prefix."),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="Threads; 0 or less: all CPUs of the control group.")
    ] = None,
    memory_limit: Annotated[
        str | None,
        typer.Option(
            help="60Gi, 8GB, 1024Mi. Never more than the control group has; default that."
        ),
    ] = None,
    resolution: Annotated[
        str | None, typer.Option(help="Pixel size instead of the grid's; divides the tile.")
    ] = None,
    resampling: Annotated[
        str | None, typer.Option(help="nearest, bilinear, cubic or average.")
    ] = None,
    block_size: Annotated[
        str | None, typer.Option(help="N or HxW pixels instead of the memory plan's choice.")
    ] = None,
    overwrite: Annotated[
        bool | None,
        typer.Option("--overwrite/--no-overwrite", help="Make tiles again that are finished."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "--dryrun", help="Print what would be done; write nothing.")
    ] = False,
    device: Annotated[
        str | None, typer.Option(help="auto, cpu or cuda. Default auto: CUDA where there is one.")
    ] = None,
    device_memory: Annotated[
        str | None,
        typer.Option(
            help="16Gi: bound on what blocks may take of a GPU; default what is free. "
            "With --dry-run the GPU may be elsewhere."
        ),
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            help="worker: one supervised process; dask-cuda: one per GPU; dask: a LocalCluster; "
            "none: in-process. Default dask-cuda where a GPU is used, else worker."
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=0, help="Dask workers; 0: one per GPU, or one. Threads are shared out."),
    ] = None,
    rmm_pool: Annotated[
        str | None,
        typer.Option(
            help="Pool per GPU: fraction of its free memory, default 0.8; 0: none; async."
        ),
    ] = None,
    dashboard: Annotated[
        str | None, typer.Option(help="Dask's dashboard at this address, e.g. :8787. Default none.")
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="tcp://host:port of a Dask cluster that runs already.")
    ] = None,
    max_processing_time: Annotated[
        int | None, typer.Option(help="Seconds after which a tile is stopped; 0: never.")
    ] = None,
    dataset_filters: Annotated[
        str | None, typer.Option(help="JSON objects joined by |: scenes that match any are used.")
    ] = None,
    public: Annotated[
        bool | None,
        typer.Option("--public/--no-public", help="S3 objects readable by everybody, or not."),
    ] = None,
    aws_unsigned: Unsigned = None,
    requester_pays: RequesterPays = None,
    apply_eodatasets3: Annotated[
        bool | None,
        typer.Option(
            "--apply-eodatasets3/--no-apply-eodatasets3",
            "--apply_eodatasets3/--no-apply_eodatasets3",
            help="Write EO3 documents, too.",
        ),
    ] = None,
    heartbeat_filepath: Annotated[
        str | None, typer.Option(help="File that is touched as long as the run is alive.")
    ] = None,
    from_sqs: Annotated[str | None, typer.Option(help="Take tasks from this queue.")] = None,
    idle_timeout: Annotated[
        float | None,
        typer.Option(
            min=0, help="Seconds without anything visible in the queue; default lease + 60."
        ),
    ] = None,
    max_tasks: Annotated[
        int | None, typer.Option(min=1, help="Leave the queue after so many tasks.")
    ] = None,
    metrics_port: Annotated[
        int | None, typer.Option(help="Serve Prometheus metrics at this port.")
    ] = None,
    spot_notice: Annotated[
        bool,
        typer.Option("--spot-notice/--no-spot-notice", help="Heed EC2's notice of a reclaim."),
    ] = True,
    prefetch: Annotated[
        bool,
        typer.Option(
            "--prefetch/--no-prefetch",
            help="Take and plan the next message while a tile is in work. Default: no.",
        ),
    ] = False,
    profile: Annotated[
        Literal["nsys", "ncu"] | None,
        typer.Option(
            help="Run under nsys (timeline) or ncu (kernels); with --dry-run print the command."
        ),
    ] = None,
    profile_output: Annotated[
        str, typer.Option(help="The profiler's file. Default odc-stats-gpu.nsys-rep or .ncu-rep.")
    ] = "",
    log_format: Annotated[
        LogFormat, typer.Option(help="Lines for people or for Loki.")
    ] = "console",
    debug: Annotated[bool, typer.Option("--debug", help="More log lines, tracebacks.")] = False,
) -> int:
    """Make the tiles of a task database: read, reduce, write COGs and a STAC item.

    Exit codes: 0 done, 1 some tasks failed, 2 wrong options or configuration, 3 interrupted.
    """
    from odc_stats_gpu.cli._yaml import merge, read_mapping
    from odc_stats_gpu.model import set_read_access

    if profile_output and not profile:
        raise ConfigError("--profile-output without --profile", "add --profile nsys or ncu")
    if from_sqs:
        if dry_run and not profile:
            raise ConfigError("--dry-run doesn't go with --from-sqs", "name a task database")
        if tasks:
            raise ConfigError("tasks and --from-sqs exclude each other", "give one of them")
    set_read_access(unsigned=aws_unsigned, requester_pays=requester_pays)
    s3_acl = None if public is None else "public-read" if public else ""
    raw = merge(
        config,
        {
            "plugin": plugin, "output_location": location, "threads": threads,
            "memory_limit": memory_limit, "resolution": resolution, "block_size": block_size,
            "overwrite": overwrite, "device": device, "device_memory": device_memory,
            "cluster": cluster, "scheduler": scheduler,
            "max_processing_time": max_processing_time, "dataset_filters": dataset_filters,
            "s3_acl": s3_acl, "apply_eodatasets3": apply_eodatasets3,
            "heartbeat_filepath": heartbeat_filepath, "workers": workers, "rmm_pool": rmm_pool,
            "dashboard": dashboard, "aws_unsigned": aws_unsigned,
            "requester_pays": requester_pays,
        },
    )  # fmt: skip
    if public is False:
        raw["s3_public"] = False
    plugin_keys = read_mapping(plugin_config, "--plugin-config") if plugin_config else {}
    if resampling is not None:
        plugin_keys["resampling"] = resampling
    if plugin_keys:
        raw["plugin_config"] = {**_keys(raw.get("plugin_config")), **plugin_keys}
    if cog_config:
        raw["cog_opts"] = read_mapping(cog_config, "--cog-config")
    if profile:
        from odc_stats_gpu.cli._profile import profile_run

        return profile_run(profile, profile_output, ctx.obj or sys.argv[1:], raw, dry_run)
    path, selectors = _database(filedb, tasks or [], raw)

    from odc_stats_gpu.engine import RunRequest

    level = "debug" if debug else "info"
    if from_sqs:
        from odc_stats_gpu.cli._run_queue import QueueOptions, run_queue

        request = RunRequest(raw, path, (), _process_start(), level, queue=True)
        options = QueueOptions(
            from_sqs, idle_timeout, max_tasks, metrics_port, spot_notice, prefetch
        )
        return run_queue(request, options, log_format, debug)
    request = RunRequest(raw, path, tuple(selectors), _process_start(), level)
    if dry_run:
        return plan_tiles(request, log_format)
    return make_tiles(request, log_format, debug)


def _keys(value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(
            f"plugin_config is a {type(value).__name__}", "keys and values are needed"
        )
    return value


def _database(filedb: str, tasks: list[str], raw: dict[str, Any]) -> tuple[str, list[str]]:
    """Database and selectors: with `filedb` in the configuration, the first may be a task."""
    configured = str(raw.get("filedb") or "")
    if configured and filedb and not filedb.endswith(".db") and not Path(filedb).exists():
        return configured, [filedb, *tasks]
    path = filedb or configured
    return (path if "://" in path or not path else str(Path(path).absolute())), tasks


def _process_start() -> float:
    """Epoch seconds at which this process was started, by the kernel's account."""
    with contextlib.suppress(OSError, ValueError, IndexError, StopIteration):
        ticks = float(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        up = float(Path("/proc/uptime").read_text().split()[0])
        return time.time() - up + ticks / os.sysconf("SC_CLK_TCK")
    return time.time() - time.process_time()
