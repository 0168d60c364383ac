"""Publishing and redriving against a real SQS server that refuses entries now and then."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from odc_stats_gpu.errors import ConfigError
from odc_stats_gpu.model import TileIndex
from odc_stats_gpu.queue import (
    MalformedMessageError,
    TaskMessage,
    publish,
    queue_status,
    redrive,
    redrive_target,
)
from odc_stats_gpu.queue._batch import Outgoing, batches

TILES = [TileIndex("2019--P1Y", x, 4) for x in range(-3, 20)]


def drain(sqs, url):
    out = []
    while messages := sqs.receive_message(
        QueueUrl=url, MaxNumberOfMessages=10, MessageAttributeNames=["All"], AttributeNames=["All"]
    ).get("Messages"):
        out += messages
        for m in messages:
            sqs.delete_message(QueueUrl=url, ReceiptHandle=m["ReceiptHandle"])
    return out


def test_every_task_is_published_once_in_the_incumbents_words(sqs, queues):
    live, _ = queues
    summary = publish("s3://b/x.db", live, TILES)
    assert (summary.found, summary.sent, summary.failed) == (23, 23, {})
    got = [json.loads(m["Body"]) for m in drain(sqs, live)]
    assert {g["filedb"] for g in got} == {"s3://b/x.db"}
    assert sorted(g["tile_idx"] for g in got) == sorted(str(t) for t in TILES)
    assert "2019--P1Y/-3/04" in {g["tile_idx"] for g in got}


def test_an_entry_refused_for_good_is_counted_and_named(sqs, queues, proxy, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)
    live, _ = queues
    proxy.fail_entries = {"2019--P1Y/07/04"}
    summary = publish("s3://b/x.db", live, TILES)
    assert summary.sent == 22
    assert summary.failed == {TileIndex("2019--P1Y", 7, 4): "no"}
    assert len(drain(sqs, live)) == 22


def test_messages_are_read_in_both_dialects():
    index = TileIndex("2019--P1Y", 3, 4)
    assert TaskMessage.parse(TaskMessage("s3://b/x.db", index).render()) == TaskMessage(
        "s3://b/x.db", index
    )
    for body in ("x+003/y+004/2019--P1Y", "2019--P1Y/3/4", "2019--P1Y,3,4"):
        assert TaskMessage.parse(body, "a.db") == TaskMessage("a.db", index)
    comma = '{"filedb": "s3://b/x.db", "tile_idx": "2019--P1Y,03,04"}'
    assert TaskMessage.parse(comma).index == index


@pytest.mark.parametrize(
    "body",
    [
        "", "{", "[]", '{"filedb": "x"}', '{"tile_idx": 3}', "2019--P1Y/3", '{"a":1} x', "null",
        '{"filedb": 3, "tile_idx": "2019--P1Y/3/4"}', '["2019--P1Y/3/4"]', "\x01\x02\x7f",
        '{"filedb": ["x"], "tile_idx": "2019--P1Y/3/4"}', '{"tile_idx": "2019--P1Y/3/4.5"}',
        '{"tile_idx": "0000--P1Y/3/4"}', "[" * 100_000, '{"a":' * 50_000, "9" * 200_000,
        '{"tile_idx": "2019--P1Y/3/' + "4" * 5000 + '"}',
    ],
    ids=lambda body: body[:30],
)  # fmt: skip
def test_a_malformed_message_is_named_never_fatal(body):
    with pytest.raises(MalformedMessageError):
        TaskMessage.parse(body, "a.db")


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ('{"tile_idx": ', "is no task: not JSON, Expecting value"),
        ('{"filedb": "s3://b/x.db"}', "is no task: it lacks 'tile_idx'"),
    ],
)
def test_why_a_message_is_no_task_is_said_in_words(body, why):
    with pytest.raises(MalformedMessageError, match=why):
        TaskMessage.parse(body)


def test_redrive_keeps_attributes_and_empties_the_dead_letter_queue(sqs, queues):
    live, dead = queues
    for k in range(12):
        sqs.send_message(
            QueueUrl=dead, MessageBody=f"m{k}",
            MessageAttributes={"why": {"DataType": "String", "StringValue": f"r{k}"}},
        )  # fmt: skip
    assert redrive_target(dead).rsplit("/", 1)[-1] == live.rsplit("/", 1)[-1]
    summary = redrive(dead, live)
    assert (summary.moved, summary.failed, summary.undeleted) == (12, {}, 0)
    got = drain(sqs, live)
    assert sorted(m["Body"] for m in got) == sorted(f"m{k}" for k in range(12))
    assert {m["MessageAttributes"]["why"]["StringValue"] for m in got} == {
        f"r{k}" for k in range(12)
    }
    assert drain(sqs, dead) == []


def test_a_limit_leaves_the_rest_visible(sqs, queues):
    live, dead = queues
    for k in range(12):
        sqs.send_message(QueueUrl=dead, MessageBody=f"m{k}")
    assert redrive(dead, live, limit=5).moved == 5
    assert queue_status(dead).visible == 7
    assert queue_status(dead).in_flight == 0
    assert len(drain(sqs, live)) == 5


def test_what_the_target_refuses_stays_dead(sqs, queues, proxy, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)
    live, dead = queues
    for k in range(12):
        sqs.send_message(QueueUrl=dead, MessageBody=f"m{k}.")
    proxy.fail_entries = {"m3."}
    summary = redrive(dead, live)
    assert summary.moved == 11
    assert list(summary.failed.values()) == ["no"]
    assert [m["Body"] for m in drain(sqs, dead)] == ["m3."]


def test_fifo_groups_survive_a_redrive(sqs, proxy):
    options = {"FifoQueue": "true"}
    urls = []
    for name in ("f-dead.fifo", "f-live.fifo"):
        url = sqs.create_queue(QueueName=name, Attributes=options)["QueueUrl"]
        urls.append(proxy.url + "/" + url.split("/", 3)[3])
    dead, live = urls
    assert publish("s3://b/x.db", dead, TILES[:3]).sent == 3
    assert redrive(dead, live).moved == 3
    got = drain(sqs, live)
    assert {m["Attributes"]["MessageGroupId"] for m in got} == {str(t) for t in TILES[:3]}
    assert all(m["Attributes"]["MessageDeduplicationId"].startswith("redrive-") for m in got)


def test_status_counts_the_dead_too(sqs, queues):
    live, dead = queues
    publish("s3://b/x.db", live, TILES[:4])
    sqs.receive_message(QueueUrl=live)
    sqs.send_message(QueueUrl=dead, MessageBody="x")
    status = queue_status(live)
    assert (status.visible, status.in_flight, status.dead) == (3, 1, 1)


def test_large_messages_travel_in_smaller_batches(sqs, queues):
    live, dead = queues
    for k in range(6):
        sqs.send_message(QueueUrl=dead, MessageBody=f"{k}" + "x" * 100_000)
    summary = redrive(dead, live)
    assert (summary.moved, summary.failed) == (6, {})
    assert sorted(m["Body"][0] for m in drain(sqs, live)) == list("012345")
    bodies = [Outgoing("x" * 100_000, {"a": {"DataType": "String", "StringValue": "y" * 50_000}})]
    assert [len(b) for b in batches(bodies * 5)] == [1] * 5
    assert [len(b) for b in batches([Outgoing("é" * 60_000)] * 5)] == [2, 2, 1]
    assert [len(b) for b in batches([Outgoing("x")] * 23)] == [10, 10, 3]


def test_a_target_that_refuses_for_good_is_not_asked_again_and_again(sqs, queues, proxy):
    live, _ = queues
    proxy.refuse["SendMessageBatch"] = (403, "AccessDenied")
    summary = publish("s3://b/x.db", live, TILES)
    assert summary.sent == 0
    assert set(summary.failed) == set(TILES)
    assert "AccessDenied" in summary.failed[TILES[0]]


def test_throttling_is_waited_out(sqs, queues, proxy, monkeypatch):
    live, _ = queues
    proxy.refuse["SendMessageBatch"] = (400, "ThrottlingException")
    naps = []

    def nap(seconds):
        naps.append(seconds)
        proxy.refuse.clear()

    monkeypatch.setattr("odc_stats_gpu.queue._batch.time.sleep", nap)
    assert publish("s3://b/x.db", live, TILES[:3]).sent == 3
    assert naps


def test_a_redrive_that_was_copied_but_not_deleted_is_not_copied_twice(sqs, queues, proxy):
    live, dead = queues
    sqs.send_message(QueueUrl=dead, MessageBody="m")
    proxy.refuse["DeleteMessageBatch"] = (400, "InvalidParameterValue")
    summary = redrive(dead, live)
    assert (summary.moved, summary.undeleted) == (1, 1)
    assert len(drain(sqs, live)) == 1


@pytest.mark.parametrize(
    "step",
    [
        "redrive_copied",
        pytest.param("redrive_received", marks=pytest.mark.slow),
        pytest.param("redrive_deleted", marks=pytest.mark.slow),
    ],
)
def test_a_redrive_killed_at_any_step_loses_nothing(sqs, queues, step):
    live, dead = queues
    bodies = sorted(f"m{k}" for k in range(13))
    for body in bodies:
        sqs.send_message(QueueUrl=dead, MessageBody=body)
    command = [sys.executable, "-m", "odc_stats_gpu", "redrive-queue", dead, live]
    env = {**os.environ, "ODC_STATS_FAULT": f"{step}:kill"}
    assert subprocess.run(command, env=env, timeout=60, check=False).returncode == -signal.SIGKILL
    for queue in queues:  # an hour later
        for m in sqs.receive_message(
            QueueUrl=queue, MaxNumberOfMessages=10, VisibilityTimeout=0
        ).get("Messages", []):
            assert m["Body"] in bodies
    attrs = [
        sqs.get_queue_attributes(QueueUrl=q, AttributeNames=["All"])["Attributes"] for q in queues
    ]
    present = sum(
        int(a[f"ApproximateNumberOfMessages{s}"]) for a in attrs for s in ("", "NotVisible")
    )
    assert present == {"redrive_received": 13, "redrive_copied": 23, "redrive_deleted": 13}[step]


def test_a_dead_letter_queue_of_nobody_asks_for_a_target(sqs, queues, proxy):
    lone = sqs.create_queue(QueueName="lone")["QueueUrl"]
    with pytest.raises(ConfigError, match="name the target queue"):
        redrive_target(proxy.url + "/" + lone.split("/", 3)[3])
