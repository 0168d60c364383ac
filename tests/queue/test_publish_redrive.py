"""Publishing and redriving against a real SQS server that refuses entries now and then."""

from __future__ import annotations

import json

import pytest

from odc_stats_gpu.errors import ConfigError
from odc_stats_gpu.model import TileIndex
from odc_stats_gpu.queue import (
    MalformedMessageError,
    TaskMessage,
    publish,
    queue_status,
    queue_url,
    redrive,
    redrive_target,
)

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
    ["", "{", "[]", '{"filedb": "x"}', '{"tile_idx": 3}', "2019--P1Y/3", '{"a":1} x', "null"],
)
def test_a_malformed_message_is_named_never_fatal(body):
    with pytest.raises(MalformedMessageError):
        TaskMessage.parse(body, "a.db")


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


def test_an_unknown_queue_is_named(sqs):
    with pytest.raises(ConfigError, match=r"no queue 'nowhere'.*AWS_DEFAULT_REGION"):
        queue_url("nowhere")


def test_a_dead_letter_queue_of_nobody_asks_for_a_target(sqs, queues, proxy):
    lone = sqs.create_queue(QueueName="lone")["QueueUrl"]
    with pytest.raises(ConfigError, match="name the target queue"):
        redrive_target(proxy.url + "/" + lone.split("/", 3)[3])
