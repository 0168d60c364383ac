"""One further message while a tile is in work: only where nobody goes without, and never lost."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from odc_stats_gpu.engine import _ahead
from odc_stats_gpu.queue import publish, queue_status

from .fakes import Clock, Queue, Store, Worker, body_of
from .test_leaving import _LOAD, at_work, gone, until

TILES = [f"2019--P1Y/{x:02d}/04" for x in range(6)]


@pytest.fixture
def queue(monkeypatch):
    monkeypatch.setattr(_ahead, "_WORTH", 0)
    queue = Queue(Clock(), Store())
    for tile in TILES[:4]:
        queue.put(body_of(tile))
    return queue


def ahead_of(worker, **options):
    return _ahead.Ahead(
        worker.consumer, worker.keeper, worker.executor, worker.token.event,
        **{"enabled": True, **options},
    )  # fmt: skip


def source(worker):
    worker.receive()
    yield worker.delivery


def looked(ahead):
    ahead.look()
    if ahead._look is not None:
        ahead._look.result(20)


def test_the_next_message_is_held_planned_and_served_next(queue):
    worker = Worker(queue, "w")
    ahead = ahead_of(worker)
    got = []
    for delivery in ahead.following(source(worker)):
        got.append(str(delivery.message.index))
        looked(ahead)
        looked(ahead)
        assert len(worker.keeper.held) <= 2
        assert queue.messages[len(worker.keeper.held) - 1].visible_at > queue.clock.now
        queue.clock.now += 20
        worker.keeper.tick()  # all that are held are renewed
        assert all(not lease.lost and lease.remaining > 20 for lease in worker.keeper.held)
        worker.keeper.drop(delivery.lease)
        queue.store.put_item(got[-1], "w")
        delivery.lease.acknowledge()
    # with one in work and one visible the second is left to others
    assert got == TILES[:3]
    assert worker.executor.expected.tile == TILES[2]


def test_nothing_is_taken_where_others_might_go_without(queue):
    del queue.messages[2:]  # one in work, one visible: another worker may want it
    worker = Worker(queue, "w")
    ahead = ahead_of(worker)
    assert [str(d.message.index) for d in ahead.following(source(worker))] == TILES[:1]
    looked(ahead)
    assert len(worker.keeper.held) == 1


def test_it_is_off_by_default(queue):
    worker = Worker(queue, "w")
    ahead = ahead_of(worker, enabled=False)
    for _ in ahead.following(source(worker)):
        ahead.look()
    assert len(worker.keeper.held) == 1


def test_a_lease_lost_meanwhile_is_not_served(queue):
    worker = Worker(queue, "w")
    ahead = ahead_of(worker)
    got = []
    for delivery in ahead.following(source(worker)):
        got.append(delivery)
        looked(ahead)
        queue.clock.now += 100  # the process was paused
    assert len(got) == 1


def test_what_was_taken_goes_back_when_we_are_told_to_leave(queue):
    worker = Worker(queue, "w")
    ahead = ahead_of(worker)
    for _ in ahead.following(source(worker)):
        looked(ahead)
        worker.token.cancel("SIGTERM")
        ahead.give_back()
    ahead.wait()
    assert sorted(m.interruptions for m in queue.messages) == [0, 0, 0, 1]
    assert sum(m.visible_at <= queue.clock.now for m in queue.messages) == 3


def test_a_look_that_ends_late_gives_back_what_it_brings(queue, monkeypatch):
    worker = Worker(queue, "w")
    ahead = ahead_of(worker)
    slow, real = threading.Event(), worker.consumer.ask_ahead

    def ask():
        slow.wait(20)
        return real()

    monkeypatch.setattr(worker.consumer, "ask_ahead", ask)
    monkeypatch.setattr(_ahead, "_LAST", 0.05)
    for _ in ahead.following(source(worker)):
        ahead.look()
        worker.token.cancel("SIGTERM")
    ahead.wait()
    slow.set()
    until(lambda: len(worker.keeper.held) == 2)
    until(lambda: any(m.interruptions == 1 for m in queue.messages))


@pytest.mark.slow
def test_both_messages_of_a_real_worker_go_back(sqs, queues, worker, fleet_db, tiles):
    publish(str(fleet_db), queues[0], tiles)
    process = worker("--prefetch", fault="block_read:stop", lease=60)
    family = at_work(process, queues[0])
    until(lambda: queue_status(queues[0]).in_flight == 2)
    process.send_signal(signal.SIGTERM)
    asked = time.monotonic()
    until(lambda: queue_status(queues[0]).visible == len(tiles), 5 + _LOAD)
    assert time.monotonic() - asked < 5 + _LOAD
    assert gone(family, 10 + _LOAD)[1] == 3
    process = worker("--prefetch", idle=3)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, f"OK:{len(tiles)}" in out) == (0, True), err
    assert queue_status(queues[0]).dead == 0
