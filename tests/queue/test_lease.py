"""A lease is renewed from receipt to acknowledgement, and its loss is known in time."""

from __future__ import annotations

import threading
import time

import pytest

from odc_stats_gpu.errors import Cancelled
from odc_stats_gpu.model import TileIndex
from odc_stats_gpu.queue import Consumer, Keeper, deliveries, publish, queue_status

TILES = [TileIndex("2019--P1Y", x, 4) for x in range(3)]


def take(url, keeper, **options):
    options = {"lease_seconds": 2, "idle_timeout": 0, **options}
    consumer = Consumer(url, **options)
    return next(deliveries(consumer, keeper, threading.Event()), None)


def test_a_lease_outlives_its_seconds_while_it_is_kept(queues):
    live, _ = queues
    publish("s3://b/x.db", live, TILES[:1])
    with Keeper(margin=3) as keeper:
        got = take(live, keeper, lease_seconds=6)
        time.sleep(8)
        assert not got.lease.lost
        assert queue_status(live).visible == 0
        got.lease.acknowledge()
    assert queue_status(live).in_flight == 0


def test_a_refused_renewal_loses_the_lease_and_says_so(queues, proxy):
    live, _ = queues
    publish("s3://b/x.db", live, TILES[:1])
    told = threading.Event()
    with Keeper(margin=1, on_lost=lambda _: told.set()) as keeper:
        got = take(live, keeper)
        proxy.refuse["ChangeMessageVisibility"] = (400, "ReceiptHandleIsInvalid")
        assert told.wait(4)
    with pytest.raises(Cancelled, match="lost the lease"):
        got.lease.check()


def test_without_answers_the_clock_decides(queues, proxy, monkeypatch):
    live, _ = queues
    publish("s3://b/x.db", live, TILES[:1])
    now = [1000.0]
    with Keeper(margin=1, clock=lambda: now[0]) as keeper:
        got = take(live, keeper, clock=lambda: now[0])
        got.lease.check()
        now[0] += 2.1  # a paused process wakes up late
        with pytest.raises(Cancelled):
            got.lease.check()


def test_a_failed_task_comes_back_with_growing_delay(queues, monkeypatch):
    live, _ = queues
    asked = []
    publish("s3://b/x.db", live, TILES[:1])
    with Keeper(margin=1) as keeper:
        got = take(live, keeper)
        monkeypatch.setattr(got.lease, "release", asked.append)
        for receives, base in ((1, 5), (2, 10), (5, 80), (20, 900)):
            got.lease.receives = receives
            got.lease.back_off()
            assert base * 0.8 <= asked[-1] <= base * 1.2


def test_interrupted_work_returns_at_once_without_a_mark(sqs, queues):
    live, _ = queues
    publish("s3://b/x.db", live, TILES[:1])
    for turn in (1, 2, 3):  # the dead-letter policy allows two receives
        with Keeper(margin=1) as keeper:
            got = take(live, keeper, lease_seconds=30)
            assert got.message.index == TILES[0]
            assert got.lease.receives == 1
            seen = got.lease.message.get("MessageAttributes", {}).get("interruptions", {})
            assert seen.get("StringValue", "0") == str(turn - 1)
            got.lease.hand_back()
    assert queue_status(live).visible == 1


def test_after_twenty_interruptions_it_is_plainly_released(sqs, queues):
    live, _ = queues
    attrs = {"interruptions": {"DataType": "Number", "StringValue": "20"}}
    sqs.send_message(QueueUrl=live, MessageBody=f"s3/{TILES[0]}", MessageAttributes=attrs)
    sqs.purge_queue(QueueUrl=live)
    body = '{"filedb": "a.db", "tile_idx": "2019--P1Y/00/04"}'
    sqs.send_message(QueueUrl=live, MessageBody=body, MessageAttributes=attrs)
    with Keeper(margin=1) as keeper:
        take(live, keeper, lease_seconds=30).lease.hand_back()
        again = take(live, keeper, lease_seconds=30)
        assert again.lease.receives == 2


def test_poison_reaches_the_dead_letter_queue_and_the_rest_is_served(sqs, queues):
    live, _ = queues
    sqs.send_message(QueueUrl=live, MessageBody="not a task")
    publish("s3://b/x.db", live, TILES)
    seen, bad = [], []
    with Keeper(margin=1) as keeper:
        consumer = Consumer(live, lease_seconds=30, idle_timeout=6, on_malformed=bad.append)
        for got in deliveries(consumer, keeper, threading.Event()):
            seen.append(got.message.index)
            got.lease.acknowledge()
            keeper.drop(got.lease)
    assert sorted(seen) == TILES
    assert len(bad) == 2
    assert queue_status(live).dead == 1


def test_a_worker_waits_for_work_that_may_come_back(queues):
    live, _ = queues
    publish("s3://b/x.db", live, TILES[:1])
    with Keeper(margin=1) as keeper:
        first = take(live, keeper, lease_seconds=30)
        threading.Timer(1.5, first.lease.hand_back).start()
        assert take(live, keeper, lease_seconds=30, idle_timeout=6).message == first.message


def test_the_heartbeat_is_whole_and_beats_when_idle(tmp_path):
    path = tmp_path / "beat"
    with Keeper(margin=1, heartbeat=str(path)):
        time.sleep(0.6)
    time.strptime(path.read_text().strip(), "%Y-%m-%d %H:%M:%S")
    assert [p.name for p in tmp_path.iterdir()] == ["beat"]
