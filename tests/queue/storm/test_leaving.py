"""A worker that is told to leave does so within ten seconds, whatever doesn't answer."""

from __future__ import annotations

import pytest
from faultproxy import slow
from realfleet import seconds_to_leave, until

from odc_stats_gpu.tasks import TaskDb

LATER = (
    "CreateMultipartUpload", "ReceiveMessage", "ChangeMessageVisibility", "SendMessage",
    "DeleteMessage", "PutObject",
)  # fmt: skip


@pytest.fixture
def tile(db):
    with TaskDb.open(db) as tasks:
        return tasks.indexes()[20]


@pytest.mark.parametrize(
    "action",
    ["GetQueueUrl", *(pytest.param(a, marks=pytest.mark.slow) for a in LATER)],
)
def test_what_does_not_answer_keeps_nobody(fleet, tile, tmp_path, action):
    one = fleet(s3=True)
    one.publish([tile])
    stuck = one.proxy.add(action, slow(40))
    mark = tmp_path / "mark"
    busy = action in ("ChangeMessageVisibility", "SendMessage")
    worker = one.start(fault=f"block_read:hold:once={mark}" if busy else "")
    assert until(mark.exists if action == "SendMessage" else lambda: stuck.seen, 60)
    worker.terminate()
    if action == "SendMessage":  # no copy can be sent: it is plainly released
        assert until(lambda: one.status.visible, 5), worker.log.read_text()
    assert worker.leave(seconds_to_leave()) == 3, worker.log.read_text()
    assert until(lambda: not one.processes, seconds_to_leave()), one.processes
    if action == "SendMessage":
        one.proxy.clear()
        one.finish("--max-tasks", "1", idle=9)
        one.judge([tile])


@pytest.mark.slow
def test_a_worker_without_a_process_of_its_own_leaves(fleet, tile, tmp_path):
    one = fleet(s3=True)
    one.publish([tile])
    mark = tmp_path / "mark"
    worker = one.start("--cluster", "none", fault=f"before_assets:hold:once={mark}")
    assert until(mark.exists, 120), worker.log.read_text()
    worker.terminate()
    assert until(lambda: one.status.visible, 5), worker.log.read_text()
    assert worker.leave(seconds_to_leave()) == 3, worker.log.read_text()
    assert until(lambda: not one.processes, seconds_to_leave()), one.processes
    one.finish("--cluster", "none", "--max-tasks", "1", idle=9)
    one.judge([tile])
