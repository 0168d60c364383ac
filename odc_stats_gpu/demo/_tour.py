"""The whole job on a made-up archive: scenes, tasks, tiles, proof, report."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from odc_stats_gpu.demo._archive import Archive
from odc_stats_gpu.demo._sensors import Kind
from odc_stats_gpu.demo._steps import Step, perform
from odc_stats_gpu.demo._write import write_archive
from odc_stats_gpu.errors import ConfigError

_CONFIGS = Path(__file__).parent  # the YAML files beside this module
_DATES: dict[Kind, int] = {"landsat": 24, "sentinel2": 18}
_PRODUCTS: dict[Kind, tuple[tuple[str, str], ...]] = {
    "landsat": (
        ("gm-ls", "Geomedian and spread of a year of Landsat, one tile in two UTM zones"),
        ("pq-ls", "How often the same tile was seen clear, by fmask"),
    ),
    "sentinel2": (
        ("gm-s2", "Geomedian of all ten Sentinel-2 bands on 10 m pixels"),
        ("pq-s2", "How often that tile was seen clear, by scene classification"),
    ),
}


def run_demo(
    out: Path = Path("demo-out"),
    *,
    seed: int = 0,
    threads: int | None = None,
    device: str = "auto",
    tile_pixels: int = 640,
    progress: bool = True,
) -> int:
    """Write both archives and run every command on them; 0 or the exit code of the failed step.

    `out` gets archive/, config/, tasks/, results/, logs/ and report.html. A second run reuses the
    archives and makes everything else anew. `progress=False` prints only commands and results.
    Raises ConfigError where `out` can't be written or a size is out of range.
    """
    out = Path(out)
    writers = threads or min(8, os.cpu_count() or 1)  # `run` counts the cores it may use by itself
    console = Console(highlight=False)
    begin = time.perf_counter()
    timings: dict[str, float] = {}
    folders = _folders(out)
    archives: list[Archive] = []
    console.print("[bold]# A year of made-up scenes in real formats: COGs and EO3 documents[/bold]")
    for kind in _PRODUCTS:
        start = time.perf_counter()
        archives.append(_archive(out, kind, tile_pixels, seed, writers, console, show=progress))
        timings[f"write {archives[-1].product}"] = time.perf_counter() - start
        console.print(f"  {len(archives[-1].scenes)} scenes in {archives[-1].folder}")
    for number, step in enumerate(_plan(out, archives, threads, device), 1):
        outcome = perform(
            step, folders["logs"] / f"{number:02d}-{step.name.replace(' ', '-')}.log", console
        )
        timings[step.name] = outcome.seconds
        if outcome.code:
            console.print(f"The demo stopped. Its files are in {out}", style="bold red")
            return outcome.code
    locations = [out / "results" / name for a in archives for name, _ in _PRODUCTS[a.kind]]
    timings["all together"] = time.perf_counter() - begin
    report = _report(out, archives, locations, timings)
    console.print(f"\nFinished in {time.perf_counter() - begin:.0f} s. Pictures and numbers:")
    console.print(str(report), style="bold", markup=False, soft_wrap=True)
    return 0


def _folders(out: Path) -> dict[str, Path]:
    """Make the folders, empty but for the archive; raises ConfigError."""
    folders = {name: out / name for name in ("config", "tasks", "results", "logs")}
    mark = out / ".odc-stats-gpu-demo"
    try:
        if out.exists() and not mark.exists() and any(f.exists() for f in folders.values()):
            raise ConfigError(
                f"{out} holds folders that the demo didn't make", "choose another one with --out"
            )
        out.mkdir(parents=True, exist_ok=True)
        mark.touch()
        for folder in folders.values():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        for config in sorted(_CONFIGS.glob("*.yaml")):
            shutil.copyfile(config, folders["config"] / config.name)
    except OSError as exc:
        raise ConfigError(f"can't write to {out}: {exc}", "choose another one with --out") from exc
    return folders


def _archive(
    out: Path,
    kind: Kind,
    tile_pixels: int,
    seed: int,
    threads: int,
    console: Console,
    *,
    show: bool,
) -> Archive:
    bar = Progress(
        TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(),
        TextColumn("scenes"), TimeElapsedColumn(), console=console, transient=True,
        disable=not (show and console.is_terminal),
    )  # fmt: skip
    with bar:
        task = bar.add_task(kind, total=None)
        return write_archive(
            out / "archive" / kind,
            kind=kind,
            tile_pixels=tile_pixels,
            dates=_DATES[kind],
            seed=seed,
            threads=threads,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )


def _plan(out: Path, archives: list[Archive], threads: int | None, device: str) -> list[Step]:
    """Commands of the tour, in order."""
    save, run = [], []
    for archive in archives:
        x, y = archive.tiles[0]
        db = str(out / "tasks" / f"{archive.product}_{archive.year}.db")
        where = ("--grid", archive.grid, "--tiles", f"{x}:{x + 1},{y}:{y + 1}")
        save.append(
            Step(
                f"save-tasks {archive.product}",
                "Which scenes does the tile need?",
                ("save-tasks", "--eo3", str(archive.folder), *where, "--frequency", "annual",
                 archive.product, db),
            )
        )  # fmt: skip
        for name, why in _PRODUCTS[archive.kind]:
            config, location = str(out / "config" / f"{name}.yaml"), str(out / "results" / name)
            how: tuple[str, ...] = ("--threads", str(threads)) if threads else ()
            how += () if device == "auto" else ("--device", device)
            args = ("run", db, "--config", config, "--location", location, *how)
            run.append(Step(f"run {name}", why, args))
    proof = "Are checksums, COGs and metadata of all tiles as they should be?"
    verify = Step("verify", proof, ("verify", str(out / "results")))
    return [*save, *run, verify]


def _report(
    out: Path, archives: list[Archive], locations: list[Path], timings: dict[str, float]
) -> Path:
    from odc_stats_gpu.output import write_report

    path = out / "report.html"
    write_report(
        [str(p) for p in locations],
        path,
        scenes=[str(d) for a in archives for d in a.documents],
        timings=timings,
        title="Demo: a year of made-up scenes, one picture without clouds",
    )
    return path.resolve()
