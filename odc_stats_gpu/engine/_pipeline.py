"""The blocks of one tile: block n+1 is read while n is computed and n-1 is handed to the writer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

from odc_stats_gpu.engine._device import Device
from odc_stats_gpu.engine._env import set_threads
from odc_stats_gpu.errors import Cancelled
from odc_stats_gpu.ingest import TilePlan, load_block
from odc_stats_gpu.model import Block, Plugin
from odc_stats_gpu.output import TileWriter
from odc_stats_gpu.telemetry import fault_point, span, stage

if TYPE_CHECKING:
    import xarray as xr


def run_blocks(
    plan: TilePlan,
    blocks: Sequence[Block],
    plugin: Plugin,
    writer: TileWriter,
    device: Device,
    *,
    threads: int,
    check: Callable[[], None],
    progress: Callable[[int, int], None],
) -> None:
    """Read, reduce and hand over every block; at most one block waits between two steps.

    `check` is called between all steps and raises Cancelled. Reading uses a pool of `threads`
    threads (they wait for I/O and run native code that releases the GIL), computing uses the
    caller's thread, in which the kernels start their own; the writer copies in a third. On a GPU
    each block has a lane of its own there: reading and reducing only start work, `to_host` waits.
    """
    failed = threading.Event()

    def still_wanted() -> None:
        """For the threads: also stop when another step of this tile has failed."""
        check()
        if failed.is_set():
            raise Cancelled("another step of the tile failed")

    with (
        _pool(threads, "read", threads) as scenes,
        _pool(1, "next", threads) as ahead,
        _pool(1, "put", threads) as behind,
        _setting(failed),
    ):

        def read(n: int) -> xr.Dataset:
            still_wanted()
            with span(f"block {n} read", "block"):
                lane = device.lane(n)
                data = load_block(plan, blocks[n], scenes, device=lane, check=still_wanted)
            fault_point("block_read")
            return data

        def put(n: int, data: xr.Dataset) -> None:
            still_wanted()
            with span(f"block {n} put", "block"):
                writer.put(blocks[n], device.lane(n).to_host(data))

        following: Future[xr.Dataset] | None = ahead.submit(read, 0)
        putting: Future[None] | None = None
        for n in range(len(blocks)):
            assert following is not None  # noqa: S101 - for the type checker
            stack = following.result()
            following = ahead.submit(read, n + 1) if n + 1 < len(blocks) else None
            check()
            with span(f"block {n} reduce", "block"), stage("reduce"), device.lane(n).active():
                reduced: xr.Dataset = plugin.reduce(stack)
            del stack  # the next but one may be read only when this one's memory is free
            fault_point("block_reduced")
            if putting is not None:
                putting.result()
            putting = behind.submit(put, n, reduced)
            del reduced
            progress(n + 1, len(blocks))
        if putting is not None:
            putting.result()


@contextmanager
def _setting(failed: threading.Event) -> Iterator[None]:
    """Tell the threads when this block is left by an error."""
    try:
        yield
    except BaseException:
        failed.set()
        raise


@contextmanager
def _pool(workers: int, name: str, threads: int) -> Iterator[ThreadPoolExecutor]:
    """A thread pool that forgets what has not begun when its block is left by an error."""
    pool = ThreadPoolExecutor(
        workers, thread_name_prefix=name, initializer=set_threads, initargs=(threads,)
    )
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
