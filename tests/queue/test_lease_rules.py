"""Leases in fake time: every rule of theirs by itself, with a queue that is as strict as SQS."""

from __future__ import annotations

from concurrent.futures import Future

import pytest

from odc_stats_gpu.errors import Cancelled, StoreError
from odc_stats_gpu.queue import Consumer, Keeper, hand_back

from . import fakes
from .fakes import LEASE, MARGIN, RECEIVES, URL, Clock, Queue, Store, Worker, body_of

TILE = "2019--P1Y/03/04"


@pytest.fixture
def queue():
    return Queue(Clock(), Store())


@pytest.fixture
def lease(queue):
    return take(queue).lease


def take(queue, interruptions=0):
    queue.put(body_of(TILE), interruptions)
    consumer = Consumer(URL, lease_seconds=LEASE, clock=lambda: queue.clock.now, client=queue)
    return consumer.take(consumer.ask())


def test_a_lease_counts_from_when_it_was_asked_for(queue):
    queue.faults = [("receive", "slow")]
    lease = take(queue).lease
    assert lease.remaining == LEASE - 8
    queue.faults = [("visibility", "slow")]
    assert lease.renew()
    assert lease.remaining == LEASE - 8
    assert queue.messages[0].visible_at - queue.clock.now == LEASE - 4


@pytest.mark.parametrize(("fault", "lost"), [("refused", True), ("throttled", False),
                                             ("lost", False), ("expired", False)])  # fmt: skip
def test_only_a_refusal_loses_it_at_once(queue, lease, fault, lost):
    queue.faults = [("visibility", fault)]
    assert not lease.renew()
    assert lease.lost is lost
    assert lease.patient
    queue.clock.now += LEASE
    with pytest.raises(Cancelled, match="lost the lease"):
        lease.check()


def test_a_lost_lease_is_not_renewed_nor_released(queue, lease):
    queue.clock.now += LEASE + 1
    other = Consumer(URL, lease_seconds=LEASE, clock=lambda: queue.clock.now, client=queue)
    second = other.take(other.ask()).lease
    before = queue.messages[0].visible_at
    assert not lease.renew()
    lease.release()
    lease.back_off()
    lease.hand_back()
    assert queue.messages[0].visible_at == before
    assert queue.sent == 1
    assert not second.lost


def test_a_keeper_renews_in_time_and_tells_of_a_loss(queue, lease):
    told = []
    keeper = Keeper(MARGIN, on_lost=told.append, clock=lambda: queue.clock.now)
    keeper.hold(lease)
    for _ in range(100):
        queue.clock.now += 1
        keeper.tick()
        assert lease.remaining >= LEASE / 2 - 1
    queue.faults = [("visibility", "throttled")] * 2
    for _ in range(LEASE):
        queue.clock.now += 1
        keeper.tick()
    assert not lease.lost
    queue.faults = [("visibility", "refused")]
    for _ in range(LEASE):
        queue.clock.now += 1
        keeper.tick()
    assert told == [lease]
    assert keeper.held == []


def test_the_end_of_the_work_is_no_loss(queue, lease):
    told = []
    keeper = Keeper(MARGIN, on_lost=told.append, clock=lambda: queue.clock.now)
    keeper.hold(lease)
    queue.store.put_item(TILE, "me")
    lease.acknowledge()
    queue.clock.now += LEASE + 1
    keeper.tick()
    assert told == []


@pytest.mark.parametrize("fault", ["throttled", "refused", "lost"])
def test_the_original_stays_when_its_copy_was_not_accepted(queue, lease, fault):
    queue.faults = [("send", fault)]
    lease.hand_back()
    assert any(m.id == "m0" and m.visible_at <= queue.clock.now for m in queue.messages)
    assert queue.deleted == 0


def test_a_copy_whose_original_stays_is_no_loss(queue, lease):
    queue.faults = [("delete", "throttled")]
    lease.hand_back()
    assert sorted(m.interruptions for m in queue.messages) == [0, 1]


def test_the_twentieth_interruption_is_the_last_without_a_mark(queue):
    take(queue, 19).lease.hand_back()
    (copy,) = queue.messages
    assert (copy.interruptions, copy.receives) == (20, 0)
    consumer = Consumer(URL, lease_seconds=LEASE, clock=lambda: queue.clock.now, client=queue)
    consumer.take(consumer.ask()).lease.hand_back()
    (same,) = queue.messages
    assert (same.id, same.interruptions, same.receives) == (copy.id, 20, 1)


def test_a_copy_that_takes_too_long_is_followed_by_a_plain_release(queue, lease):
    calls = []

    def start(work):
        calls.append(work)
        future = Future()
        if work == lease.release:
            future.set_result(work())
        return future

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("odc_stats_gpu.queue._hand_back.COPY_WITHIN", 0.01)
        assert hand_back(lease, start)
    assert calls == [lease.hand_back, lease.release]
    (message,) = queue.messages
    assert message.visible_at <= queue.clock.now


@pytest.mark.parametrize("receives", [1, 2, 5, 9, 40])
def test_a_failed_tile_waits_longer_every_time(queue, lease, receives):
    lease.receives = receives
    base = min(900, 5 * 2 ** (receives - 1))
    assert 0.8 * base <= lease.back_off() <= 1.2 * base
    wait = queue.messages[0].visible_at - queue.clock.now
    assert 0.8 * base - 1 <= wait <= 1.2 * base


def test_a_failed_tile_is_not_deleted_and_an_odd_error_costs_one_attempt(queue):
    queue.put(body_of(TILE))
    worker = Worker(queue, "w")
    worker.receive()
    worker.executor.future.set_exception(RuntimeError("no such process"))
    assert worker.settle()
    assert worker.summary.failed[0].error == "RuntimeError: no such process"
    assert queue.messages[0].visible_at > queue.clock.now
    assert queue.deleted == 0


def test_a_tile_that_is_finished_when_we_are_told_to_leave_is_acknowledged(queue):
    queue.put(body_of(TILE))
    worker = Worker(queue, "w")
    worker.receive()
    for _ in range(4):
        worker.executor.advance()
    worker.token.cancel("SIGTERM")
    assert worker.settle()
    assert (queue.messages, worker.summary.done) == ([], 1)


def test_silence_of_the_queue_is_borne_for_the_idle_time(queue):
    now = queue.clock
    consumer = Consumer(
        URL, lease_seconds=LEASE, idle_timeout=60, clock=lambda: now.now, client=queue
    )
    said = []
    consumer._on_trouble = said.append
    now.now += 1000  # the machine slept: one failure after that is no reason to leave
    for _ in range(10):
        queue.faults = [("receive", "lost")]
        consumer.take(consumer.ask())
    queue.faults = [("receive", "lost")]
    with pytest.raises(StoreError, match="start the worker again"):
        consumer.take(consumer.ask())
    assert len(said) == 11


def test_who_waits_for_nothing_still_looks_behind_a_malformed_message(queue):
    queue.put("not a task")
    queue.put(body_of(TILE))
    now = queue.clock
    consumer = Consumer(
        URL, lease_seconds=LEASE, idle_timeout=0, clock=lambda: now.now, client=queue
    )
    for _ in range(RECEIVES):
        assert consumer.take(consumer.ask()) is None
        assert not consumer.finished
    assert consumer.take(consumer.ask()) is not None
    assert len(queue.dead) == 1


def test_what_no_dead_letter_queue_takes_away_keeps_nobody(queue, monkeypatch):
    monkeypatch.setattr(fakes, "RECEIVES", 1000)
    queue.put("not a task")
    now = queue.clock
    consumer = Consumer(
        URL, lease_seconds=LEASE, idle_timeout=0, clock=lambda: now.now, client=queue
    )
    for count in range(1, 12):
        assert consumer.take(consumer.ask()) is None
        assert consumer.finished is (count > 10)


def test_a_lost_lease_is_not_said_to_be_handed_back(queue, monkeypatch):
    said = []
    monkeypatch.setattr("odc_stats_gpu.engine._fleet.log", lambda event, **_: said.append(event))
    for late in (False, True):
        queue.put(body_of(TILE))
        worker = Worker(queue, "w")
        worker.receive()
        queue.clock.now += LEASE + 1 if late else 0
        worker.token.cancel("SIGTERM")
        assert worker.settle()
    assert said == ["task handed back"]
