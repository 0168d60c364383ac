"""What the geomedian kernel costs on every CUDA target, measured without a GPU.

    python bench/kernel_costs.py [--write docs/kernels.md]

Compiles to PTX, assembles with libnvJitLink and reads the machine code; prints a Markdown table, or
puts it between the marks in a page.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "tools"))

import sass  # noqa: E402 - lies among the test tools
from numba import types  # noqa: E402

from odc_stats_gpu.kernels.geomedian._cuda_kernel import geomad_kernel  # noqa: E402
from odc_stats_gpu.kernels.geomedian._cuda_plan import bytes_per_warp  # noqa: E402

BEGIN, END = "<!-- costs -->\n", "<!-- end of costs -->"
BUDGET = {6: 72, 10: 128}
"""Most registers, by number of bands."""
CASES = tuple((bands, lanes) for bands in (6, 10) for lanes in (1, 8))


def signature(bands: int) -> tuple[types.Type, ...]:
    """Types of the kernel's arguments for int16 stacks."""
    word, number = types.int32, types.float32
    plane = types.Array(number, 1, "C")
    return (
        types.Array(types.int16, 4, "A"), types.UniTuple(word, bands), number, number, word,
        types.Array(word, 1, "C"), types.Array(number, 2, "C"), plane, plane, plane,
        types.Array(types.uint16, 1, "C"),
    )  # fmt: skip


def cost(bands: int, lanes: int, cc: tuple[int, int]) -> sass.Cost:
    """Cost of the on-chip kernel for int16."""
    kernel = geomad_kernel(bands, lanes, "int16", on_chip=True)
    return sass.cost(kernel, signature(bands), cc)


def table() -> str:
    """All targets, as Markdown."""
    rows = [
        (
            "| target | bands | lanes per pixel | registers | spills | stack "
            "| shared per warp at 40 dates |"
        ),
        "|---|---|---|---|---|---|---|",
    ]
    for cc in sass.TARGETS:
        for bands, lanes in CASES:
            c = cost(bands, lanes, cc)
            kib = bytes_per_warp(bands, "int16", 40, lanes) / 1024
            rows.append(
                f"| sm_{c.target} | {bands} | {lanes} | {c.registers} | "
                f"{c.spill_loads + c.spill_stores} | {c.stack} | {kib:.1f} KiB |"
            )
    return "\n".join(rows) + "\n"


def main() -> None:
    """Print the table, or write it into a page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", type=Path)
    args = parser.parse_args()
    text = table()
    if args.write is None:
        print(text)
        return
    page = args.write.read_text()
    head, _, rest = page.partition(BEGIN)
    args.write.write_text(head + BEGIN + text + END + rest.partition(END)[2])


if __name__ == "__main__":
    main()
