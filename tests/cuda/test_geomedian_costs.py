"""The geomedian kernel keeps to its budget on every target: no spills, no stack, no doubles."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import sass

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))

import kernel_costs

OFTEN = ((7, 5), (9, 0))


def check(cc, bands, lanes):
    cost = kernel_costs.cost(bands, lanes, cc)
    assert cost.registers <= kernel_costs.BUDGET[bands]
    assert cost.spill_loads == cost.spill_stores == cost.stack == 0
    assert not any(i.opcode.startswith(("LDL", "STL")) for i in cost.code)
    assert ".f64" not in cost.ptx


@pytest.mark.parametrize("cc", OFTEN, ids=str)
@pytest.mark.parametrize(("bands", "lanes"), [(6, 1), (10, 8)])
def test_budgets(cc, bands, lanes):
    check(cc, bands, lanes)


@pytest.mark.slow
@pytest.mark.parametrize("cc", sass.TARGETS, ids=str)
@pytest.mark.parametrize(("bands", "lanes"), kernel_costs.CASES)
def test_budgets_on_all_targets(cc, bands, lanes):
    check(cc, bands, lanes)


def test_the_page_is_up_to_date_for_a_target():
    page = (kernel_costs.ROOT / "docs" / "kernels.md").read_text()
    cost = kernel_costs.cost(6, 1, (9, 0))
    assert f"| sm_90 | 6 | 1 | {cost.registers} | 0 | 0 |" in page
