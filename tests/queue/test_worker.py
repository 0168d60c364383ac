"""Real workers on a real queue over HTTP: killed, stopped, overtaken, fed poison."""

from __future__ import annotations

import json
import signal
import time

import psutil

from odc_stats_gpu.model import TileIndex
from odc_stats_gpu.output import verify
from odc_stats_gpu.queue import publish, queue_status


def finish(process, within=90):
    out, err = process.communicate(timeout=within)
    return process.returncode, out, err


def good(tmp_path, expected):
    report = verify(str(tmp_path / "out"))
    assert report.ok, str(report)
    assert len(report.tiles) == expected


def test_a_worker_empties_the_queue_and_leaves(queues, fleet_db, tiles, worker, tmp_path):
    publish(str(fleet_db), queues[0], tiles)
    beat = tmp_path / "beat"
    code, out, err = finish(worker("--heartbeat-filepath", str(beat)))
    assert code == 0, err
    assert f"T:{len(tiles)}, OK:{len(tiles)}, S:0, E:0" in out
    good(tmp_path, len(tiles))
    status = queue_status(queues[0])
    assert (status.visible, status.in_flight, status.dead) == (0, 0, 0)
    assert beat.read_text()
    lines = [json.loads(line) for line in err.splitlines() if line.startswith("{")]
    stages = [line for line in lines if line["event"] == "stage"]
    assert {"read", "commit"} <= {line["stage"] for line in stages}
    assert len({line["message_id"] for line in stages}) == len(tiles)
    assert all({"task", "attempt", "seconds"} <= line.keys() for line in stages)


def test_poison_and_unknown_tiles_cost_no_worker(sqs, queues, fleet_db, tiles, worker, tmp_path):
    sqs.send_message(QueueUrl=queues[0], MessageBody="poison")
    publish(str(fleet_db), queues[0], [TileIndex("1999--P1Y", 1, 1), tiles[0]])
    publish("/no/such.db", queues[0], [tiles[1]])
    code, out, err = finish(worker())
    assert code == 0, err
    assert "OK:1" in out
    assert "no such task database" in err
    good(tmp_path, 1)


def test_a_killed_worker_loses_nothing(queues, fleet_db, tiles, worker, tmp_path):
    publish(str(fleet_db), queues[0], tiles[:2])
    first = worker(fault="before_item:stop")
    deadline = time.monotonic() + 40
    while queue_status(queues[0]).in_flight == 0 and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(3)
    family = [first, *first.children(recursive=True)]
    first.kill()
    code, out, err = finish(worker(idle=9))
    assert code == 0, err
    assert "OK:2" in out
    good(tmp_path, 2)
    _, alive = psutil.wait_procs(family, timeout=10)
    assert not alive


def test_sigterm_gives_the_work_back_at_once(queues, fleet_db, tiles, worker, tmp_path):
    publish(str(fleet_db), queues[0], tiles[:1])
    process = worker(fault="block_read:stop")
    deadline = time.monotonic() + 40
    while queue_status(queues[0]).in_flight == 0 and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(2)
    family = process.children(recursive=True)
    process.send_signal(signal.SIGTERM)
    asked = time.monotonic()
    while queue_status(queues[0]).visible == 0 and time.monotonic() < asked + 10:
        time.sleep(0.1)
    assert time.monotonic() - asked < 5
    code, _, err = finish(process, within=10)
    assert code == 3, err
    _, alive = psutil.wait_procs(family, timeout=5)
    assert not alive
    code, out, err = finish(worker())
    assert "OK:1" in out, err
    good(tmp_path, 1)


def test_a_lost_lease_publishes_nothing(queues, fleet_db, tiles, worker, proxy, tmp_path):
    publish(str(fleet_db), queues[0], tiles[:1])
    proxy.refuse["ChangeMessageVisibility"] = (400, "ReceiptHandleIsInvalid")
    process = worker("--max-tasks", "1", fault="before_item:sleep15", idle=0, lease=20)
    code, _, err = finish(process)
    assert "lease lost" in err
    assert not list((tmp_path / "out").rglob("*.stac-item.json")) or "OK:1" in err
    proxy.refuse.clear()
    code, _, err = finish(worker("--max-tasks", "1", idle=25))
    assert code == 0, err
    good(tmp_path, 1)


def test_the_second_worker_at_a_tile_finds_it_finished(queues, fleet_db, tiles, worker, tmp_path):
    publish(str(fleet_db), queues[0], [tiles[0], tiles[0]])
    both = [worker("--max-tasks", "1"), worker("--max-tasks", "1")]
    ends = [finish(p) for p in both]
    assert [e[0] for e in ends] == [0, 0], ends
    good(tmp_path, 1)
    assert queue_status(queues[0]).in_flight == 0
