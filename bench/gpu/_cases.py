"""The kernels that are timed: data, and the bytes and instructions that each needs at least."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.gpu._bench import Bench
from odc_stats_gpu import kernels

NODATA = -999
COSTS = Path(__file__).parents[2] / "docs" / "kernels.md"
STACKS = ((6, 40), (6, 90), (10, 70), (10, 150), (6, 1000))
"""(bands, dates), as in docs/kernels.md and one that is long."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One kernel on one stack or image."""

    name: str
    pixels: int
    """of the result"""
    moved: int
    """bytes of the pixels read and written, each once: the floor of device memory"""
    run: Callable[[], Any]
    check: Callable[[Any], None]
    """fails where a result isn't the CPU's"""
    instructions: float | None = None
    """of all lanes of a pixel, where they have been counted or estimated"""
    note: str = ""


def surface(bands: int, dates: int, shape: tuple[int, int], masked: float = 0.45) -> np.ndarray:
    """An int16 (band, time, y, x) stack of seasons, haze, clouds and shadows."""
    rng = np.random.default_rng([bands, dates])
    spectrum = rng.uniform(200, 3500, (bands, 1, *shape)).astype(np.float32)
    season = np.sin(2 * np.pi * rng.random((1, dates, *shape), np.float32))
    amplitude = rng.uniform(0, 0.3, (bands, 1, *shape)).astype(np.float32)
    x = spectrum * (1 + season * amplitude)
    x += 60 * rng.standard_normal((bands, dates, *shape), np.float32)
    weather = rng.random((dates, *shape))
    x[:, weather < 0.08] += rng.uniform(1500, 6000, np.count_nonzero(weather < 0.08))
    x[:, weather > 0.95] *= 0.4
    stack = np.clip(np.rint(x), 1, 20000).astype(np.int16)
    stack[:, rng.random((dates, *shape)) < masked] = NODATA
    return stack


def cases(bench: Bench) -> Iterator[Callable[[], Case]]:
    """Makers of the cases: each allocates what it needs when it is called."""
    for bands, dates in bench.pick(STACKS, STACKS[:4], STACKS[:4:2]):
        yield lambda bands=bands, dates=dates: _geomad(bench, bands, dates)
    for method in ("nearest", "bilinear", "cubic", "average"):
        yield lambda method=method: _warp(bench, method, 6)
    yield lambda: _warp(bench, "bilinear", 1)
    yield lambda: _enum(bench)
    yield lambda: _flags(bench)
    yield lambda: _morphology(bench)
    yield lambda: _mask_where(bench)
    yield lambda: _fuse(bench)
    yield lambda: _counts(bench)


def _geomad(bench: Bench, bands: int, dates: int) -> Case:
    rows = 16 if dates < 500 else 4
    size = bench.pick((rows, 1024), (rows, 1024), (1, 3))
    part = surface(bands, bench.pick(dates, dates, 7), size)
    dates = part.shape[1]
    whole = 2 << 30 if not bench.quick else 256 << 20
    times = 1 if bench.simulate else max(1, whole // part.nbytes)
    stack = bench.repeat(part, times)
    pixels = stack.shape[2] * stack.shape[3]
    count, note = _instructions(stack, bands, dates) if not bench.simulate else (None, "")

    def check(got: kernels.Geomad) -> None:
        want = kernels.geomad(part, NODATA)
        rows = slice(-part.shape[2], None)
        np.testing.assert_array_equal(bench.get(got.count[rows]), want.count)
        far = np.abs(bench.get(got.geomedian[:, rows]) - want.geomedian) > 0.2
        assert far.mean() < 2e-3, f"{far.mean():.2%} of the pixels are off the CPU's by 0.2 DN"

    return Case(
        name=f"geomedian + MADs + count, {bands} bands x {dates} dates, int16",
        pixels=pixels,
        moved=pixels * (2 * bands * dates + 4 * (bands + 3) + 2),
        run=lambda: kernels.geomad(stack, NODATA),
        check=check,
        instructions=count,
        note=note,
    )


def _instructions(stack: Any, bands: int, dates: int) -> tuple[float | None, str]:
    """Counted in machine code if docs/kernels.md has this plan for this target, or estimated."""
    from odc_stats_gpu.kernels.geomedian._cuda_plan import instructions
    from odc_stats_gpu.kernels.geomedian.cuda import plan_for

    how = plan_for(stack)
    target = stack.device.compute_capability
    card = {"75": "T4", "86": "A10G", "89": "L4", "90": "H100"}.get(target)
    where = "on chip" if how.on_chip else "in device memory"
    plan = f"{how.lanes} lanes per pixel, observations {where}"
    for line in COSTS.read_text().splitlines() if COSTS.exists() else ():
        cells = [cell.strip() for cell in line.strip("| ").split("|")]
        known = len(cells) == 7 and cells[:2] == [f"{bands} x {dates}", card]
        if known and int(cells[4]) == how.lanes:
            return 1000 * float(cells[5]), f"{plan}; instructions counted"
    return instructions(bands, dates, how.lanes), f"{plan}; instructions estimated"


def _warp(bench: Bench, method: str, bands: int) -> Case:
    size = bench.pick(4000, 2000, 20)
    rng = np.random.default_rng(1)
    c, s = 0.97 * math.cos(0.1), 0.97 * math.sin(0.1)
    src = rng.integers(1, 10000, (bands, int(1.1 * size), int(1.1 * size)), np.int16)
    src[:, rng.random(src.shape[1:], np.float32) < 0.2] = NODATA

    def turned(x: Any, y: Any) -> tuple[Any, Any]:
        return 0.3 + c * x + s * y, 0.1 * size - s * x + c * y + 1e-8 * x * y

    lattice = kernels.refine(turned, (size, size))
    device = bench.put(src)

    def check(got: Any) -> None:
        rows = min(64, size)
        want = kernels.warp(src, NODATA, lattice.window(0, rows, 0, size), method)
        off = np.abs(bench.get(got[:, :rows]).astype(int) - want)
        assert off.max() <= 1, f"off the CPU's by {off.max()}"
        assert (want != NODATA).mean() > 0.5

    return Case(
        name=f"warp {method}, {bands} band{'s' * (bands > 1)}, int16",
        pixels=size * size,
        moved=bands * size * size * 4,
        run=lambda: kernels.warp(device, NODATA, lattice, method),
        check=check,
        instructions=200 + 130 * bands if method == "bilinear" else None,
        note="instructions estimated" if method == "bilinear" else "",
    )


def _same(bench: Bench, call: Callable[[Any], Any], host: np.ndarray) -> Callable[[Any], None]:
    """A check of the first rows of a call that needs no neighbours; `host` has few rows then."""
    return lambda got: np.testing.assert_array_equal(
        bench.get(got)[..., : host.shape[-2], :], call(host)
    )


def _image(bench: Bench, layers: int, dtype: str = "uint8") -> tuple[np.ndarray, Any]:
    size = bench.pick((256, 8192), (256, 4096), (4, 33))
    rng = np.random.default_rng(2)
    host = rng.integers(0, 5, (layers, *size)).astype(dtype)
    return host, bench.repeat(host, bench.pick(32, 16, 1))


def _enum(bench: Bench) -> Case:
    host, device = _image(bench, 4)

    def call(a: Any) -> Any:
        return kernels.decode_enum(a, [2, 3])

    moved, pixels = 2 * device.size, device.size
    return Case(
        name="decode_enum, uint8", pixels=pixels, moved=moved, run=lambda: call(device),
        check=_same(bench, call, host),
    )  # fmt: skip


def _flags(bench: Bench) -> Case:
    host, device = _image(bench, 4, "uint16")

    def call(a: Any) -> Any:
        return kernels.decode_flags(a, [(0, 2, 3), (2, 1, 1)])

    return Case(
        name="decode_flags, uint16", pixels=device.size, moved=3 * device.size,
        run=lambda: call(device), check=_same(bench, call, host),
    )  # fmt: skip


def _morphology(bench: Bench) -> Case:
    size = bench.pick(8192, 4096, 34)
    host = np.random.default_rng(3).random((size, size)) < 0.02
    device, ops = bench.put(host), [("opening", 2), ("dilation", 5)]

    def check(got: Any) -> None:
        rows = min(size, 120)
        want = kernels.clean_mask(host[: min(size, 160)], ops)[:rows]
        np.testing.assert_array_equal(bench.get(got[:rows]), want)

    return Case(
        name="clean_mask, opening 2, dilation 5", pixels=size * size, moved=3 * 2 * size * size,
        run=lambda: kernels.clean_mask(device, ops), check=check, note="three passes",
    )  # fmt: skip


def _mask_where(bench: Bench) -> Case:
    size = bench.pick(4096, 2048, 20)
    rng = np.random.default_rng(4)
    host = rng.integers(0, 9000, (6, size, size), np.int16)
    bad = rng.random((size, size), np.float32) < 0.4
    bands, mask = bench.put(host), bench.put(bad)
    return Case(
        name="mask_where, 6 bands int16", pixels=size * size, moved=size * size * (1 + 4 * 6),
        run=lambda: kernels.mask_where(bands, mask, NODATA),
        check=lambda got: np.testing.assert_array_equal(
            bench.get(got[:, :99]), kernels.mask_where(host[:, :99], bad[:99], NODATA)
        ),
    )  # fmt: skip


def _fuse(bench: Bench) -> Case:
    size = bench.pick(2048, 1024, 20)
    rng = np.random.default_rng(5)
    host = rng.integers(0, 9000, (6, 3, size, size), np.int16)
    host[rng.random(host.shape, np.float32) < 0.5] = NODATA
    device = bench.put(host)
    return Case(
        name="first_valid, 6 bands x 3 scenes int16", pixels=size * size,
        moved=size * size * 6 * 4 * 2, run=lambda: kernels.first_valid(device, NODATA),
        check=lambda got: np.testing.assert_array_equal(
            bench.get(got[:, :99]), kernels.first_valid(host[:, :, :99], NODATA)
        ),
    )  # fmt: skip


def _counts(bench: Bench) -> Case:
    host, device = _image(bench, 90)
    pixels = device.size // 90
    return Case(
        name="count_true, 90 dates uint8", pixels=pixels, moved=pixels * (90 + 2),
        run=lambda: kernels.count_true(device), check=_same(bench, kernels.count_true, host),
    )  # fmt: skip
