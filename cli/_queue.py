"""`publish-tasks`, `redrive-queue` and `queue-status`: the operator's side of the queue."""

from __future__ import annotations

import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from odc_stats_gpu.cli._count import counter, named_counter
from odc_stats_gpu.errors import ConfigError, StoreError

if TYPE_CHECKING:
    from odc_stats_gpu.queue import QueueStatus
    from odc_stats_gpu.tasks import TaskDb


def publish_tasks(
    db: Annotated[str, typer.Argument(help="Task database; when no such file exists, s3://DB.")],
    queue: Annotated[str, typer.Argument(help="Name, URL or ARN of the queue.")],
    task_filter: Annotated[
        list[str] | None, typer.Argument(help="Which tasks, as for run; default all.")
    ] = None,
    geojson_filter: Annotated[
        str | None, typer.Option(help="Only tiles that touch this area: a path or a URL.")
    ] = None,
    allow_local: Annotated[
        bool,
        typer.Option("--allow-local", help="Publish a local path: workers must see the same file."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "--dryrun", help="Print the tasks; send nothing.")
    ] = False,
) -> int:
    """Send the tasks of a database to a queue.

    Exit codes: 0 all accepted, 1 some were refused for good, 2 wrong options.
    """
    from odc_stats_gpu.engine import local_database
    from odc_stats_gpu.queue import publish, queue_url
    from odc_stats_gpu.tasks import TaskDb, select

    address = _address(db)
    local = _is_local(address)
    if local and not dry_run and not allow_local:
        raise ConfigError(
            f"{address} is a local file that workers elsewhere can't read",
            "copy it to S3 and publish that address, or say --allow-local",
        )
    with TaskDb.open(local_database(address)) as tasks:
        indexes = tasks.indexes()
        if task_filter:
            indexes = select(indexes, task_filter)
        if geojson_filter:
            indexes = _inside(indexes, tasks, geojson_filter)
    filtered = " after filtering" if task_filter or geojson_filter else ""
    typer.echo(f"Found {len(indexes)} tasks in the file{filtered}", err=dry_run)
    if dry_run:
        for index in indexes:
            typer.echo(f"{index.period}/{index.x:+04d}/{index.y:+04d}")
        return 0
    if local:
        address = str(Path(address.removeprefix("file://")).absolute())
    summary = publish(address, queue_url(queue), indexes, counter("tasks sent"))
    for index, reason in summary.failed.items():
        sys.stderr.write(f"refused: {index}: {reason}\n")
    typer.echo(f"Published {summary.sent} of {summary.found} tasks to {queue}")
    return 1 if summary.failed else 0


def _is_local(address: str) -> bool:
    return "://" not in address or address.startswith("file://")


def _address(db: str) -> str:
    """The database as workers shall open it; what is no local file is taken as an S3 address."""
    if "://" in db:
        return db
    if Path(db).exists():
        return db
    if "/" in db.strip("/"):
        sys.stderr.write(f"no file {db} here: taken as s3://{db}\n")
        return f"s3://{db}"
    raise ConfigError(f"no such task database: {db}", "give a path or s3://bucket/prefix/x.db")


def _inside(indexes: list, tasks: TaskDb, source: str) -> list:  # type: ignore[type-arg]
    import json

    from odc_stats_gpu.engine import read_url
    from odc_stats_gpu.queue import within

    try:
        text = read_url(source) if "://" in source else Path(source).read_bytes()
        area = json.loads(text)
    except (OSError, ValueError) as exc:
        why = f"not JSON, {exc}" if isinstance(exc, json.JSONDecodeError) else exc
        raise ConfigError(
            f"can't read the area {source}: {getattr(exc, 'strerror', None) or why}",
            "give a GeoJSON file or URL",
        ) from None
    return within(indexes, tasks.grid, area, source)


def redrive_queue(
    queue: Annotated[str, typer.Argument(help="The dead-letter queue, or a queue that has one.")],
    to_queue: Annotated[
        str | None, typer.Argument(help="Where to; default the queue it belongs to.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", "-l", help="At most so many; default all.")
    ] = None,
    native: Annotated[
        bool, typer.Option("--native", help="Let SQS move everything (StartMessageMoveTask).")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "--dryrun", help="Say how many; move nothing.")
    ] = False,
) -> int:
    """Send the messages of a dead-letter queue back to work.

    Nothing leaves the dead-letter queue before its copy is accepted. Exit codes: 0 all moved, 1
    some were refused or could not be deleted, 2 wrong options.
    """
    from odc_stats_gpu.queue import (
        attributes,
        dead_letter_queue,
        queue_name,
        queue_url,
        redrive,
        redrive_native,
        redrive_target,
    )

    if limit is not None and limit < 1:
        raise ConfigError(
            f"--limit {limit} moves nothing", "give a number above 0, or leave it out"
        )
    if native and limit is not None:
        raise ConfigError("--native moves everything", "leave out --limit or --native")
    dead = queue_url(queue)
    own = dead_letter_queue(dead)
    target = queue_url(to_queue) if to_queue else None
    if own is not None and target is None:  # the name of a working queue was given
        dead, target = own, dead
    target = target or redrive_target(dead)
    if target == dead:
        raise ConfigError(f"{queue_name(dead)} can't be moved to itself", "name another target")
    names = f"{queue_name(dead)} to {queue_name(target)}"
    if dry_run:
        waiting = int(attributes(dead).get("ApproximateNumberOfMessages", 0))
        count = waiting if limit is None else min(limit, waiting)
        typer.echo(
            f"Would move about {count} messages from {queue_name(dead)} to {queue_name(target)}"
        )
        return 0
    if native:
        typer.echo(f"SQS moves {names}: {redrive_native(dead, target)}")
        return 0
    show = named_counter()
    summary = redrive(dead, target, limit, partial(show, "messages moved") if show else None)
    for message, reason in summary.failed.items():
        sys.stderr.write(f"refused: {message}: {reason}\n")
    if summary.undeleted:
        sys.stderr.write(f"{summary.undeleted} copies were sent whose originals remain\n")
    typer.echo(f"Moved {summary.moved} messages from {names}")
    return 1 if summary.failed or summary.undeleted else 0


def queue_status(
    queue: Annotated[str, typer.Argument(help="Name, URL or ARN of the queue.")],
    watch: Annotated[
        bool, typer.Option("--watch", help="Repeat until interrupted: --watch, --watch SECONDS.")
    ] = False,
    interval: Annotated[
        float, typer.Option(min=0.1, help="Seconds between two looks of --watch.")
    ] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> int:
    """Show how many messages are visible, in flight and dead, and how old the oldest is."""
    import dataclasses
    import json

    from odc_stats_gpu.queue import queue_status as look
    from odc_stats_gpu.queue import queue_url

    url = queue_url(queue)
    while True:
        try:
            status = look(url)
        except StoreError as exc:
            if not watch:
                raise
            sys.stderr.write(f"{exc}\n")
        else:
            typer.echo(json.dumps(dataclasses.asdict(status)) if as_json else _line(status))
        sys.stdout.flush()  # a watcher may be a pipe
        if not watch:
            return 0
        time.sleep(interval)


def _line(status: QueueStatus) -> str:
    parts = [f"{status.visible} visible", f"{status.in_flight} in flight"]
    if status.delayed:
        parts.append(f"{status.delayed} delayed")
    if status.dead is not None:
        parts.append(f"{status.dead} dead in {status.dead_queue}")
    if status.oldest_age is not None:
        parts.append(f"oldest {status.oldest_age:.0f} s")
    return f"{status.queue}: {', '.join(parts)}"
