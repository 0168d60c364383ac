"""Commands that look at something: verify, report, doctor; and the demo."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from odc_stats_gpu.cli._count import counter
from odc_stats_gpu.cli._reading import RequesterPays, Unsigned


def verify(
    location: Annotated[str, typer.Argument(help="Where the tiles are: a folder or s3://...")],
    as_json: Annotated[bool, typer.Option("--json", help="Findings as JSON.")] = False,
    aws_unsigned: Unsigned = None,
    requester_pays: RequesterPays = None,
) -> int:
    """Check checksums, COGs, STAC items, types and nodata of finished tiles; exit 1 when not ok."""
    from odc_stats_gpu.model import set_read_access
    from odc_stats_gpu.output import verify as check

    set_read_access(unsigned=aws_unsigned, requester_pays=requester_pays)
    found = check(location, progress=counter("tiles"))
    typer.echo(json.dumps(found.to_dict(), indent=2) if as_json else str(found))
    return 0 if found.ok else 1


def report(
    location: Annotated[str, typer.Argument(help="Where the tiles are: a folder or s3://...")],
    out: Annotated[Path, typer.Option(help="HTML file to write.")] = Path("report.html"),
    aws_unsigned: Unsigned = None,
    requester_pays: RequesterPays = None,
) -> int:
    """Write one HTML page with pictures of all bands of finished tiles."""
    from odc_stats_gpu.model import set_read_access
    from odc_stats_gpu.output import write_report

    set_read_access(unsigned=aws_unsigned, requester_pays=requester_pays)
    typer.echo(f"wrote {write_report(location, out)}")
    return 0


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the archive, tiles and report.")] = Path(
        "demo-out"
    ),
    seed: Annotated[int, typer.Option(help="Another seed, another landscape.")] = 0,
) -> int:
    """Write a made-up archive, make tiles of it with every plugin, verify, report."""
    from odc_stats_gpu.demo import run_demo

    return run_demo(out, seed=seed)


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Findings as JSON.")] = False,
    env: Annotated[
        str | None, typer.Option("--env", "-E", help="Datacube environment to try.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Compile no kernel, wait for no network.")
    ] = False,
) -> int:
    """Look at GPUs, CUDA, kernels, memory, CPUs, disk, GDAL, AWS, the datacube; one line each.

    Exit codes: 0 tiles can be made here, on the CPU at least; 1 something that every run needs is
    missing.
    """
    from odc_stats_gpu.engine import examine

    findings = examine(env=env, quick=quick)
    if as_json:
        typer.echo(json.dumps([asdict(f) for f in findings], indent=2))
    else:
        width = max(len(f.what) for f in findings)
        for f in findings:
            remedy = f"  -> {f.remedy}" if f.remedy else ""
            typer.echo(f"{f.what:<{width}}  {'ok' if f.ok else 'no'}  {f.found}{remedy}")
    sys.stdout.flush()
    return int(any(f.needed and not f.ok for f in findings))
