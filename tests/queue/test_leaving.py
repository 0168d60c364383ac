"""Signals and notices to real workers: the work is given back in time, whatever the queue does."""

from __future__ import annotations

import json
import signal
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psutil
import pytest

from odc_stats_gpu.queue import publish, queue_status

_LOAD = 8.0
"""Seconds that a busy machine may add to what is promised."""


def until(condition, within=60):
    end = time.monotonic() + within
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def at_work(process, queue):
    """Wait until the tile is being read: `block_read:stop` holds it there."""
    until(lambda: queue_status(queue).in_flight == 1 and process.children())
    time.sleep(1)
    return [process, *process.children(recursive=True)]


def gone(family, within):
    """Seconds until all have ended; exit code of the first."""
    began = time.monotonic()
    code = family[0].wait(within)
    _, alive = psutil.wait_procs(family[1:], timeout=5)
    assert not alive
    return time.monotonic() - began, code


def attribute(sqs, queue):
    got = sqs.receive_message(QueueUrl=queue, MessageAttributeNames=["All"])["Messages"][0]
    return got.get("MessageAttributes", {}).get("interruptions", {}).get("StringValue")


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_an_idle_worker_leaves_at_once(queues, worker, number):
    process = worker(idle=300)
    until(process.children)
    time.sleep(3)  # in the middle of a receive
    family = [process, *process.children(recursive=True)]
    process.send_signal(number)
    seconds, code = gone(family, 10 + _LOAD)
    assert code == 3
    assert seconds < 5 + _LOAD


@pytest.mark.slow
def test_a_message_that_comes_while_we_leave_goes_back(sqs, queues, proxy, worker, fleet_db, tiles):
    proxy.delay["ReceiveMessage"] = 1.5
    process = worker(idle=300)
    until(process.children)
    publish(str(fleet_db), queues[0], tiles[:1])
    proxy.delay["ReceiveMessage"] = 0
    process.send_signal(signal.SIGTERM)
    assert gone([process], 10 + _LOAD)[1] == 3
    until(lambda: queue_status(queues[0]).visible == 1)


@pytest.mark.slow
def test_ctrl_c_in_the_middle_of_a_tile(sqs, queues, worker, fleet_db, tiles):
    publish(str(fleet_db), queues[0], tiles[:1])
    family = at_work(worker(fault="block_read:stop"), queues[0])
    family[0].send_signal(signal.SIGINT)
    asked = time.monotonic()
    until(lambda: queue_status(queues[0]).visible == 1, 5 + _LOAD)
    assert time.monotonic() - asked < 5 + _LOAD
    assert gone(family, 10 + _LOAD)[1] == 3
    assert attribute(sqs, queues[0]) == "1"


def test_a_signal_to_all_processes_is_no_failure(sqs, queues, worker, fleet_db, tiles):
    """As systemd sends it; the process that makes the tile may end before ours is told."""
    publish(str(fleet_db), queues[0], tiles[:1])
    process = worker(fault="block_read:stop", lease=60)
    family = at_work(process, queues[0])
    for member in reversed(family):
        member.send_signal(signal.SIGTERM)
    until(lambda: queue_status(queues[0]).visible == 1, 5 + _LOAD)
    assert gone(family, 10 + _LOAD)[1] == 3
    assert attribute(sqs, queues[0]) == "1"
    assert "task failed" not in process.communicate()[1]


def test_a_slow_copy_is_followed_by_a_plain_release(sqs, queues, proxy, worker, fleet_db, tiles):
    publish(str(fleet_db), queues[0], tiles[:1])
    family = at_work(worker(fault="block_read:stop", lease=60), queues[0])
    proxy.delay["SendMessage"] = 60
    family[0].send_signal(signal.SIGTERM)
    until(lambda: queue_status(queues[0]).visible == 1, 6 + _LOAD)
    assert gone(family, 10 + _LOAD)[1] == 3
    assert attribute(sqs, queues[0]) is None


def test_a_queue_that_does_not_answer_keeps_nobody(queues, proxy, worker, fleet_db, tiles):
    publish(str(fleet_db), queues[0], tiles[:1])
    family = at_work(worker(fault="block_read:stop", lease=60), queues[0])
    proxy.delay["*"] = 120
    family[0].send_signal(signal.SIGTERM)
    seconds, code = gone(family, 10 + _LOAD)
    assert (code, seconds < 10 + _LOAD) == (3, True)


@pytest.mark.slow
def test_a_second_signal_ends_it_at_once(queues, proxy, worker, fleet_db, tiles):
    publish(str(fleet_db), queues[0], tiles[:1])
    family = at_work(worker(fault="block_read:stop", lease=60), queues[0])
    proxy.delay["*"] = 120
    family[0].send_signal(signal.SIGTERM)
    time.sleep(0.5)
    family[0].send_signal(signal.SIGTERM)
    seconds, code = gone(family, 10)
    assert (code, seconds < 2 + _LOAD) == (3, True)


@pytest.fixture
def imds():
    """Metadata of an instance that is going to be reclaimed once `notice` is set."""
    notice, asked = threading.Event(), []

    class Handler(BaseHTTPRequestHandler):
        def _say(self, status, text):
            asked.append(self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def do_PUT(self):
            self._say(200, "key")

        def do_GET(self):
            told = json.dumps({"action": "terminate", "time": "2026-11-27T12:02:00Z"})
            self._say(200 if notice.is_set() else 404, told if notice.is_set() else "")

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", notice, asked
    server.shutdown()
    server.server_close()


def test_a_spot_notice_gives_the_work_back(sqs, queues, worker, fleet_db, tiles, imds, monkeypatch):
    url, notice, asked = imds
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", url)
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
    publish(str(fleet_db), queues[0], tiles[:1])
    deaf = worker("--no-spot-notice", idle=2, queue=queues[1])
    process = worker(fault="block_read:stop")
    family = at_work(process, queues[0])
    until(lambda: len(asked) > 1)
    notice.set()
    until(lambda: queue_status(queues[0]).visible == 1, 8 + _LOAD)
    assert gone(family, 10 + _LOAD)[1] == 3
    assert attribute(sqs, queues[0]) == "1"
    assert "EC2 spot reclaim (terminate)" in process.communicate()[1]
    assert deaf.wait(60) == 0


@pytest.mark.slow
def test_work_that_hangs_is_stopped_and_tried_again_later(queues, worker, fleet_db, tiles):
    publish(str(fleet_db), queues[0], tiles[:1])
    process = worker("--max-processing-time", "2", "--max-tasks", "1", fault="block_read:stop")
    out, err = process.communicate(timeout=90)
    assert (process.returncode, "E:1" in out) == (0, True), err
    assert "max_processing_time = 2" in err
    status = queue_status(queues[0])
    assert status.in_flight + status.visible == 1


@pytest.mark.slow
def test_the_heartbeat_goes_on_while_idle_and_while_the_queue_hangs(
    queues, proxy, worker, tmp_path
):
    path = tmp_path / "new folder/beat"
    process = worker("--heartbeat-filepath", str(path), idle=300)
    until(lambda: path.exists() and process.children())
    time.sleep(2)
    proxy.delay["*"] = 120
    for _ in range(2):
        before = path.stat().st_mtime_ns
        until(lambda: path.stat().st_mtime_ns > before, 30)  # noqa: B023 - called at once
    assert [p.name for p in path.parent.iterdir()] == ["beat"]
    process.send_signal(signal.SIGTERM)
    assert gone([process], 10 + _LOAD)[1] == 3
