"""Many faults at once, at random: in the end every tile is done once, or dead and then redriven."""

from __future__ import annotations

import random
import time
from collections import Counter

import psutil
import pytest
from faultproxy import blame, broken, cut, doubled, lost, pretend, refuse, slow
from realfleet import seconds_to_leave

from odc_stats_gpu.queue import redrive
from odc_stats_gpu.tasks import TaskDb

WEATHER = {
    "SQS throttles": ("(Send|Delete|Receive|Change).*", refuse(503, "ThrottlingException", 1), 0.5),
    "SQS is slow": (".*Message.*", slow(2), 0.3),
    "renewals are refused": ("ChangeMessageVisibility", refuse(400, "ReceiptHandleIsInvalid"), 0.7),
    "deletes are refused": ("DeleteMessage", refuse(403, "AccessDenied"), 0.7),
    "deletes are forgotten": ("DeleteMessage", pretend, 0.7),
    "messages are delivered twice": ("ReceiveMessage", doubled, 0.5),
    "answers of SQS are lost": ("(Send|Delete|Change|Receive)Message.*", lost, 0.3),
    "S3 throttles": ("(Put|Head|List|Delete)Object.*", refuse(503, "SlowDown", 1), 0.5),
    "S3 is slow": ("(Put|Head|List)Object.*", slow(1), 0.3),
    "S3 writes and says 500": ("PutObject", blame(500), 0.5),
    "answers of S3 are lost": ("(Put|Delete)Object", lost, 0.4),
    "connections of S3 break": ("(Put|Head|Get|List)Object.*", broken, 0.4),
    "answers of S3 break": ("(Get|List)Object.*", cut, 0.4),
    "S3 forbids": ("(Put|Head)Object", refuse(403, "AccessDenied"), 0.1),
    "S3 sees a conflict": ("PutObject", refuse(412, "PreconditionFailed"), 0.2),
}


def blow(fleet, chance, *, seconds, workers, idle):
    """Faults of all kinds for so long; processes that end are replaced."""
    end, paused = time.monotonic() + seconds, {}
    while time.monotonic() < end and not fleet.empty:
        living = [w for w in fleet.workers if w.alive]
        while len(living) < workers:
            living.append(fleet.start(*chance.choice([(), ("--prefetch",)]), idle=idle))
        for worker in [w for w, since in paused.items() if time.monotonic() > since + 8]:
            del paused[worker]
            worker.resume()
        # those that are starting, leaving or paused have had their share
        ready = [w for w in living if w.said("worker") and not w.signalled and w not in paused]
        victim = chance.choice(ready) if ready else None
        what = chance.choice(["weather", "weather", "kill", "kill child", "terminate", "pause", ""])
        if what == "weather":
            fleet.proxy.clear()
            for name in chance.sample(sorted(WEATHER), 2):
                action, fault, share = WEATHER[name]
                fleet.proxy.add(action, fault, chance=share)
        elif victim is None:
            pass
        elif what == "kill":
            victim.process.kill()
        elif what == "kill child" and victim.children:
            chance.choice(victim.children).kill()
        elif what == "terminate":
            victim.terminate()
        elif what == "pause" and not paused:
            victim.pause()
            paused[victim] = time.monotonic()
        time.sleep(chance.uniform(0.5, 2.5))
    for worker in paused:
        worker.resume()
    fleet.proxy.clear()


def calm(fleet, idle):
    """What is left is done without faults; every worker leaves by itself, or as it was told."""
    for worker in fleet.workers:
        if worker.signalled:
            worker.leave(max(1, worker.signalled + seconds_to_leave() - time.monotonic()))
    rounds = 0
    while not fleet.empty and rounds < 9:
        fleet.finish(idle=idle, within=240)
        rounds += 1
    for worker in fleet.workers:
        try:
            code = worker.leave(idle + 30)
        except psutil.TimeoutExpired:
            raise AssertionError(f"it doesn't leave: {worker.log.read_text()[-3000:]}") from None
        assert code in (0, 3, -9), worker.log.read_text()[-3000:]
        assert code != 3 or worker.signalled
        if code != -9:
            assert worker.told == worker.counted


def storm(fleet, good, bad, scenes, *, seed, workers, seconds, idle):
    chance = random.Random(seed)
    whole = {path: path.read_bytes() for path in scenes}
    assert whole
    try:
        for path in scenes:
            path.write_bytes(whole[path][:200])
        fleet.publish([*good, *bad])
        blow(fleet, chance, seconds=seconds, workers=workers, idle=idle)
        calm(fleet, idle)
    finally:
        for path, data in whole.items():
            path.write_bytes(data)
    dead = fleet.dead_tiles()
    # what was interrupted too often is dead, too: no fault of its own, and counted for
    assert set(bad) <= set(dead) <= {*good, *bad}
    assert set(good) <= {*dead, *fleet.finished()}
    fleet.judge(fleet.finished(), dead)
    assert not set(bad) & set(fleet.finished())
    waiting = len(fleet.dead_messages())
    assert redrive(fleet.dead, fleet.queue).moved == waiting
    fleet.finish(idle=2)
    fleet.judge([*good, *bad])
    made = Counter(line["task"] for worker in fleet.workers for line in worker.said("task done"))
    assert set(made.values()) <= {1}, made


@pytest.fixture
def tiles(db):
    """Good tiles of eleven months, bad ones of December, and the scenes to break."""
    with TaskDb.open(db) as tasks:
        indexes = tasks.indexes()
    chance = random.Random(0)
    chance.shuffle(indexes)
    good = [i for i in indexes if not i.period.startswith("2021-12")]
    bad = [i for i in indexes if i.period.startswith("2021-12")]
    scenes = sorted(db.parent.glob("a/*/*/*/2021/12/*/*_oa_fmask.tif"))
    return good, bad, scenes


def test_a_small_storm(fleet, tiles):
    good, bad, scenes = tiles
    storm(
        fleet(s3=True, receives=2), good[:5], bad[:1], scenes, seed=1, workers=2, seconds=6, idle=6
    )


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("s3", [True, False], ids=["s3", "folder"])
def test_a_great_storm(fleet, tiles, s3):
    good, bad, scenes = tiles
    storm(fleet(s3=s3), good[:57], bad[:3], scenes, seed=2, workers=3, seconds=150, idle=16)
