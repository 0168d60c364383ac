"""`save-tasks`: from an archive or an index to a task database."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from odc_stats_gpu.cli._count import named_counter
from odc_stats_gpu.cli._reading import RequesterPays, Unsigned
from odc_stats_gpu.errors import ConfigError

if TYPE_CHECKING:
    from odc_stats_gpu.model import RunConfig
    from odc_stats_gpu.tasks import SaveSummary, Source


def save_tasks(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PRODUCTS] [OUTPUT]",
            help="Products a-b joined by a dash; what ends in .db is the file to write.",
        ),
    ] = None,
    input_products: Annotated[str | None, typer.Option(help="Products, as the argument.")] = None,
    grid: Annotated[
        str | None, typer.Option(help="au-30, africa-10, ... or crs;resolution;shape.")
    ] = None,
    frequency: Annotated[
        str | None, typer.Option(help="annual (default), seasonal, monthly, all, ...")
    ] = None,
    year: Annotated[int | None, typer.Option(help="One calendar year.")] = None,
    temporal_range: Annotated[
        str | None, typer.Option(help="START--P<n><Y|M|W|D>, for example 2020-06--P3M.")
    ] = None,
    eo3: Annotated[
        str | None,
        typer.Option(
            "--eo3", help="Folder with *.odc-metadata.yaml documents instead of an index."
        ),
    ] = None,
    product_definition: Annotated[
        list[str] | None, typer.Option(help="Product definition for --eo3; may be repeated.")
    ] = None,
    env: Annotated[
        str | None, typer.Option("--env", "-E", help="Datacube environment to read from.")
    ] = None,
    complevel: Annotated[
        int | None, typer.Option("-z", "--complevel", help="zstd level of stored documents.")
    ] = None,
    overwrite: Annotated[
        bool | None, typer.Option("--overwrite/--no-overwrite", help="Replace an existing file.")
    ] = None,
    tiles: Annotated[str | None, typer.Option(help="x0:x1,y0:y1, half open.")] = None,
    gqa: Annotated[
        float | None, typer.Option(help="Largest gqa_iterative_mean_xy of a scene, pixels.")
    ] = None,
    usgs_collection_category: Annotated[
        str | None, typer.Option(help="T1 or T2, for USGS Landsat products.")
    ] = None,
    dataset_filter: Annotated[
        str | None, typer.Option(help="JSON object that scenes must match.")
    ] = None,
    ignore_time: Annotated[
        list[str] | None, typer.Option(help="Product used for all times; may be repeated.")
    ] = None,
    optional_products: Annotated[
        list[str] | None, typer.Option(help="Product that may be missing; may be repeated.")
    ] = None,
    aws_unsigned: Unsigned = None,
    requester_pays: RequesterPays = None,
    config: Annotated[
        str | None, typer.Option(help="YAML: a file, a URL, or the text itself.")
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Tracebacks.")] = False,
) -> int:
    """Bin scenes into tiles and periods; write OUTPUT.db, a csv and a geojson per period.

    All years when no range is given. Exit codes: 0 written, 1 nothing found, 2 wrong use.
    """
    del debug  # read by the entry point
    from odc_stats_gpu.cli._yaml import merge
    from odc_stats_gpu.model import parse_config, set_read_access

    set_read_access(unsigned=aws_unsigned, requester_pays=requester_pays)
    products, output = _arguments(arguments or [], input_products)
    raw = merge(
        config,
        {
            "input_products": products, "grid": grid, "frequency": frequency, "year": year,
            "temporal_range": temporal_range, "complevel": complevel, "overwrite": overwrite,
            "tiles": tiles, "gqa": gqa, "usgs_collection_category": usgs_collection_category,
            "dataset_filter": dataset_filter, "ignore_time": ignore_time or None,
            "optional_products": optional_products or None, "aws_unsigned": aws_unsigned,
            "requester_pays": requester_pays,
        },
    )  # fmt: skip
    # a range given in one way on the command line replaces one given the other way in the file
    if year is not None and temporal_range is None:
        raw.pop("temporal_range", None)
    if temporal_range is not None and year is None:
        raw.pop("year", None)
    if config:
        typer.echo(f"configuration from {config if len(config) < 80 else 'the text given'}")

    settings = parse_config(raw)
    set_read_access(unsigned=settings.aws_unsigned, requester_pays=settings.requester_pays)
    return _save(settings, output, eo3=eo3, definitions=product_definition or [], env=env)


def _arguments(given: list[str], input_products: str | None) -> tuple[str | None, str]:
    """Products and output out of up to two positional arguments."""
    if len(given) > 2:
        raise ConfigError(
            f"too many arguments: {' '.join(given)}", "give products and one .db file"
        )
    outputs = [a for a in given if a.endswith(".db")]
    products = [a for a in given if not a.endswith(".db")]
    if not outputs and (len(products) == 2 or (products and input_products)):
        outputs = [products.pop()]
    if len(outputs) > 1 or len(products) > 1 or (products and input_products):
        raise ConfigError(
            f"can't tell products from output: {' '.join(given)}",
            "write save-tasks PRODUCTS OUTPUT.db",
        )
    return (products[0] if products else input_products), (outputs[0] if outputs else "")


def _save(
    settings: RunConfig, output: str, *, eo3: str | None, definitions: list[str], env: str | None
) -> int:
    from odc_stats_gpu.model import TimeRange
    from odc_stats_gpu.tasks import output_name, parse_grid, parse_tiles
    from odc_stats_gpu.tasks import save_tasks as save

    if settings.year is not None and settings.temporal_range:
        raise ConfigError("both --year and --temporal-range are given", "give one")
    if settings.ignore_time or settings.optional_products:
        raise ConfigError("--ignore-time and --optional-products need joined products (a+b), "
                          "which are not supported yet", "leave them out")  # fmt: skip
    if not settings.grid:
        raise ConfigError("no grid given", "give --grid au-30 or crs;resolution;shape")
    grid = parse_grid(settings.grid)
    within = TimeRange.year(settings.year) if settings.year is not None else None
    if settings.temporal_range:
        within = TimeRange.parse(settings.temporal_range)
    tiles = parse_tiles(settings.tiles) if settings.tiles else None
    source = _source(settings, eo3=eo3, definitions=definitions, env=env)
    names = settings.input_products
    expression = names if isinstance(names, str) else "-".join(names)
    output = output or output_name(expression or "-".join(source.products()), within)
    if tiles is not None:
        (x0, x1), (y0, y1) = tiles
        typer.echo(f"Limit search to tiles: x:[{x0}, {x1}) y:[{y0}, {y1})")
    typer.echo(
        f"Reading documents below {eo3}"
        if eo3
        else "Connecting to the database, streaming datasets"
    )
    summary = save(
        source, grid=grid, frequency=settings.frequency or "annual", temporal_range=within,
        tiles=tiles, output=output, overwrite=settings.overwrite, complevel=settings.complevel,
        gqa=settings.gqa, usgs_collection_category=settings.usgs_collection_category,
        progress=named_counter(),
    )  # fmt: skip
    return _tell(summary)


def _source(
    settings: RunConfig, *, eo3: str | None, definitions: list[str], env: str | None
) -> Source:
    if eo3 and env:
        raise ConfigError("--eo3 and --env exclude each other", "give one of them")
    if eo3:
        from odc_stats_gpu.tasks import Eo3Source

        return Eo3Source(eo3, definitions, settings.input_products, settings.dataset_filter)
    if definitions:
        raise ConfigError("--product-definition is for --eo3", "an index has its own definitions")
    if not settings.input_products:
        raise ConfigError(
            "no products given", "write save-tasks PRODUCT, or --eo3 DIR for a folder"
        )
    from odc_stats_gpu import tasks

    made: Source = tasks.DatacubeSource(
        settings.input_products, env=env, dataset_filter=settings.dataset_filter
    )
    return made


def _tell(summary: SaveSummary) -> int:
    for reason, count in summary.dropped.items():
        typer.echo(f"Left out {count} datasets: {reason}")
    if not summary.tiles:
        typer.echo("found no datasets (check products, period, --tiles and filters)")
        return 1
    typer.echo(f"Total of {summary.tiles} spatial tiles")
    typer.echo(f"Total of {summary.datasets} unique dataset IDs after filtering")
    for path in summary.files:
        verb = {".db": "Saved tasks to", ".csv": "Wrote summary to"}.get(
            Path(path).suffix, "..wrote"
        )
        typer.echo(f"{verb} {path}")
    typer.echo(".. done")
    return 0
