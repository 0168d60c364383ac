"""What the device path really allocates, against the plan; and what is left when it is refused.

The code around the kernels is the one that runs on a GPU, at full size; the kernels do not run.
"""

from __future__ import annotations

import time
from types import SimpleNamespace

import numpy as np
import pytest
from counted import CountedDevice, counting

from odc_stats_gpu.demo import write_archive
from odc_stats_gpu.engine import _cut, _memory, _session, process_task
from odc_stats_gpu.engine._job import TaskJob
from odc_stats_gpu.engine._limits import DeviceMemory, Limits
from odc_stats_gpu.engine._memory import plan_blocks
from odc_stats_gpu.engine._pipeline import run_blocks
from odc_stats_gpu.engine._session import Session
from odc_stats_gpu.ingest import plan_tile
from odc_stats_gpu.kernels import _cuda_launch
from odc_stats_gpu.model import parse_config
from odc_stats_gpu.tasks import Eo3Source, save_tasks

PLUGINS = {
    "gm-s2": ("sentinel2", {"resampling": "bilinear"}),
    "pq": ("sentinel2", {"resampling": "nearest"}),
    "gm-ls": (
        "landsat",
        {"bands": ["blue", "red", "nir"], "mask_band": "fmask", "resampling": "cubic",
         "cloud_filters": {"cloud": [["opening", 2], ["dilation", 5]], "shadow": []}},
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """Task database and tile of each kind: scenes of two zones, on one day both."""
    top, found = tmp_path_factory.mktemp("counted"), {}
    for kind, bands in (("sentinel2", None), ("landsat", ["blue", "red", "nir"])):
        made = write_archive(top / kind, kind=kind, tile_pixels=200, dates=10, bands=bands)
        (x, y), db = made.tiles[0], top / f"{kind}.db"
        area = ((x, x + 1), (y, y + 1))
        save_tasks(Eo3Source(made.folder), grid=made.grid, output=db, tiles=area)
        found[kind] = TaskJob(f"{made.year}--P1Y/{x}/{y}", str(db))
    return found


def config(plugin, location):
    keys = PLUGINS[plugin][1]
    return parse_config({"plugin": plugin, "plugin_config": keys, "output_location": str(location)})


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("plugin", PLUGINS)
def test_the_plan_is_what_is_taken(archives, monkeypatch, tmp_path, plugin, threads):
    """Never more; and not much less, lest blocks are smaller than they could be."""
    monkeypatch.setattr(_memory, "GEOMEDIAN_SCRATCH", 0)  # such few dates fit on the chip
    session = Session(config(plugin, tmp_path))
    task = session.task(archives[PLUGINS[plugin][0]])
    plan, bands = plan_tile(task, session.plugin), session.plugin.output_bands(task.products)
    device = CountedDevice(lambda _: time.sleep(0.001))  # so that threads take turns
    counting(monkeypatch, device)
    writer = SimpleNamespace(put=lambda _, ds: [np.asarray(v) for v in ds.values()])
    assert sum(len(slot.groups) > 1 for slot in plan.slots)
    for block in ("", "104"):
        cut = plan_blocks(
            plan.whole.shape, plan, bands, Limits(1 << 40, "", 1), threads, block,
            DeviceMemory(1 << 40, ""),
        )  # fmt: skip
        device.count.peaks.clear()
        run_blocks(
            plan, cut.blocks, session.plugin, writer, device, threads=threads,
            check=lambda: None, progress=lambda *_: None,
        )  # fmt: skip
        peak = device.count.peak
        assert peak <= cut.device_bytes
        assert cut.device_bytes <= (2.5 if threads == 1 else 4) * peak
        assert peak > plan.stack_bytes(cut.block)
        assert device.count.now == 0


@pytest.fixture
def make(archives, monkeypatch, tmp_path):
    """Make a tile on a counted device."""

    def run(device, plugin="gm-s2"):
        counting(monkeypatch, device)
        monkeypatch.setattr(_session, "open_device", lambda _: (device, ""))
        _session._current.clear()
        said = []
        monkeypatch.setattr(_cut, "log", lambda event, **facts: said.append((event, facts)))
        result = process_task(archives[PLUGINS[plugin][0]], config(plugin, tmp_path))
        (session,) = _session._current.values()
        _session._current.clear()
        return result, said, session

    return run


def once(when, error=MemoryError, text="no room"):
    def on_request(number):
        if number == when:
            raise error(text)  # not kept: it holds the frames that it was raised in

    return on_request


@pytest.mark.parametrize("when", [1, 2, 30, 120])
def test_a_reader_is_refused(make, when):
    """The stack, the first band, some band: everything is let go before it begins again."""
    device = CountedDevice(once(when))
    result, said, session = make(device)
    assert result.status == "done", result.error
    assert device.released == [0]
    assert session.halvings == 1
    ((event, facts),) = said
    assert event.endswith(
        "out of memory on counted with blocks of 200x200, again with smaller ones"
    )
    assert facts == {"level": "warning", "reason": "MemoryError: no room"}


@pytest.mark.parametrize("where", ["reduce", "fetch"])
def test_the_others_are_refused(make, monkeypatch, where):
    """The thread that computes, by a kernel's result, and the one that brings results back."""
    device, errors = CountedDevice(), [MemoryError]
    if where == "fetch":

        def to_host(ds, inner=device.to_host):
            if errors:
                raise errors.pop()("no room")
            return inner(ds)

        device.to_host = to_host
    else:
        memory = type("Memory", (_cuda_launch._Simulated,), {})

        def empty(self, shape, dtype):
            if dtype == np.float32 and errors:  # the geomedian
                raise errors.pop()("no room")
            return _cuda_launch._Simulated.empty(self, shape, dtype)

        memory.empty = empty
        monkeypatch.setattr("odc_stats_gpu.kernels.geomedian.cuda.memory_of", lambda _: memory())
    result, said, session = make(device)
    assert not errors
    assert result.status == "done", result.error
    assert device.released == [0]
    assert session.halvings == len(said) == 1


def test_a_device_that_always_refuses(make):
    """Four halvings, then the CPU; the next tile begins with the smallest blocks."""

    def refuse(_):
        raise MemoryError("no room")

    device = CountedDevice(refuse)
    result, said, session = make(device, "pq")
    assert result.status == "done", result.error
    assert device.released == [0] * 5
    assert session.halvings == 4
    blocks = [event.partition("blocks of ")[2] for event, _ in said]
    assert [b.partition(",")[0] for b in blocks] == [
        "200x200", "128x200", "128x128", "64x128", "64x64",
    ]  # fmt: skip
    assert blocks[-1].endswith("again on the CPU")


def test_a_device_too_small_for_any_block(make):
    """Nothing is tried there."""
    device = CountedDevice()
    device.memory = lambda: DeviceMemory(100 << 20, "free on counted")
    result, said, _ = make(device, "pq")
    assert result.status == "done", result.error
    assert device.requests == 0
    ((event, facts),) = said
    assert event.endswith(
        "device memory of 100 MiB (free on counted) is too little; made on the CPU"
    )
    assert facts["remedy"].startswith("this tile needs at least")


def test_another_error_is_not_tried_again(make, tmp_path):
    result, said, _ = make(CountedDevice(once(9, ValueError, "a bug")))
    assert (result.status, result.error) == ("failed", "ValueError: a bug")
    assert not said
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]
