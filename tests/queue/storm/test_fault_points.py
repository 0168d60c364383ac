"""A worker is killed, stopped or paused at every named step of a tile's life; another one ends it.

In the end the tile is there once and verified, the message is gone, and no file, upload or process
is left.
"""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys

import pytest
from realfleet import seconds_to_leave, until

from odc_stats_gpu.output import open_store
from odc_stats_gpu.tasks import TaskDb
from odc_stats_gpu.telemetry import FAULT_POINTS

LEASE = 4
EVERYWHERE = (
    "message_received", "task_start", "task_planned", "block_read", "block_reduced", "block_put",
    "before_assets", "asset_written", "asset_written:3", "before_item", "item_written", "task_done",
    "before_acknowledge", "message_deleted",
)  # fmt: skip
HAPPENINGS = ("kill", "kill parent", "kill child", "terminate", "pause")
ON_DISK = ("file_written", "file_named", "file_written:4", "file_named:4", "file_written:5",
           "file_named:5")  # fmt: skip
"""First asset, checksums, item."""
HALF = [
    ("file", step)
    for step in ("block_read", "asset_written", "file_named:4", "before_item", "item_written")
]
"""Where only one of the two processes is killed."""
IN_SUPERVISOR = ("message_received", "before_acknowledge", "message_deleted")
ELSEWHERE = {
    "redrive_received": "redrive-queue", "redrive_copied": "redrive-queue",
    "redrive_deleted": "redrive-queue", "before_release": "failed tasks", "copy_sent": "SIGTERM",
    "tasks_batch": "save-tasks", "tasks_commit": "save-tasks", "device_memory": "GPU",
    "item_withdrawn": "--overwrite", "upload_begun": "multipart", "part_uploaded": "multipart",
}  # fmt: skip


def cases():
    """(store, step, what happens); one of them is tested every time."""
    quick = {("file", "file_named:5", "kill")}
    stores = {"file": (*EVERYWHERE, *ON_DISK), "s3": EVERYWHERE}
    for store, steps in stores.items():
        for step, what in itertools.product(steps, HAPPENINGS):
            if what in ("kill child", "kill parent") and (store, step) not in HALF:
                continue
            if what == "terminate" and store == "s3":  # nothing in it depends on the store
                continue
            case = (store, step, what)
            yield pytest.param(*case, marks=() if case in quick else pytest.mark.slow)


def test_every_named_step_is_tried():
    tried = {step.partition(":")[0] for step in (*EVERYWHERE, *ON_DISK)}
    assert tried | set(ELSEWHERE) == set(FAULT_POINTS)
    assert not tried & set(ELSEWHERE)


@pytest.fixture
def tile(db):
    with TaskDb.open(db) as tasks:
        return tasks.indexes()[20]


def held(fleet, tmp_path, step, *options, idle=0.0):
    """A worker that has come to a step and waits there; `go(mark)` lets it pass."""
    mark = tmp_path / "mark"
    step, _, more = step.partition(",")
    name, _, number = step.partition(":")
    condition = f"{number}:" if number else ""
    fault = f"{name}:hold:{condition}once={mark},{more}".rstrip(",")
    worker = fleet.start(*options, fault=fault, idle=idle)
    assert until(mark.exists, 60) or not worker.alive, worker.log.read_text()
    assert worker.alive, worker.log.read_text()
    return worker, lambda: mark.write_text("go")


@pytest.mark.slow
@pytest.mark.parametrize("s3", [True, False], ids=["s3", "folder"])
def test_killed_between_the_old_item_and_the_new(fleet, tile, tmp_path, s3):
    """With --overwrite a tile is unfinished while its files change."""
    one = fleet(s3=s3, config={"job_queue_max_lease": LEASE, "renew_safety_margin": 2})
    one.publish([tile])
    one.finish("--max-tasks", "1")
    one.publish([tile])
    worker, _ = held(one, tmp_path, "item_withdrawn", "--overwrite")
    assert one.finished() == []
    for process in worker.family:
        process.kill()
    assert one.finish("--overwrite", "--max-tasks", "1", idle=LEASE + 9).told["done"] == 1
    one.judge([tile])


@pytest.mark.slow
def test_killed_between_the_copy_and_the_original(fleet, tile, tmp_path):
    """Interrupted work was sent again, the original not yet deleted: both are served, one works."""
    one = fleet(config={"job_queue_max_lease": LEASE, "renew_safety_margin": 2})
    one.publish([tile])
    mark = tmp_path / "copied"
    worker = one.start(fault=f"block_read:stop,copy_sent:hold:once={mark}")
    assert until(lambda: one.status.in_flight, 60)
    assert until(lambda: worker.said("first_read"), 60)
    worker.terminate()
    assert until(mark.exists, 10)
    worker.process.kill()
    last = one.finish(idle=LEASE + 3)
    assert last.counted == {"done": 1, "skipped": 1, "failed": 0}
    one.judge([tile])


@pytest.mark.slow
def test_killed_before_the_release_of_a_failed_tile(fleet, tile, tmp_path):
    one = fleet(receives=2, config={"job_queue_max_lease": LEASE, "renew_safety_margin": 2})
    one.publish([tile])
    worker, _ = held(one, tmp_path, "before_release,task_planned:fail")
    for process in worker.family:
        process.kill()
    one.finish(idle=LEASE + 3)
    one.judge([tile])


@pytest.mark.slow
@pytest.mark.parametrize("step", ["upload_begun", "part_uploaded"])
def test_killed_in_a_multipart_upload(fleet, step, monkeypatch):
    """Nothing is to be seen of it; the parts go with the next attempt, or when they are old."""
    one = fleet(s3=True)
    code = (
        "import sys; from odc_stats_gpu.output import open_store; "
        "open_store(sys.argv[1]).put('t/a.tif', bytes(40 << 20), 'image/tiff', expect=None)"
    )
    command = [sys.executable, "-c", code, one.location]
    env = {**os.environ, "ODC_STATS_FAULT": f"{step}:kill"}
    killed = subprocess.run(command, env=env, check=False)
    assert killed.returncode == -signal.SIGKILL
    store = open_store(one.location)
    assert list(store.list()) == []
    assert one.s3.list_multipart_uploads(Bucket=one.bucket)["Uploads"]
    subprocess.run(command, check=True)
    assert len(store.read("t/a.tif")) == 40 << 20
    store.sweep("t/a", alone=True)  # as when a tile is finished
    assert not one.s3.list_multipart_uploads(Bucket=one.bucket).get("Uploads")


@pytest.mark.parametrize(("store", "step", "what"), list(cases()))
def test_at_every_step(fleet, tile, tmp_path, store, step, what):
    one = fleet(s3=store == "s3", config={"job_queue_max_lease": LEASE, "renew_safety_margin": 2})
    one.publish([tile])
    worker, go = held(one, tmp_path, step)
    if what == "kill":
        for process in worker.family:
            process.kill()
    elif what == "kill parent":
        worker.process.kill()
        go()
        assert until(lambda: not one.processes, seconds_to_leave())
    elif what == "kill child":
        worker.children[0].kill()
        go()
        assert worker.leave(60) == 0
        assert "SIGKILL" in worker.said("task failed")[0]["error"]
    elif what == "terminate":
        worker.terminate()
        go() if step in IN_SUPERVISOR else None
        if step not in (*IN_SUPERVISOR, "item_written", "task_done"):
            assert until(lambda: one.status.visible, 5), "the work isn't given back"
        assert worker.leave(seconds_to_leave()) == 3
        go()
    else:
        worker.pause()
        if step != "message_deleted":
            one.finish("--max-tasks", "1", idle=LEASE + 9)
        before = one.content()
        go()
        worker.resume()
        assert worker.leave(60) == 0
        assert one.content() == before
        if step not in ("before_acknowledge", "message_deleted"):  # there it has served its end
            assert worker.said("lease lost")
    if not one.empty:
        one.finish("--max-tasks", "1", idle=LEASE + 9)
    one.judge([tile])
