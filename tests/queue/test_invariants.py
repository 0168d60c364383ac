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
        for k, tile in enumerate(tiles):
            self.queue.put(body_of(tile), marks if k == 0 else 0)

    @rule(tile=st.sampled_from(TILES))
    def publish_again(self, tile):
        self.published.add(tile)
        self.queue.put(body_of(tile))

    @rule(body=st.sampled_from(POISON))
    def publish_poison(self, body):
        self.queue.put(body)

    @rule(k=WORKERS, offset=st.sampled_from([-500.0, 0.0, 1e6]))
    def start_worker(self, k, offset):
        if self.workers[k] is None:
            self.started += 1
            self.workers[k] = Worker(self.queue, f"w{self.started}", offset)

    @rule(k=WORKERS)
    def receive(self, k):
        worker = self.workers[k]
        if worker and worker.delivery is None and not worker.token.cancelled:
            try:
                worker.receive()
            except StoreError:  # the queue was silent for too long: it leaves, exit code 1
                self.workers[k] = None

    @rule(k=WORKERS, steps=st.integers(1, 4))
    def work(self, k, steps):
        for _ in range(steps):
            if self.workers[k]:
                self.workers[k].executor.advance()

    @rule(k=WORKERS)
    def settle(self, k):
        worker = self.workers[k]
        if worker and worker.settle() and worker.token.cancelled:
            self.workers[k] = None
            self.gone.append(worker)

    @rule(k=WORKERS, deaf=st.booleans(), hanging=st.booleans())
    def interrupt(self, k, deaf, hanging):
        """SIGTERM; the tile may not stop at once, the queue may not answer any more."""
        if self.workers[k]:
            self.workers[k].executor.deaf, self.workers[k].hanging = deaf, hanging
            self.workers[k].token.cancel("SIGTERM")

    @rule(k=WORKERS, hanging=st.booleans())
    def interrupt_a_receive(self, k, hanging):
        worker = self.workers[k]
        if worker and worker.delivery is None:
            worker.hanging = hanging
            worker.receive_and_leave()
            self.workers[k] = None
            self.gone.append(worker)

    @rule(k=WORKERS)
    def kill(self, k):
        self.workers[k] = None

    @rule(k=WORKERS, failing=st.booleans())
    def break_the_input(self, k, failing):
        if self.workers[k]:
            self.workers[k].executor.failing = failing

    @rule(seconds=st.integers(1, 2 * LEASE), asleep=st.sets(WORKERS))
    def pass_time(self, seconds, asleep):
        """Keepers of those who aren't paused act every second."""
        for _ in range(seconds):
            self.clock.now += 1
            for k, worker in enumerate(self.workers):
                if worker and k not in asleep:
                    worker.keeper.tick()

    @rule(operation=st.sampled_from(sorted(FAULTS)), data=st.data())
    def next_call_fails(self, operation, data):
        self.queue.faults.append((operation, data.draw(st.sampled_from(FAULTS[operation]))))

    @precondition(lambda self: any(w.late for w in self.gone))
    @rule()
    def a_late_call_takes_effect(self):
        late = next(w.late for w in self.gone if w.late)
        self.queue.faults.clear()
        late.pop(0)()

    @rule(data=st.data())
    def deliver_twice(self, data):
        flying = [m for m in self.queue.messages if m.visible_at > self.clock.now]
        if flying:
            message = data.draw(st.sampled_from(flying))
            message.twice, message.visible_at = True, self.clock.now

    def __init__(self):
        super().__init__()
        self.gone, self.queue = [], None

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
        self.workers = [None] * 3
        worker = Worker(self.queue, "last")
        for _ in range(4 * len(self.queue.messages) + 4):
            self.clock.now += 1000  # leases and delays of the dead run out
            worker.receive()
            while not worker.settle():
                worker.executor.advance()
        assert self.queue.messages == []
        dead = {tile_of(m.body) for m in self.queue.dead}
        assert self.published <= dead | set(self.store.items)
        assert {m.body for m in self.queue.dead} >= {
            m.body for m in self.queue.dead if tile_of(m.body) is None
        }
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
    monkeypatch.setattr("odc_stats_gpu.engine._fleet._STOPPING", 0.001)


@pytest.mark.usefixtures("impatient")
def test_every_tile_is_done_once_or_dead():
    run_state_machine_as_test(Fleet, settings=settings(max_examples=150, stateful_step_count=60))
