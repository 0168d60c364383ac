"""What the geomedian's kernel costs on every target: budgets, and the table that says so."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import sass

from odc_stats_gpu.kernels.geomedian import _cuda_plan
from odc_stats_gpu.kernels.geomedian._cuda_plan import (
    BLOCK_BYTES,
    Multiprocessors,
    bytes_per_warp,
    off_chip,
    plan,
)

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "kernels.md"
REGISTERS = {6: 72, 10: 128}
MOST = 255
OFTEN = [(6, 4, cc) for cc in ((7, 5), (9, 0))] + [(10, 8, cc) for cc in ((7, 5), (9, 0))]
SELDOM = [
    pytest.param(bands, lanes, cc, marks=pytest.mark.slow)
    for bands, lanes in ((6, 1), (6, 4), (10, 1), (10, 8))
    for cc in sass.TARGETS
    if (bands, lanes, cc) not in OFTEN
]


@pytest.fixture(scope="module")
def costs():
    spec = importlib.util.spec_from_file_location("kernel_costs", ROOT / "bench/kernel_costs.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


def within_budget(cost, bands):
    assert cost.registers <= REGISTERS.get(bands, MOST)
    assert cost.spill_loads == cost.spill_stores == cost.stack == 0
    assert not any(i.opcode.startswith(("LDL", "STL")) for i in cost.code)
    assert ".f64" not in cost.ptx


@pytest.mark.parametrize(("bands", "lanes", "cc"), OFTEN + SELDOM)
def test_budgets_and_their_table(costs, bands, lanes, cc):
    cost, loops = costs.measure(bands, lanes, cc)
    within_budget(cost, bands)
    assert loops.newton <= 6 * bands + bands * (bands + 1) // 2 + 50
    assert loops.mean <= 5 * bands + 20  # the pass that is linear in the bands and nothing else
    row = next(costs.geomedian_rows(((bands, lanes),), (cc,)))
    remedy = "python bench/kernel_costs.py --write docs/kernels.md"
    assert row in DOCUMENT.read_text(), f"docs/kernels.md is stale, now {row!r}: {remedy}"


@pytest.mark.slow
@pytest.mark.parametrize("cc", sass.TARGETS, ids=str)
@pytest.mark.parametrize(
    ("bands", "lanes", "kind", "on_chip"),
    [(6, n, kind, True) for n in (2, 8, 16, 32) for kind in ("int16", "float32")]
    + [(10, n, kind, True) for n in (2, 4, 16, 32) for kind in ("int16", "float32")]
    + [(6, 4, "uint16", True), (6, 32, "int16", False), (10, 32, "int16", False)],
)
def test_budgets_of_all_variants(bands, lanes, kind, on_chip, cc):
    from odc_stats_gpu.kernels.geomedian._cuda_kernel import geomad_kernel, geomad_types

    function = geomad_kernel(bands, lanes, kind, on_chip=on_chip)
    within_budget(sass.cost(function, geomad_types(bands, kind), cc), bands)


@pytest.mark.slow
@pytest.mark.parametrize("cc", [(7, 5), (9, 0)], ids=str)
@pytest.mark.parametrize("bands", [b for b in range(1, 17) if b not in REGISTERS])
def test_any_number_of_bands_stays_in_registers(bands, cc):
    from odc_stats_gpu.kernels.geomedian._cuda_kernel import geomad_kernel, geomad_types

    lanes = plan(bands, "int16", 60, 1 << 20, CARDS["T4" if cc < (8, 0) else "H100"]).lanes
    function = geomad_kernel(bands, lanes, "int16", on_chip=True)
    within_budget(sass.cost(function, geomad_types(bands, "int16"), cc), bands)


CARDS = {
    "T4": Multiprocessors(count=40, shared_bytes=64 << 10, blocks=16),
    "L4": Multiprocessors(count=58, shared_bytes=100 << 10, blocks=24),
    "H100": Multiprocessors(count=132, shared_bytes=228 << 10, blocks=32),
}


@pytest.mark.parametrize("card", CARDS)
@pytest.mark.parametrize("kind", ["int16", "float32"])
@pytest.mark.parametrize("bands", [1, 6, 10, 16])
@pytest.mark.parametrize("dates", [0, 1, 20, 90, 400, 1000, 65535])
def test_a_plan_fits_its_card_and_covers_all_pixels(card, kind, bands, dates):
    device = CARDS[card]
    for pixels in (1, 33, 9600 * 9600):
        how = plan(bands, kind, dates, pixels, device)
        assert how.blocks * how.threads >= pixels * how.lanes
        assert (how.blocks - 1) * how.threads < pixels * how.lanes
        assert 0 < how.grid <= how.blocks
        assert 0 < how.shared_bytes <= BLOCK_BYTES
        assert how.scratch_words < 1 << 31
        assert 4 * how.scratch_words <= max(
            _cuda_plan.SCRATCH_BYTES, 16 * _cuda_plan.words_per_warp(bands, kind, dates, how.lanes)
        )
        if how.on_chip:
            need = how.warps * bytes_per_warp(bands, kind, dates, how.lanes)
            assert how.shared_bytes == need
            assert how.grid == how.blocks
            resident = min(device.shared_bytes // (need + 1024), device.blocks)
            assert resident * how.warps >= 4 or pixels == 1


@pytest.mark.parametrize("card", CARDS)
@pytest.mark.parametrize(("bands", "dates"), [(6, 40), (6, 90), (10, 70), (10, 150)])
def test_usual_stacks_are_read_once(card, bands, dates):
    assert plan(bands, "int16", dates, 1 << 20, CARDS[card]).on_chip


def test_scratch_is_bounded_for_any_number_of_dates():
    how = off_chip(16, "float32", 65535, 1 << 24, CARDS["H100"], 32)
    assert how.scratch_words * 4 <= 256 << 20
    assert how.grid * (-(-how.blocks // how.grid)) >= how.blocks
