"""The wall clock jumps: no lease is lost or extended, no file of a living worker removed."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import boto3
import psutil
import pytest
from faultproxy import refuse
from realfleet import until

from odc_stats_gpu.errors import Cancelled
from odc_stats_gpu.output import open_store
from odc_stats_gpu.queue import Lease, forget_clients
from odc_stats_gpu.tasks import TaskDb

SOURCE = Path(__file__).parents[2] / "tools" / "wallclock.c"
DAY = 86_400
LEASE = 4


@pytest.fixture(scope="module")
def shim(tmp_path_factory):
    """A library that bends the wall clock of the process into which it is loaded."""
    library = tmp_path_factory.mktemp("shim") / "wallclock.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", library, SOURCE, "-ldl"], check=True)
    return str(library)


def bent(shim, offset, code, *arguments):
    """What a Python process prints whose clock is wrong."""
    env = {"LD_PRELOAD": shim, "WALL_CLOCK_OFFSET": str(offset), "PYTHONPATH": ":".join(sys.path)}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout


def test_the_shim_bends_the_wall_clock_alone(shim, tmp_path):
    offset = tmp_path / "offset"
    offset.write_text(str(DAY))
    code = "import json, time; print(json.dumps([time.time(), time.monotonic()]))"
    wall, steady = json.loads(bent(shim, offset, code))
    assert abs(wall - time.time() - DAY) < 60
    assert abs(steady - time.monotonic()) < 60


@pytest.mark.slow
def test_a_lease_outlives_jumps_of_the_wall_clock(fleet, db, tmp_path, shim):
    one = fleet(config={"job_queue_max_lease": LEASE, "renew_safety_margin": 2})
    with TaskDb.open(db) as tasks:
        tiles = tasks.indexes()[20:22]
    one.publish(tiles[:1])
    mark, offset = tmp_path / "mark", tmp_path / "offset"
    worker = one.start(
        fault=f"before_item:hold:once={mark}", idle=5,
        env={"LD_PRELOAD": shim, "WALL_CLOCK_OFFSET": str(offset)},
    )  # fmt: skip
    assert until(mark.exists, 90), worker.log.read_text()
    for jump in (DAY, -DAY, 0):
        offset.write_text(str(jump))
        end = time.monotonic() + LEASE
        while time.monotonic() < end:
            assert one.status.in_flight == 1
            time.sleep(0.3)
    mark.write_text("go")
    one.publish(tiles[1:])
    offset.write_text(str(-DAY))
    assert worker.leave(90) == 0
    assert not worker.said("lease lost")
    assert worker.counted == {"done": 2, "skipped": 0, "failed": 0}
    assert {line["attempt"] for line in worker.said("task done")} == {1}
    one.judge(tiles)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere only the wall clock tells")
def test_a_file_in_the_making_is_not_taken_for_abandoned(monkeypatch, tmp_path):
    """The kernel's account of when we began, in wall clock time, moves when the clock is set."""
    store = open_store(str(tmp_path))
    began = psutil.Process().create_time()

    def chunks():
        yield b"one"
        monkeypatch.setattr(psutil.Process, "create_time", lambda *_, **__: began + DAY)
        open_store(str(tmp_path)).sweep("t/a")
        yield b"two"

    store.put("t/a.tif", chunks(), "image/tiff")
    assert store.read("t/a.tif") == b"onetwo"


@pytest.mark.parametrize("code", ["RequestExpired", "InvalidSignatureException"])
def test_a_refused_signature_is_no_refused_lease(fleet, monkeypatch, code):
    """What SQS says while our clock is wrong tells nothing of the message: our own clock does."""
    one = fleet()
    monkeypatch.setenv("AWS_ENDPOINT_URL", one.proxy.url)
    forget_clients()
    client = boto3.client("sqs")
    client.send_message(QueueUrl=one.queue, MessageBody="x")
    message = client.receive_message(QueueUrl=one.queue, VisibilityTimeout=LEASE)["Messages"][0]
    one.proxy.add("ChangeMessageVisibility", refuse(403, code), times=2)
    now = [0.0]
    lease = Lease(one.queue, message, LEASE, 0.0, clock=lambda: now[0])
    assert not lease.renew()
    lease.check()
    now[0] = 3.0
    assert not lease.renew()
    lease.check()
    assert lease.renew()
    now[0] = 6.9
    lease.check()
    now[0] = 7.1
    with pytest.raises(Cancelled):
        lease.check()
