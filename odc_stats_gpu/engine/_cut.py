"""How a tile is cut on the device that a session has, and what happens when that was too much."""

from __future__ import annotations

import gc
from collections.abc import Callable

from odc_stats_gpu.engine._cuda_device import CUDA_CONTEXT
from odc_stats_gpu.engine._device import CpuDevice, Device
from odc_stats_gpu.engine._limits import DeviceMemory, parse_bytes
from odc_stats_gpu.engine._memory import BlockPlan, DeviceTooSmallError, plan_blocks
from odc_stats_gpu.engine._session import Session
from odc_stats_gpu.ingest import TilePlan, stored_side
from odc_stats_gpu.model import Task
from odc_stats_gpu.telemetry import log

MOST_HALVINGS = 4
"""After that, with a sixteenth of the pixels, small blocks are not the remedy."""


def cut_tile(
    session: Session, task: Task, plan: TilePlan, device: Device | None = None
) -> BlockPlan:
    """The blocks of a tile on a device (default: the session's), as often halved as was needed.

    Raises ConfigError when the host's memory is too little for the smallest block, and
    DeviceTooSmallError when the device's is.
    """
    device = device or session.device
    shape = plan.whole.shape
    bands = session.plugin.output_bands(task.products)
    memory = device_memory(device, session.config.device_memory)
    stored = 0 if session.config.block_size else _stored(session, plan)

    def cut(size: str) -> BlockPlan:
        limits, threads = session.limits, session.threads
        return plan_blocks(shape, plan, bands, limits, threads, size, memory, stored)

    found = cut(session.config.block_size)
    for _ in range(0 if device.on_host else session.halvings):
        smaller = found.halved(plan.alignment)
        if smaller is None:
            break
        found = cut(f"{smaller[0]}x{smaller[1]}")
    return found


def _stored(session: Session, plan: TilePlan) -> int:
    """As `stored_side`, looked up once for each product: a dry run may have thousands of tiles."""
    if not plan.scenes:
        return 0
    product = plan.scenes[0].product.name
    if product not in session.stored:
        session.stored[product] = stored_side(plan)
    return session.stored[product]


def device_memory(device: Device, given: str) -> DeviceMemory | None:
    """What blocks may take of a device's memory; None where that is the host's.

    Raises ConfigError for a size that can't be read.
    """
    if device.on_host:
        return None
    found = [device.memory()]
    if given:
        found.append(DeviceMemory(parse_bytes(given), "--device-memory", CUDA_CONTEXT))
    return min((m for m in found if m), key=lambda m: m.bytes - m.context, default=None)


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
        try:
            cut = cut_tile(session, task, plan, device)
        except DeviceTooSmallError as exc:
            log(f"{name}: {exc.message}; made on the CPU", level="warning", remedy=exc.remedy)
            device = CpuDevice()
            continue
        try:
            return attempt(device, cut)
        except Exception as exc:
            if not device.exhausted(exc):
                raise
            reason = f"{type(exc).__name__}: {exc}".splitlines()[0]
        gc.collect()  # a future and the error in it hold each other, and the frames with the arrays
        device.release()
        told = f"{name}: out of memory on {device.name}"
        block = f"blocks of {cut.block[0]}x{cut.block[1]}"
        if session.halvings < MOST_HALVINGS and cut.halved(plan.alignment):
            session.halvings += 1
            log(f"{told} with {block}, again with smaller ones", level="warning", reason=reason)
        else:
            log(f"{told} even with {block}, again on the CPU", level="warning", reason=reason)
            device = CpuDevice()
