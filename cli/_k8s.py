"""`k8s render`: a job file into Kubernetes manifests."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from odc_stats_gpu.errors import ConfigError

k8s = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Manifests of a fleet.")


@k8s.callback()
def _group() -> None:
    """Manifests of a fleet."""


@k8s.command("render")
def render_job(
    config: Annotated[
        str, typer.Option(help="The job file, YAML: name, queue, image, region, config, ...")
    ],
    output: Annotated[
        str, typer.Option(help="Folder for one file per object; - prints them all.")
    ] = "-",
) -> int:
    """Write the manifests of one job: `... k8s render --config job.yaml | kubectl apply -f -`.

    `config` in the job file is the configuration of `run`: a path from the job file's folder, a
    URL, or the keys themselves.
    """
    from odc_stats_gpu.cli._yaml import read_mapping
    from odc_stats_gpu.fleet import as_yaml, kustomization, parse_job, render
    from odc_stats_gpu.plugins import load_plugin, registered_plugins

    raw = read_mapping(config, "--config")
    if isinstance(raw.get("config"), str):
        raw["config"] = read_mapping(_beside(config, raw["config"]), "config")
    where = "the job file" if "\n" in config or ":" in config else Path(config).name
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if region and "amazonaws.com" not in str(raw.get("queue")):
        raw.setdefault("region", region)
    spec = parse_job(raw, where)
    if spec.config["plugin"] in registered_plugins():  # others may be in the image only
        load_plugin(spec.config["plugin"], spec.config.get("plugin_config"))
    manifests = render(spec)
    if output == "-":
        typer.echo(as_yaml(manifests.values()), nl=False)
        return 0
    _write(Path(output), {**manifests, "kustomization.yaml": kustomization(manifests)}, as_yaml)
    typer.echo(f"{len(manifests)} manifests in {output}; apply with: kubectl apply -k {output}")
    return 0


def _beside(job: str, path: str) -> str:
    """A relative path is meant from where the job file lies."""
    near = Path(job).parent / path if "\n" not in job and "\n" not in path else None
    return str(near) if near is not None and os.path.isfile(near) else path  # noqa: PTH113 - a long text is no error for os


def _write(folder: Path, files: dict[str, Any], as_yaml: Any) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, manifest in files.items():
            (folder / name).write_text(as_yaml([manifest]))
    except OSError as exc:
        raise ConfigError(
            f"can't write into {folder}: {exc.strerror}", "choose another --output"
        ) from None
