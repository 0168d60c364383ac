"""What the CUDA kernels cost on every target, without a GPU: the tables of docs/kernels.md.

    python bench/kernel_costs.py                         print them
    python bench/kernel_costs.py --write docs/kernels.md put them between their marks (minutes)

Registers, spills and shared memory are the assembler's; instructions are counted in the machine
code of the loops over observations. Nothing here says how fast anything runs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "tools"))

import sass

from odc_stats_gpu.kernels.geomedian._cuda_kernel import geomad_kernel, geomad_types
from odc_stats_gpu.kernels.geomedian._cuda_plan import (
    PASSES,
    VALID,
    Multiprocessors,
    bytes_per_warp,
    plan,
    sums_per_pixel,
)

GEOMEDIAN = ((6, 1), (6, 4), (10, 1), (10, 8))
"""(bands, lanes per pixel)"""
OTHERS = ("warp", "masks", "morphology", "fuse", "counts")


@dataclass(frozen=True)
class Device:
    """A card: what the plan asks for, and its rates."""

    name: str
    cc: tuple[int, int]
    chips: Multiprocessors
    bandwidth: float
    """bytes per second of device memory, as specified"""
    lanes: float
    """float32 instructions per second and lane, boost clock"""


def _device(
    name: str,
    cc: tuple[int, int],
    count: int,
    shared_kib: int,
    blocks: int,
    bandwidth: float,
    lanes: int,
    clock: float,
) -> Device:
    chips = Multiprocessors(count=count, shared_bytes=shared_kib << 10, blocks=blocks)
    return Device(name, cc, chips, bandwidth * 1e9, count * lanes * clock * 1e9)


DEVICES = (
    _device("T4", (7, 5), 40, 64, 16, 320, 64, 1.59),
    _device("A10G", (8, 6), 80, 100, 16, 600, 128, 1.71),
    _device("L4", (8, 9), 58, 100, 24, 300, 128, 2.04),
    _device("H100", (9, 0), 132, 228, 32, 3350, 128, 1.98),
)
STACKS = ((6, 40), (6, 90), (10, 70), (10, 150), (6, 1000))
BISECTIONS = 10
"""of the slowest of a warp's pixels, measured on synthetic series"""


@dataclass(frozen=True)
class Loops:
    """Instructions per observation of the kernel's loops; conversions and specials apart."""

    read: float
    mean: float
    newton: float
    newton_apart: str
    distances: float
    distances_apart: str
    bisection: float


def measure(
    bands: int, lanes: int, cc: tuple[int, int], *, on_chip: bool = True
) -> tuple[sass.Cost, Loops]:
    """Cost of a variant of the geomedian's kernel and its loops."""
    function = geomad_kernel(bands, lanes, "int16", on_chip=on_chip)
    cost = sass.cost(function, geomad_types(bands, "int16"), cc)
    return cost, observe(cost, bands)


def observe(cost: sass.Cost, bands: int) -> Loops:
    """Find the loops over observations by what only they do."""
    work = [loop for loop in cost.loops if not loop.count("SHFL", "WARPSYNC", "CALL")]

    def apart(loop: sass.Loop) -> str:
        return f"{loop.count('I2F')} + {loop.count('MUFU')}"

    def net(loop: sass.Loop) -> int:
        return len(loop.body) - loop.count("I2F", "MUFU")

    (read,) = (loop for loop in work if loop.count("LDG"))
    (newton,) = (
        loop for loop in work
        if loop.count("I2F") == bands and loop.count("MUFU") and not loop.count("STS")
    )  # fmt: skip
    (distances,) = (loop for loop in work if loop.count("I2F") == bands and loop.count("STS"))
    means = [loop for loop in work if loop.count("I2F") and not loop.count("MUFU")]
    mean = min(means, key=lambda loop: len(loop.body) / loop.count("I2F"))
    keys = [loop for loop in work if loop.count("LDS") and not loop.count("FFMA", "FADD", "I2F")]
    return Loops(
        read=len(read.body) * bands / read.count("LDG"),
        mean=net(mean) * bands / mean.count("I2F"),
        newton=net(newton),
        newton_apart=apart(newton),
        distances=net(distances),
        distances_apart=apart(distances),
        bisection=min(len(loop.body) / loop.count("LDS") for loop in keys),
    )


def geomedian_rows(
    variants: tuple[tuple[int, int], ...] = GEOMEDIAN,
    targets: tuple[tuple[int, int], ...] = sass.TARGETS,
) -> Iterator[str]:
    """Rows of the first table."""
    for bands, lanes in variants:
        for cc in targets:
            cost, loops = measure(bands, lanes, cc)
            local = sum(loop.count("LDL", "STL") for loop in cost.loops)
            yield (
                f"| {bands} | {lanes} | {cc[0]}{cc[1]} | {cost.registers} |"
                f" {cost.spill_stores + cost.spill_loads} | {cost.stack} | {local} |"
                f" {loops.newton:.0f} ({loops.newton_apart}) |"
                f" {loops.distances:.0f} ({loops.distances_apart}) | {loops.mean:.1f} |"
                f" {loops.bisection:.1f} | {loops.read:.0f} |"
            )


def plan_rows() -> Iterator[str]:
    """What the plan chooses per card, and what of it is resident."""
    costs = {}
    for device in DEVICES:
        for bands, dates in STACKS:
            how = plan(bands, "int16", dates, 1 << 20, device.chips)
            key = (bands, how.lanes, device.cc)
            cost, _ = costs.setdefault(key, measure(bands, how.lanes, device.cc))
            size = bytes_per_warp(bands, "int16", dates, how.lanes)
            threads = cost.threads_per_multiprocessor(how.threads, how.shared_bytes)
            where = "on chip" if how.on_chip else "device memory"
            yield (
                f"| {device.name} | {bands} x {dates} | {how.lanes} | {where} |"
                f" {size / 1024:.1f} | {how.warps} | {threads // 32} |"
                f" {2 * bands * dates + 4 * (bands + 3) + 2} |"
            )


def floor_rows() -> Iterator[str]:
    """Bytes and instructions per pixel against the rates of the cards."""
    for bands, dates in STACKS[:4]:
        moved = 2 * bands * dates + 4 * (bands + 3) + 2
        for device in DEVICES:
            how = plan(bands, "int16", dates, 1 << 20, device.chips)
            _, loops = measure(bands, how.lanes, device.cc)
            work = instructions(bands, dates, how.lanes, loops)
            again = moved + 2 * bands * dates * (PASSES + 2)
            yield (
                f"| {bands} x {dates} | {device.name} | {moved} |"
                f" {1e9 * moved / device.bandwidth:.1f} | {1e9 * again / device.bandwidth:.1f} |"
                f" {how.lanes} | {work / 1000:.0f} | {1e9 * work / device.lanes:.1f} |"
            )


def instructions(bands: int, dates: int, lanes: int, loops: Loops) -> float:
    """Instructions of all lanes of a pixel, VALID of its dates being valid."""
    own = -(-int(VALID * dates) // lanes)
    conversions = bands + 1
    medians = 3 * (BISECTIONS + 4) * loops.bisection  # two sweeps are worth four bisections
    once = -(-dates // lanes) * loops.read + own * (loops.mean + bands + loops.distances + medians)
    exchange = 3 * sums_per_pixel(bands) if lanes > 1 else 0
    algebra = bands**3 / 2 + 14 * bands + 120  # as counted on sm_90
    each = own * (loops.newton + conversions) + algebra + exchange
    return lanes * (once + PASSES * each)


def other_rows(targets: tuple[tuple[int, int], ...] = sass.TARGETS) -> Iterator[str]:
    """Registers of all other kernels per target."""
    for room in OTHERS:
        for name, function, types in import_module(f"odc_stats_gpu.kernels.{room}.cuda").KERNELS:
            costs = [sass.cost(function, types, cc, fastmath=False) for cc in targets]
            spilled = sum(c.spill_loads + c.spill_stores + c.stack for c in costs)
            cells = " | ".join(str(cost.registers) for cost in costs)
            yield f"| {name} | {cells} | {spilled} | {max(c.shared for c in costs)} |"


TARGET_NAMES = " | ".join(f"sm_{a}{b}" for a, b in sass.TARGETS)
HEADS = {
    "geomedian": "bands | lanes | sm | registers | spills | stack | local | Newton pass | distances"
    " | mean | bisection | reading",
    "plan": "card | bands x dates | lanes | observations | KiB per warp | warps per block"
    " | resident warps | bytes per pixel",
    "floors": "bands x dates | card | bytes | ns, read once | ns, read every pass | lanes"
    " | thousand instructions | ns",
    "others": f"kernel | {TARGET_NAMES} | spills and stack | static shared",
}


def tables(names: tuple[str, ...]) -> dict[str, str]:
    """Tables by the name of their marks."""
    rows = {
        "geomedian": geomedian_rows,
        "plan": plan_rows,
        "floors": floor_rows,
        "others": other_rows,
    }
    return {name: "\n".join((*_head(HEADS[name]), *rows[name]())) for name in names}


def _head(names: str) -> tuple[str, str]:
    return f"| {names} |", "|" + "---|" * (names.count("|") + 1)


def between(text: str, name: str) -> tuple[int, int]:
    """Where a table stands in a document."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    return text.index(begin) + len(begin), text.index(end)


def main() -> None:
    """Print the tables, or write them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", type=Path, metavar="FILE", help="document to put them into")
    parser.add_argument("--only", choices=HEADS, help="one table; default: all")
    options = parser.parse_args()
    made = tables((options.only,) if options.only else tuple(HEADS))
    if not options.write:
        print("\n\n".join(made.values()))
        return
    text = options.write.read_text()
    for name, table in made.items():
        first, last = between(text, name)
        text = f"{text[:first]}\n{table}\n{text[last:]}"
    options.write.write_text(text)


if __name__ == "__main__":
    main()
