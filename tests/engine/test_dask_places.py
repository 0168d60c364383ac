"""Who gets which Dask worker: nobody a busy or a dead one, a repeated tile another one."""

from __future__ import annotations

import threading

import pytest

from odc_stats_gpu.engine import CancelToken
from odc_stats_gpu.engine._dask_places import Place, Places
from odc_stats_gpu.errors import Cancelled


class Cluster:
    """What `Places` asks of workers."""

    def __init__(self, **alive):
        self.now, self.hope = alive, True

    def alive(self):
        return dict(self.now)

    def coming(self):
        return self.hope


def places(**alive):
    found = Places(CancelToken())
    found.workers = Cluster(**alive)
    return found


def fresh(found):
    found._read = 0.0


def test_each_worker_makes_one_tile_at_a_time():
    found = places(a="tcp://1", b="tcp://2")
    first, second = (found.take([], 1) for _ in range(2))
    assert {first.name, second.name} == {"a", "b"}
    assert found.count == 2
    taken = []
    thread = threading.Thread(target=lambda: taken.append(found.take([], 30)))
    thread.start()
    thread.join(0.3)
    assert taken == []
    found.give(second)
    thread.join(10)
    assert taken == [second]


def test_a_repeated_tile_waits_for_another_worker_as_long_as_there_is_one():
    found = places(a="tcp://1", b="tcp://2")
    busy = found.take(["a"], 1)
    assert busy.name == "b"
    taken = []
    thread = threading.Thread(target=lambda: taken.append(found.take(["a"], 30)))
    thread.start()
    thread.join(0.3)
    assert taken == []  # a is free, and avoided
    del found.workers.now["b"]
    fresh(found)
    thread.join(10)
    assert taken == [Place("a", "tcp://1")]


def test_a_dead_process_gets_nothing_though_the_scheduler_still_lists_it():
    found = places(a="tcp://1")
    first = found.take([], 1)
    found.bury(first)
    found.give(first)
    assert not found.has(first)
    assert found.take([], 0.2) is None
    found.workers.now["a"] = "tcp://9"
    fresh(found)
    assert found.take(["a"], 5) == Place("a", "tcp://9")  # the same GPU, if there is no other


def test_an_address_may_come_again():
    found = places(a="tcp://1")
    first = found.take([], 1)
    found.bury(first)
    found.give(first)
    found.workers.now.clear()
    fresh(found)
    assert found.refresh() == 0
    found.workers.now["a"] = "tcp://1"
    fresh(found)
    assert found.take([], 5) == first


def test_no_waiting_for_workers_that_will_not_come():
    found = places()
    found.workers.hope = False
    assert found.take([], 3600) is None


def test_a_cancelled_run_waits_no_longer():
    found = places(a="tcp://1")
    found.take([], 1)
    threading.Timer(0.2, lambda: found._token.cancel("received SIGTERM")).start()
    with pytest.raises(Cancelled, match="SIGTERM"):
        found.take([], 3600)
