"""What the kernels cost on every target: no spills, nothing in local memory, no doubles."""

from __future__ import annotations

from importlib import import_module

import pytest
import sass

ROOMS = ("warp", "masks", "morphology", "fuse", "counts")
LISTED = [
    pytest.param(function, types, id=name)
    for room in ROOMS
    for name, function, types in import_module(f"odc_stats_gpu.kernels.{room}.cuda").KERNELS
]
OFTEN = ((7, 5), (9, 0))
REGISTERS = {"average": 112, "clean_mask": 136, "cubic": 88, "warp": 72}
"""Most registers, by a part of the kernel's name; 48 for all others. 256 threads: 64 KiB hold 5
blocks of a bilinear warp, which waits for memory anyway; the average is for rare use."""


def check(function, types, cc, name):
    cost = sass.cost(function, types, cc, fastmath=False)
    budget = next((most for part, most in REGISTERS.items() if part in name), 48)
    assert cost.registers <= budget
    assert cost.spill_loads == cost.spill_stores == cost.stack == 0
    assert not any(i.opcode.startswith(("LDL", "STL")) for i in cost.code)
    assert ".f64" not in cost.ptx


@pytest.mark.parametrize("cc", OFTEN, ids=lambda cc: f"sm_{cc[0]}{cc[1]}")
@pytest.mark.parametrize(("function", "types"), LISTED)
def test_budgets(request, function, types, cc):
    check(function, types, cc, request.node.callspec.id)


@pytest.mark.slow
@pytest.mark.parametrize("cc", [cc for cc in sass.TARGETS if cc not in OFTEN], ids=str)
@pytest.mark.parametrize(("function", "types"), LISTED)
def test_budgets_on_all_other_targets(request, function, types, cc):
    check(function, types, cc, request.node.callspec.id)


def test_what_is_listed_is_what_runs(monkeypatch):
    """The faces start kernels with the types that budgets are checked for."""
    import hostlaunch
    import numpy as np

    from odc_stats_gpu import kernels
    from odc_stats_gpu.kernels import SimulatedDeviceArray

    hostlaunch.use(monkeypatch)
    monkeypatch.setattr(hostlaunch, "SEEN", {})
    stack = np.zeros((3, 2, 40, 50), np.int16).view(SimulatedDeviceArray)
    part = stack[:, :, 3:30, 4:40]
    lattice = kernels.refine(lambda x, y: (x, y), (27, 36))
    for method in ("nearest", "bilinear", "cubic", "average"):
        kernels.warp(stack[:, 0], -999, lattice, method, out=part[:, 1])
    kernels.first_valid(part, -999)
    flags = part[0].view(np.uint16).astype(np.uint8)
    kernels.count_true(flags[:, ::2], unless=flags[:, ::2])
    kernels.any_true(flags[None, :, ::2])
    kernels.decode_enum(flags, [1])
    kernels.decode_flags(part[0].astype(np.uint16), [(1, 1, 1)])
    kernels.mask_where(stack[0], stack[0, 0] > 0, -999)
    kernels.clean_mask(stack[0] > 0, [("dilation", 1)])
    listed = {(p.values[0].__name__, p.values[1]) for p in LISTED}
    for name, signatures in hostlaunch.SEEN.items():
        assert any((name, signature) in listed for signature in signatures), (name, signatures)
