"""PTX of every CUDA kernel with a real launch of it: what an emulator, or a stranger, needs.

    python bench/kernel_ptx.py OUT --cc 9.0

For each kernel OUT gets NAME.ptx; NAME.json with the entry, grid, block, dynamic shared bytes and
the PTX parameters in order; and NAME.npz with every array before the launch (`a0`, `a1`, ... by
argument) and after it (`r0`, ...), as this CPU computed it from the kernel's own IR. Strides in the
parameters are in bytes: an array that isn't in C order has to be laid out by them.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "tools"))

import hostlaunch
import numpy as np
from cudahost import code_library

from odc_stats_gpu import kernels
from odc_stats_gpu.kernels import SimulatedDeviceArray, _cuda_launch
from odc_stats_gpu.kernels.geomedian import cuda as geomedian
from odc_stats_gpu.kernels.geomedian._cuda_plan import Multiprocessors, plan

BEFORE_THE_SHAPE = ("meminfo", "parent", "items", "itemsize")
"""What Numba passes of an array before its data pointer; kernels look at none of it."""

CARD = Multiprocessors(count=40, shared_bytes=64 << 10, blocks=16)
GEOMADS = (
    (6, 40, "int16", 1),
    (6, 40, "int16", 4),
    (10, 70, "int16", 8),
    (6, 30, "float32", 4),
    (6, 1000, "int16", 32),
)
"""bands, dates, type, lanes per pixel; the last has no room on chip"""


@dataclass(frozen=True)
class Launch:
    """A kernel as it was started, with its arguments before and after."""

    function: Any
    grid: tuple[int, ...]
    block: tuple[int, ...]
    shared: int
    arguments: tuple[Any, ...]
    results: tuple[Any, ...]
    fastmath: bool

    @property
    def name(self) -> str:
        """The Python function's."""
        return str(self.function.__name__)


def record(call: Callable[[], object]) -> list[Launch]:
    """Run `call`, whose arrays are `SimulatedDeviceArray`s, and return all that it launched."""
    seen = []

    def simulate(function: Any, grid: Any, block: Any, arguments: Any, shared: int) -> None:
        given = tuple(copied(a) for a in arguments)
        hostlaunch.run(function, grid, block, arguments, shared)
        after = tuple(copied(a) for a in arguments)
        fast = bool(function.targetoptions["fastmath"])
        seen.append(Launch(function.py_func, tuple(grid), tuple(block), shared, given, after, fast))

    before = _cuda_launch.simulate
    _cuda_launch.simulate = simulate
    try:
        call()
    finally:
        _cuda_launch.simulate = before
    return seen


def copied(argument: Any) -> Any:
    """An argument as it is now; the kernel's type depends on strides, so arrays keep theirs."""
    if not isinstance(argument, np.ndarray):
        return argument
    whole = np.asarray(argument)
    return whole.copy() if whole.flags.c_contiguous else _restrided(whole)


def _restrided(view: np.ndarray) -> np.ndarray:
    low = sum(min(0, s * (n - 1)) for s, n in zip(view.strides, view.shape, strict=True))
    high = sum(max(0, s * (n - 1)) for s, n in zip(view.strides, view.shape, strict=True))
    memory = np.zeros(high - low + view.itemsize, np.uint8)
    made = np.ndarray(view.shape, view.dtype, memory, -low, view.strides)
    made[...] = view
    return made


def examples(seed: int = 0) -> Iterator[tuple[str, Callable[[], object]]]:
    """One small call of every public function and of its variants, by name."""
    rng = np.random.default_rng(seed)

    def device(array: np.ndarray) -> Any:
        return array.view(SimulatedDeviceArray)

    for bands, dates, kind, lanes in GEOMADS:
        stack = rng.integers(200, 4000, (bands, dates, 3, 11)).astype(kind)
        stack[:, rng.random((dates, 3, 11)) < 0.45] = -999
        given = device(stack)
        yield (
            f"geomad-{bands}-{kind}-{lanes}-lanes",
            lambda given=given, lanes=lanes: geomad(given, lanes),
        )
    lattice = kernels.refine(lambda x, y: (0.7 * x + 0.1 * y + 3, 0.7 * y - 0.1 * x + 9), (37, 41))
    for kind in ("int16", "float32"):
        image = rng.integers(200, 4000, (2, 50, 60)).astype(kind)
        image[:, rng.random((50, 60)) < 0.1] = -999
        given = device(image)
        for method in ("nearest", "bilinear", "cubic", "average"):
            yield (
                f"warp-{method}-{kind}",
                lambda given=given, method=method: kernels.warp(given, -999, lattice, method),
            )
    classes = device(rng.integers(0, 12, (40, 50)).astype(np.uint8))
    flags = device(rng.integers(0, 1 << 16, (40, 50)).astype(np.uint16))
    days = device(rng.integers(0, 2, (5, 40, 50)).astype(np.uint8))
    cube = rng.integers(0, 9, (3, 4, 40, 50)).astype(np.int16)
    yield "decode_enum", lambda: kernels.decode_enum(classes, [3, 8, 9])
    yield "decode_flags", lambda: kernels.decode_flags(flags, [(3, 1, 1), (8, 2, 3)])
    yield "mask_where", lambda: kernels.mask_where(device(cube[:, 0].copy()), days[0] > 0, -999)
    yield "clean_mask", lambda: kernels.clean_mask(days[0] > 0, [("opening", 2), ("dilation", 5)])
    yield "first_valid", lambda: kernels.first_valid(device(cube), 0)
    yield "any_true", lambda: kernels.any_true(days[None])
    yield "count_true", lambda: kernels.count_true(days, unless=days[::-1])


def geomad(stack: Any, lanes: int) -> object:
    """kernels.geomad with so many lanes per pixel, as a card with 64 KiB would have them."""
    bands, dates, height, width = stack.shape
    how = plan(bands, stack.dtype.name, dates, height * width, CARD, lanes)
    before = geomedian.plan_for
    geomedian.plan_for = lambda _: how
    try:
        return kernels.geomad(stack, -999)
    finally:
        geomedian.plan_for = before


def parameters(launch: Launch) -> list[dict[str, Any]]:
    """The PTX parameters in order; `argument` is the index of `a..` in the .npz."""
    out: list[dict[str, Any]] = []
    for index, argument in enumerate(launch.arguments):
        if isinstance(argument, np.ndarray):
            numbers = dict(
                zip(BEFORE_THE_SHAPE, (0, 0, argument.size, argument.itemsize), strict=True)
            )
            out += [{"argument": index, "is": k, "value": v} for k, v in numbers.items()]
            out.append({"argument": index, "is": "data", "type": argument.dtype.name})
            for what in ("shape", "strides"):
                out += [
                    {"argument": index, "is": what, "value": v} for v in getattr(argument, what)
                ]
            continue
        for value in argument if isinstance(argument, tuple) else (argument,):
            out.append(
                {"argument": index, "is": "value", "type": value.dtype.name, "value": value.item()}
            )
    return out


def ptx_of(launch: Launch, cc: tuple[int, int]) -> tuple[str, str]:
    """A launched kernel's PTX for a target, and the name of its entry."""
    signature = tuple(map(hostlaunch.type_of, launch.arguments))
    library = code_library(launch.function, signature, fastmath=launch.fastmath)
    ptx = library.get_asm_str(cc)
    (entry,) = re.findall(r"\.visible \.entry ([\w$]+)\s*\(", ptx)
    return ptx, entry


def write(name: str, launch: Launch, cc: tuple[int, int], out: Path) -> dict[str, Any]:
    """Write a kernel's three files; return what the .json has."""
    ptx, entry = ptx_of(launch, cc)
    (out / f"{name}.ptx").write_text(ptx)
    about = {
        "entry": entry,
        "grid": launch.grid,
        "block": launch.block,
        "shared_bytes": launch.shared,
        "parameters": parameters(launch),
    }
    (out / f"{name}.json").write_text(json.dumps(about, indent=1))
    arrays = {
        f"{letter}{index}": array
        for letter, given in (("a", launch.arguments), ("r", launch.results))
        for index, array in enumerate(given)
        if isinstance(array, np.ndarray)
    }
    np.savez(out / f"{name}.npz", **arrays)
    return about


def main() -> None:
    """Write all kernels."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder to write into")
    parser.add_argument("--cc", default="9.0", help="compute capability, e.g. 7.5; default: 9.0")
    parser.add_argument("--only", default="", help="kernels whose name contains this")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    major, minor = map(int, options.cc.split("."))
    for name, call in examples():
        if options.only not in name:
            continue
        for number, launch in enumerate(record(call)):
            named = f"{name}-{launch.name}-{number}" if number else name
            about = write(named, launch, (major, minor), options.out)
            print(f"{named}: {about['entry'][:50]} {about['grid']} x {about['block']}")


if __name__ == "__main__":
    main()
