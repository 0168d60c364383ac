"""Log lines, the last line, /metrics, the queue and the store all tell the same story."""

from __future__ import annotations

import re
import socket
import urllib.request

import pytest
from faultproxy import doubled, pretend
from realfleet import seconds_to_leave, until

from odc_stats_gpu.model import TileIndex
from odc_stats_gpu.tasks import TaskDb


@pytest.fixture
def tiles(db):
    with TaskDb.open(db) as tasks:
        return tasks.indexes()[20:24]


def scrape(port):
    """Values of /metrics by name and labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    found = (re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line) for line in lines)
    return {(m[1], m[2] or ""): float(m[3]) for m in found if m}


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.mark.slow
def test_counts_agree(fleet, tiles):
    """Four tiles, two of them delivered twice, one that isn't in the database, a malformed one."""
    one = fleet(receives=2)
    unknown = TileIndex("1999--P1Y", 1, 1)
    one.publish([*tiles, *tiles[:2], unknown])
    one.sqs.send_message(QueueUrl=one.queue, MessageBody="poison")
    port = free_port()
    worker = one.start("--metrics-port", str(port), idle=60)
    assert until(lambda: len(one.dead_bodies()) == 2 and one.empty, 120, every=0.5)
    seen = scrape(port)
    tiles_total = {
        status: seen["odc_stats_tiles_total", f'status="{status}"']
        for status in ("done", "skipped", "failed", "interrupted")
    }
    assert tiles_total == {"done": 4, "skipped": 2, "failed": 2, "interrupted": 0}
    events = {
        event: seen["odc_stats_lease_events_total", f'event="{event}"']
        for event in ("received", "acknowledged", "released", "malformed", "lost", "handed_back")
    }
    assert events == {"received": 8, "acknowledged": 6, "released": 2, "malformed": 2, "lost": 0,
                      "handed_back": 0}  # fmt: skip
    assert seen["odc_stats_tasks_in_flight", ""] == 0
    assert sum(v for (name, _), v in seen.items() if name == "odc_stats_failures_total") == 2
    worker.terminate()
    assert worker.leave(seconds_to_leave()) == 3
    assert worker.told == worker.counted == {"done": 4, "skipped": 2, "failed": 2}
    assert {line["message_id"] for line in worker.said("task done")} <= {
        line["message_id"] for line in worker.lines() if "message_id" in line
    }
    assert one.finished() == sorted(tiles)


@pytest.mark.slow
@pytest.mark.parametrize("s3", [True, False], ids=["s3", "folder"])
def test_two_workers_at_every_tile(fleet, tiles, s3):
    """Every message is delivered twice at a time, and deletes are forgotten at first."""
    one = fleet(s3=s3, receives=20)
    one.publish(tiles)
    one.proxy.add("ReceiveMessage", doubled, times=12)
    one.proxy.add("DeleteMessage", pretend, times=3)
    both = [one.start(idle=9) for _ in range(2)]
    for worker in both:
        assert worker.leave(150) == 0, worker.log.read_text()
        assert worker.told == worker.counted
    made = [line["task"] for worker in both for line in worker.said("task done")]
    assert sorted(made) == sorted(map(str, tiles))
    if not one.empty:
        one.finish(idle=9)
    one.judge(tiles)
