"""Bringing dead tasks back: nothing leaves the dead-letter queue before its copy is accepted."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from odc_stats_gpu.errors import ConfigError, StoreError
from odc_stats_gpu.queue._batch import BATCH, Outgoing, send
from odc_stats_gpu.queue._client import attributes, is_fifo, queue_url, sqs_client

_HOLD = 60  # seconds a received message stays hidden while its copy is sent
_GIVE_UP = 3  # batches refused as a whole, one after another
_EMPTY = 3  # empty answers in a row before the queue counts as empty (counts are approximate)


@dataclass(slots=True)
class RedriveSummary:
    """What became of the dead messages."""

    source: str
    target: str
    waiting: int
    """Approximate number of visible dead messages before the start."""
    moved: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    """Message id to reason: still in the dead-letter queue."""
    undeleted: int = 0
    """Copied, but the original could not be deleted: it may be redriven once more."""


def redrive_target(dead: str) -> str:
    """URL of the one queue whose redrive policy names `dead`; ConfigError for none or several."""
    from botocore.exceptions import BotoCoreError, ClientError

    arn = attributes(dead)["QueueArn"]
    pages = sqs_client().get_paginator("list_dead_letter_source_queues").paginate(QueueUrl=dead)
    try:
        sources = [url for page in pages for url in page.get("queueUrls", [])]
    except (BotoCoreError, ClientError) as exc:
        raise StoreError(
            f"can't tell whose dead-letter queue {dead} is: {exc}", "name the target queue"
        ) from None
    if len(sources) == 1:
        return sources[0]
    found = ", ".join(u.rsplit("/", 1)[-1] for u in sources) or "none"
    raise ConfigError(
        f"{arn.rsplit(':', 1)[-1]} is the dead-letter queue of {len(sources)} queues ({found})",
        "name the target queue as second argument",
    )


def dead_letter_queue(url: str) -> str | None:
    """URL of the dead-letter queue that a queue's redrive policy names, or None."""
    policy = attributes(url).get("RedrivePolicy")
    return queue_url(json.loads(policy)["deadLetterTargetArn"]) if policy else None


def redrive(
    dead: str,
    target: str,
    limit: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> RedriveSummary:
    """Move up to `limit` messages (all when None) between the queues at these URLs.

    Attributes and FIFO groups are kept. Killed at any point, every message is in at least one of
    the queues: a copy is deleted from the dead-letter queue only after SQS accepted it. Raises
    StoreError when SQS doesn't answer.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        return _redrive(dead, target, limit, progress or (lambda _: None))
    except (BotoCoreError, ClientError) as exc:
        raise StoreError(
            f"can't move from {dead}: {exc}", "nothing was lost: repeat the command"
        ) from None


def _redrive(
    dead: str, target: str, limit: int | None, progress: Callable[[int], None]
) -> RedriveSummary:
    client = sqs_client()
    waiting = int(attributes(dead).get("ApproximateNumberOfMessages", 0))
    out = RedriveSummary(dead, target, waiting)
    empty = refused = 0
    held = list[str]()
    while limit is None or out.moved + len(out.failed) < limit:
        left = BATCH if limit is None else min(BATCH, limit - out.moved - len(out.failed))
        answer = client.receive_message(
            QueueUrl=dead, MaxNumberOfMessages=left, VisibilityTimeout=_HOLD, WaitTimeSeconds=1,
            AttributeNames=["All"], MessageAttributeNames=["All"],
        )  # fmt: skip
        messages: list[Any] = answer.get("Messages", [])
        if not messages:
            empty += 1
            if empty >= _EMPTY:
                break
            time.sleep(0.2)
            continue
        empty = 0
        again = any(m["MessageId"] in out.failed for m in messages)
        kept = _move(client, out, messages)
        held += kept
        progress(out.moved)
        refused = refused + 1 if len(kept) == len(messages) else 0
        if again or refused == _GIVE_UP:
            break  # refused ones come round again, or nothing is accepted any more
    for handle in held:  # refused copies: their originals become visible again, once, at the end
        client.change_message_visibility(QueueUrl=dead, ReceiptHandle=handle, VisibilityTimeout=0)
    return out


def _move(client: Any, out: RedriveSummary, messages: list[Any]) -> list[str]:
    """Copy a batch, delete the originals of accepted copies; returns the refused ones' handles."""
    from botocore.exceptions import BotoCoreError, ClientError

    refused = send(out.target, [_copy(m, is_fifo(out.target)) for m in messages])
    entries, kept = [], []
    for k, message in enumerate(messages):
        handle = message["ReceiptHandle"]
        if k in refused:
            out.failed[message["MessageId"]] = refused[k]  # visible again at the end
            kept.append(handle)
        else:
            entries.append({"Id": str(k), "ReceiptHandle": handle})
    out.moved += len(entries)
    for _ in range(3):
        if not entries:
            break
        try:
            answer = client.delete_message_batch(QueueUrl=out.source, Entries=entries)
        except (BotoCoreError, ClientError):
            continue
        gone = {e["Id"] for e in answer.get("Successful", [])}
        entries = [e for e in entries if e["Id"] not in gone]
    out.undeleted += len(entries)
    return kept


def _copy(message: Any, fifo: bool) -> Outgoing:
    """The message as it was; a new deduplication id, or SQS would swallow it for five minutes."""
    system = message.get("Attributes", {})
    attrs = {
        name: {k: v for k, v in value.items() if k in ("DataType", "StringValue", "BinaryValue")}
        for name, value in message.get("MessageAttributes", {}).items()
    }
    if not fifo:
        return Outgoing(message["Body"], attrs)
    group = system.get("MessageGroupId") or message["MessageId"]
    return Outgoing(message["Body"], attrs, group, f"redrive-{message['MessageId']}")


def redrive_native(dead: str, target: str | None) -> str:
    """Ask SQS itself to move everything (StartMessageMoveTask); returns the task handle."""
    from botocore.exceptions import BotoCoreError, ClientError

    options: Any = {"SourceArn": attributes(dead)["QueueArn"]}
    if target:
        options["DestinationArn"] = attributes(target)["QueueArn"]
    try:
        return sqs_client().start_message_move_task(**options)["TaskHandle"]
    except (BotoCoreError, ClientError) as exc:
        raise StoreError(
            f"the service refused StartMessageMoveTask: {exc}", "leave out --native"
        ) from None
