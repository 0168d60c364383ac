"""Which queue a name means, in which region, and with whose credentials."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import boto3
import pytest

from odc_stats_gpu.errors import ConfigError, StoreError
from odc_stats_gpu.model import TileIndex
from odc_stats_gpu.queue import (
    Consumer,
    forget_clients,
    publish,
    queue_status,
    queue_url,
    sqs_client,
)

TILES = [TileIndex("2019--P1Y", x, 4) for x in range(2)]


def test_an_unknown_queue_is_named(sqs):
    with pytest.raises(ConfigError, match=r"no queue 'nowhere'.*AWS_DEFAULT_REGION"):
        queue_url("nowhere")


def test_an_arn_names_a_queue_of_another_region(sqs, proxy):
    there = boto3.client("sqs", region_name="eu-west-1")
    there.create_queue(QueueName="far")
    with pytest.raises(ConfigError, match="no queue"):
        queue_url("far")
    url = queue_url("arn:aws:sqs:eu-west-1:123456789012:far")
    assert publish("s3://b/x.db", url, TILES[:2]).sent == 2
    assert queue_status(url).visible == 2
    assert sqs_client("https://sqs.ap-southeast-2.amazonaws.com/1/q").meta.region_name == (
        "ap-southeast-2"
    )


@pytest.mark.parametrize("name", ["arn:aws:s3:::bucket", "arn:aws:sqs:eu-west-1"])
def test_an_arn_of_something_else_is_refused(sqs, name):
    with pytest.raises(ConfigError, match="no queue"):
        queue_url(name)


def test_a_url_of_a_queue_that_is_not_there_is_named(sqs, proxy):
    with pytest.raises(ConfigError, match="no queue"):
        queue_url(f"{proxy.url}/123456789012/nowhere")


def test_credentials_are_asked_for_again_before_they_expire(
    sqs, queues, proxy, tmp_path, monkeypatch
):
    until = f"{datetime.now(UTC) + timedelta(minutes=5):%Y-%m-%dT%H:%M:%SZ}"
    keys = json.dumps({"Version": 1, "AccessKeyId": "KEY", "SecretAccessKey": "s",
                       "SessionToken": "t", "Expiration": until})  # fmt: skip
    script = tmp_path / "keys"
    script.write_text(
        f"#!/bin/sh\necho >> {tmp_path}/asked\n"
        f"echo '{keys}' | sed s/KEY/key$(grep -c '' {tmp_path}/asked)/\n"
    )
    script.chmod(0o755)
    (tmp_path / "config").write_text(f"[default]\ncredential_process = {script}\n")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    forget_clients()
    proxy.keys.clear()
    consumer = Consumer(queues[0], lease_seconds=30, idle_timeout=1)
    for _ in range(2):
        consumer.take(consumer.ask())
    assert len(proxy.keys) > 1
    assert all(key.startswith("key") for key in proxy.keys)


def test_credentials_that_cannot_be_fetched_are_no_wrong_use(sqs, tmp_path, monkeypatch):
    """An agent on the node may still be starting: another pod may do better."""
    (tmp_path / "config").write_text("[default]\ncredential_process = /bin/false\n")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    forget_clients()
    with pytest.raises(StoreError, match="can't get AWS credentials"):
        queue_url("tiles")
