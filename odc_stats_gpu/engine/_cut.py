"""How a tile is cut on the device that a session has, and what happens when that was too much."""

from __future__ import annotations

from collections.abc import Callable

from odc_stats_gpu.engine._device import CpuDevice, Device
from odc_stats_gpu.engine._limits import parse_bytes
from odc_stats_gpu.engine._memory import BlockPlan, DeviceMemory, plan_blocks
from odc_stats_gpu.engine._session import Session
from odc_stats_gpu.ingest import TilePlan
from odc_stats_gpu.model import Task
from odc_stats_gpu.telemetry import log

MOST_HALVINGS = 4
"""After that, with a sixteenth of the pixels, small blocks are not the remedy."""


def cut_tile(
    session: Session,
    task: Task,
    plan: TilePlan,
    *,
    device: Device | None = None,
    halvings: int = 0,
) -> BlockPlan:
    """The blocks of a tile on a device (default: the session's), halved so many times.

    Raises ConfigError when host or device memory is too little for the smallest block.
    """
    device = device or session.device
    shape = (int(task.geobox.shape[0]), int(task.geobox.shape[1]))
    bands = session.plugin.output_bands(task.products)
    memory = device_memory(device, session.config.device_memory)
    size = session.config.block_size
    cut = plan_blocks(shape, plan, bands, session.limits, session.threads, size, memory)
    for _ in range(halvings):
        smaller = cut.halved(plan.alignment)
        if smaller is None:
            break
        size = f"{smaller[0]}x{smaller[1]}"
        cut = plan_blocks(shape, plan, bands, session.limits, session.threads, size, memory)
    return cut


def device_memory(device: Device, given: str) -> DeviceMemory | None:
    """What blocks may take of a device's memory; None where that is the host's.

    Raises ConfigError for a size that can't be read.
    """
    if device.on_host:
        return None
    found = []
    if given:
        found.append(DeviceMemory(parse_bytes(given), "--device-memory"))
    free = device.memory()
    if free is not None:
        found.append(DeviceMemory(free, f"free on {device.name}"))
    return min(found, key=lambda memory: memory.bytes, default=None)


def with_enough_memory(
    session: Session,
    task: Task,
    plan: TilePlan,
    name: str,
    attempt: Callable[[Device, BlockPlan], bool],
) -> bool:
    """Make a tile; with smaller blocks each time device memory runs out, in the end on the CPU.

    `attempt` leaves nothing behind when it raises. Later tiles begin with what has worked.
    """
    device: Device = session.device
    while True:
        cut = cut_tile(session, task, plan, device=device, halvings=session.halvings)
        try:
            return attempt(device, cut)
        except Exception as exc:
            if not device.exhausted(exc):
                raise
            reason = f"{type(exc).__name__}: {exc}".splitlines()[0]
        # only now are the frames gone that held the attempt's arrays
        device.release()
        block = f"{cut.block[0]}x{cut.block[1]}"
        if session.halvings < MOST_HALVINGS and cut.halved(plan.alignment):
            session.halvings += 1
            log(
                f"{name}: out of memory on {device.name} with blocks of {block},"
                " again with smaller ones",
                level="warning", reason=reason,
            )  # fmt: skip
        else:
            log(
                f"{name}: out of memory on {device.name} even with blocks of {block},"
                " again on the CPU",
                level="warning", reason=reason,
            )  # fmt: skip
            device = CpuDevice()
