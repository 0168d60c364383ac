"""Whatever befalls the workers: every tile is in the end done once, or in the dead-letter queue."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from odc_stats_gpu.errors import StoreError
from odc_stats_gpu.queue import _calls, _hand_back

from .fakes import LEASE, Clock, Queue, Store, Worker, body_of, tile_of

TILES = [f"2019--P1Y/{x:02d}/04" for x in range(4)]
POISON = ["poison", "{", "[1, 2]", '{"filedb": 3}', "\x01\x02", "null", "9" * 5000]
FAULTS = {
    "receive": ["throttled", "lost", "slow"],
    "visibility": ["throttled", "lost", "slow", "refused"],
    "delete": ["throttled", "lost", "slow", "refused"],
    "send": ["throttled", "lost", "slow", "refused"],
}
WORKERS = st.integers(0, 2)


class Fleet(RuleBasedStateMachine):
    """Up to three workers, anything may happen to each between any two steps."""

    @initialize(tiles=st.lists(st.sampled_from(TILES), min_size=1), marks=st.integers(17, 20))
    def publish(self, tiles, marks):
        self.clock, self.store = Clock(), Store()
        self.queue = Queue(self.clock, self.store)
        self.workers, self.started, self.published = [None] * 3, 0, set(tiles)
        for k in range(3):
            self.replace(k)
        for k, tile in enumerate(tiles):
            self.queue.put(body_of(tile), marks if k == 0 else 0)

    @rule(tile=st.sampled_from(TILES))
    def publish_again(self, tile):
        self.published.add(tile)
        self.queue.put(body_of(tile))

    @rule(body=st.sampled_from(POISON))
    def publish_poison(self, body):
        self.queue.put(body)

    @rule(k=WORKERS, steps=st.integers(1, 8))
    def toil(self, k, steps):
        """What a worker does by itself: receive, make the tile step by step, settle, leave."""
        for _ in range(steps):
            worker = self.workers[k]
            worker.executor.advance()
            if not worker.settle():
                continue
            if worker.token.cancelled:
                self.replace(k)
                return
            try:
                worker.receive()
            except StoreError:  # the queue was silent for too long: it leaves, exit code 1
                self.replace(k)
                return

    @rule(k=WORKERS)
    def look_ahead(self, k):
        worker = self.workers[k]
        if worker.delivery is not None and not worker.token.cancelled:
            worker.ahead.look()

    @rule(k=WORKERS, deaf=st.booleans(), hanging=st.booleans())
    def interrupt(self, k, deaf, hanging):
        """SIGTERM; the tile may not stop at once, the queue may not answer any more."""
        self.workers[k].executor.deaf, self.workers[k].hanging = deaf, hanging
        self.workers[k].token.cancel("SIGTERM")

    @rule(k=WORKERS, hanging=st.booleans())
    def interrupt_a_receive(self, k, hanging):
        if self.workers[k].delivery is None:
            self.workers[k].hanging = hanging
            self.workers[k].receive_and_leave()
            self.replace(k)

    @rule(k=WORKERS)
    def replace(self, k):
        """kill -9, and another one elsewhere; calls that hang may still take effect."""
        if self.workers[k]:
            self.late += self.workers[k].late
        self.started += 1
        self.workers[k] = Worker(self.queue, f"w{self.started}", 500.0 * self.started)

    @rule(k=WORKERS)
    def break_the_input(self, k):
        self.workers[k].executor.failing = True

    @rule(
        seconds=st.sampled_from([1, 6, LEASE // 2, LEASE - 1, LEASE + 1, 1000]),
        asleep=st.sets(WORKERS),
    )
    def pass_time(self, seconds, asleep):
        """Keepers of those who aren't paused act every second."""
        for _ in range(seconds):
            self.clock.now += 1
            for k, worker in enumerate(self.workers):
                if k not in asleep:
                    worker.keeper.tick()

    @rule(operation=st.sampled_from(sorted(FAULTS)), data=st.data())
    def next_call_fails(self, operation, data):
        self.queue.faults.append((operation, data.draw(st.sampled_from(FAULTS[operation]))))

    @precondition(lambda self: self.late)
    @rule()
    def a_late_call_takes_effect(self):
        self.queue.faults.clear()
        self.late.pop(0)()

    @rule(data=st.data())
    def deliver_twice(self, data):
        flying = [m for m in self.queue.messages if m.visible_at > self.clock.now]
        if flying:
            message = data.draw(st.sampled_from(flying))
            message.twice, message.visible_at = True, self.clock.now

    def __init__(self):
        super().__init__()
        self.late, self.queue = [], None

    @invariant()
    def no_message_is_lost(self):
        if self.queue is None:
            return
        there = {tile_of(m.body) for m in (*self.queue.messages, *self.queue.dead)}
        assert self.published <= there | set(self.store.items)
        assert all(m.interruptions <= 20 for m in self.queue.messages)
        assert self.queue.sent == (
            self.queue.deleted + len(self.queue.messages) + len(self.queue.dead)
        )

    def teardown(self):
        """Calm returns: whoever is left ends, and one good worker empties the queue."""
        if self.queue is None:
            return
        self.queue.faults.clear()
        worker = Worker(self.queue, "last")
        for _ in range(4 * len(self.queue.messages) + 4):
            self.clock.now += 1000  # leases and delays of the dead run out
            worker.receive()
            while not worker.settle():
                worker.executor.advance()
        assert self.queue.messages == []
        dead = {tile_of(m.body) for m in self.queue.dead}
        assert self.published <= dead | set(self.store.items)
        assert worker.summary.done == sum(w == "last" for w in self.store.items.values())
        assert worker.summary.failed == []
        assert self.queue.sent == self.queue.deleted + len(self.queue.dead)


@pytest.fixture
def impatient(monkeypatch):
    """A call that hangs is given up at once: fake time doesn't pass while we wait."""
    monkeypatch.setattr(_calls, "_LOOK", 0.001)
    monkeypatch.setattr(_hand_back, "COPY_WITHIN", 0.001)
    monkeypatch.setattr(_hand_back, "_RELEASE_WITHIN", 0.001)
    monkeypatch.setattr("odc_stats_gpu.engine._fleet._LAST", 0.001)
    monkeypatch.setattr("odc_stats_gpu.engine._ahead._WORTH", 0)
    monkeypatch.setattr("odc_stats_gpu.engine._fleet._STOPPING", 0.001)


@pytest.mark.usefixtures("impatient")
def test_every_tile_is_done_once_or_dead():
    run_state_machine_as_test(Fleet, settings=settings(max_examples=100, stateful_step_count=40))
