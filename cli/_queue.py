"""`publish-tasks` and `redrive-queue`: the operator's side of the queue."""

from __future__ import annotations

from typing import Annotated

import typer

from odc_stats_gpu.errors import ConfigError


def publish_tasks(
    db: Annotated[str, typer.Argument(help="Task database; when no such file exists, s3://DB.")],
    queue: Annotated[str, typer.Argument(help="Name of the queue.")],
    task_filter: Annotated[
        list[str] | None, typer.Argument(help="Which tasks, as for run; default all.")
    ] = None,
    geojson_filter: Annotated[
        str | None, typer.Option(help="Only tiles that touch this area: a path or a URL.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "--dryrun", help="Print the tasks; send nothing.")
    ] = False,
) -> int:
    """Send the tasks of a database to a queue."""
    del db, queue, task_filter, geojson_filter, dry_run
    raise ConfigError("publish-tasks is not part of this version", "use run with a task database")


def redrive_queue(
    queue: Annotated[str, typer.Argument(help="Name of the dead-letter queue.")],
    to_queue: Annotated[
        str | None, typer.Argument(help="Where to; default the queue it belongs to.")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", "-l", help="At most so many.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "--dryrun", help="Say how many; move nothing.")
    ] = False,
) -> int:
    """Send the messages of a dead-letter queue back to work."""
    del queue, to_queue, limit, dry_run
    raise ConfigError("redrive-queue is not part of this version", "use the AWS console meanwhile")
