"""Compile the CUDA kernels for devices that need not be here: for images of fleets.

    python -m odc_stats_gpu.kernels.compile_ahead FOLDER --targets 7.5 8.6 9.0

The geomedian for the usual numbers of bands and dates, integers of 16 bits; every other kernel for
the types that it is used with. What isn't among them a worker compiles itself.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from odc_stats_gpu.kernels._cuda_ahead import dump, entry, target_of

Target = tuple[int, int]
CHIPS = {
    (7, 5): (64, 16), (8, 0): (164, 32), (8, 6): (100, 16), (8, 9): (100, 24),
    (9, 0): (228, 32), (10, 0): (228, 32), (12, 0): (100, 24),
}  # fmt: skip
"""Target to KiB of shared memory and resident blocks of a multiprocessor."""
BANDS, KINDS, DATES = (6, 10), ("int16", "uint16"), range(1, 201)
ROOMS = ("warp", "masks", "morphology", "fuse", "counts")


@dataclass(frozen=True)
class Wanted:
    """One kernel for one set of types."""

    name: str
    dispatcher: Any
    variant: str
    types: tuple[Any, ...]
    targets: tuple[Target, ...]

    @property
    def file(self) -> str:
        """Its name in the folder."""
        return entry(
            self.dispatcher.py_func, self.variant, self.types, self.dispatcher.targetoptions
        )


def wanted(targets: Sequence[Target], only: str = "") -> Iterator[Wanted]:
    """All kernels of the usual products whose name contains `only`."""
    for one in (*_geomedians(targets), *_others(targets)):
        if only in one.name:
            yield one


def compile_one(one: Wanted, folder: Path) -> int:
    """Write one kernel; return its size in bytes."""
    from numba.cuda import codegen, dispatcher

    # both ask the driver for the device at hand, of which there is none
    first = one.targets[0]
    dispatcher.get_current_device = lambda: SimpleNamespace(compute_capability=first)
    codegen.CUDACodeLibrary._ensure_cc = lambda _self, cc: cc or target_of(first)  # noqa: SLF001
    kernel = dispatcher._Kernel(one.dispatcher.py_func, one.types, **one.dispatcher.targetoptions)  # noqa: SLF001
    for target in one.targets:
        kernel.library.get_cubin(cc=target_of(target))
    content = dump(kernel)
    part = folder / f"{one.file}.{os.getpid()}"
    part.write_bytes(content)
    part.replace(folder / one.file)
    return len(content)


def main(arguments: Sequence[str] | None = None) -> None:
    """Compile on all processors; print what was made."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--targets", nargs="+", type=_target, default=list(CHIPS), metavar="X.Y",
        help="compute capabilities; default: " + " ".join(f"{a}.{b}" for a, b in CHIPS),
    )  # fmt: skip
    parser.add_argument("--only", default="", help="kernels whose name contains this")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes")
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    names = [one.name for one in wanted(options.targets, options.only)]
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        jobs = [
            pool.submit(_nth, k, options.targets, options.only, options.folder)
            for k in range(len(names))
        ]
        sizes = [job.result() for job in jobs]
    for name, size in zip(names, sizes, strict=True):
        sys.stdout.write(f"{name}: {size / 1024:.0f} KiB\n")
    sys.stdout.write(f"{len(names)} kernels, {sum(sizes) / (1 << 20):.1f} MiB\n")


def _nth(k: int, targets: Sequence[Target], only: str, folder: Path) -> int:
    """In a process of its own, which can't be handed a kernel."""
    return compile_one(list(wanted(targets, only))[k], folder)


def _geomedians(targets: Sequence[Target]) -> Iterator[Wanted]:
    from odc_stats_gpu.kernels.geomedian._cuda_kernel import geomad_types
    from odc_stats_gpu.kernels.geomedian._cuda_plan import Multiprocessors, plan
    from odc_stats_gpu.kernels.geomedian.cuda import compiled, variant_name

    for bands in BANDS:
        for kind in KINDS:
            chosen: dict[tuple[int, bool], list[Target]] = {}
            for target in targets:
                shared, blocks = CHIPS[target]
                chip = Multiprocessors(count=64, shared_bytes=shared << 10, blocks=blocks)
                plans = (plan(bands, kind, dates, 1 << 20, chip) for dates in DATES)
                for how in dict.fromkeys((p.lanes, p.on_chip) for p in plans):
                    chosen.setdefault(how, []).append(target)
            for (lanes, on_chip), where in chosen.items():
                kernel = compiled(bands, lanes, kind, on_chip)
                variant = variant_name(lanes, on_chip)
                for layout in "AC":
                    types = _laid_out(geomad_types(bands, kind), layout)
                    name = f"geomad {bands} {kind} {layout} {variant}"
                    yield Wanted(name, kernel, variant, types, tuple(where))


def _others(targets: Sequence[Target]) -> Iterator[Wanted]:
    from odc_stats_gpu.kernels._cuda_launch import kernel

    seen = set()
    for room in ROOMS:
        for name, function, types in import_module(f"odc_stats_gpu.kernels.{room}.cuda").KERNELS:
            for kind in ("int16", "uint16"):
                for layout in "AC":
                    given = tuple(_of_kind(t, kind) for t in _laid_out(types, layout))
                    one = Wanted(
                        f"{name} {kind} {layout}", kernel(function), "", given, tuple(targets)
                    )
                    if one.file not in seen:
                        seen.add(one.file)
                        yield one


def _laid_out(types: Sequence[Any], layout: str) -> tuple[Any, ...]:
    """The same types, arrays of any strides with this layout."""
    return tuple(t.copy(layout=layout) if getattr(t, "layout", "") == "A" else t for t in types)


def _of_kind(given: Any, kind: str) -> Any:
    """int16 of another kind."""
    from numba import types

    if given == types.int16:
        return getattr(types, kind)
    if isinstance(given, types.Array) and given.dtype == types.int16:
        return given.copy(dtype=getattr(types, kind))
    return given


def _target(text: str) -> Target:
    major, _, minor = text.partition(".")
    found = (int(major), int(minor or 0)) if major.isdigit() and (minor or "0").isdigit() else None
    if found not in CHIPS:
        known = " ".join(f"{a}.{b}" for a, b in CHIPS)
        raise argparse.ArgumentTypeError(f"unknown target {text!r}, known: {known}")
    return found


if __name__ == "__main__":
    main()
