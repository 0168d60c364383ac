"""The commands. Each lives in a module of its own and imports what it needs when it runs."""

from __future__ import annotations

from typing import Annotated

import typer

from odc_stats_gpu.cli._k8s import k8s
from odc_stats_gpu.cli._look import demo, doctor, report, verify
from odc_stats_gpu.cli._queue import publish_tasks, queue_status, redrive_queue
from odc_stats_gpu.cli._run import run
from odc_stats_gpu.cli._save_tasks import save_tasks

app = typer.Typer(
    name="odc-stats-gpu",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,  # plain text: no boxes, and no import of rich
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"], "max_content_width": 100},
)


def _version(value: bool) -> None:
    if value:
        from odc_stats_gpu import __version__

        typer.echo(f"odc-stats-gpu {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print and exit.")
    ] = False,
) -> None:
    """Geometric medians, MADs and clear counts of satellite archives, tile by tile."""
    del version


app.command("save-tasks")(save_tasks)
app.command("run", context_settings={"ignore_unknown_options": False})(run)
app.command("publish-tasks")(publish_tasks)
app.command("redrive-queue")(redrive_queue)
app.command("queue-status")(queue_status)
app.command("demo")(demo)
app.command("verify")(verify)
app.command("report")(report)
app.command("doctor")(doctor)
app.add_typer(k8s, name="k8s")
