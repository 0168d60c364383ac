"""Bringing dead tasks back: nothing leaves the dead-letter queue before its copy is accepted."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from odc_stats_gpu.errors import ConfigError, StoreError
from odc_stats_gpu.queue._batch import BATCH, Outgoing, batches, send
from odc_stats_gpu.queue._client import (
    attributes,
    is_fifo,
    queue_name,
    queue_url,
    sqs_client,
    sqs_errors,
)
from odc_stats_gpu.queue._lease import kept_attributes
from odc_stats_gpu.telemetry import fault_point

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
    pages = sqs_client(dead).get_paginator("list_dead_letter_source_queues").paginate(QueueUrl=dead)
    try:
        sources = [url for page in pages for url in page.get("queueUrls", [])]
    except sqs_errors() as exc:
        raise StoreError(
            f"can't tell whose dead-letter queue {dead} is: {exc}", "name the target queue"
        ) from None
    if len(sources) == 1:
        return sources[0]
    found = ", ".join(map(queue_name, sources)) or "none"
    raise ConfigError(
        f"{queue_name(dead)} is the dead-letter queue of {len(sources)} queues ({found})",
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
    summary = RedriveSummary(
        dead, target, int(attributes(dead).get("ApproximateNumberOfMessages", 0))
    )
    move = _Move(summary)
    try:
        move.run(limit, progress or (lambda _: None))
    except sqs_errors() as exc:
        raise StoreError(
            f"can't move from {dead}: {exc}", "nothing was lost: repeat the command"
        ) from None
    finally:
        move.show_refused()
    return summary


class _Move:
    """The moving of messages; what is refused stays hidden until the end, so as not to spin."""

    def __init__(self, summary: RedriveSummary) -> None:
        self._out = summary
        self._client: Any = sqs_client(summary.source)
        self._copied: set[str] = set()
        """Messages accepted by the target whose originals may still be there."""
        self._refused: list[str] = []
        """Receipt handles."""

    def run(self, limit: int | None, progress: Callable[[int], None]) -> None:
        """Batch after batch, until the queue is empty or refuses everything."""
        out = self._out
        empty = refused = 0
        while limit is None or out.moved + len(out.failed) < limit:
            left = BATCH if limit is None else min(BATCH, limit - out.moved - len(out.failed))
            messages = self._client.receive_message(
                QueueUrl=out.source, MaxNumberOfMessages=left, VisibilityTimeout=_HOLD,
                WaitTimeSeconds=1, AttributeNames=["All"], MessageAttributeNames=["All"],
            ).get("Messages", [])  # fmt: skip
            if not messages:
                empty += 1
                if empty >= _EMPTY:
                    return
                time.sleep(0.2)
                continue
            empty = 0
            fault_point("redrive_received")
            again = any(m["MessageId"] in out.failed for m in messages)
            accepted = self._move(messages)
            progress(out.moved)
            refused = 0 if accepted else refused + 1
            if again or refused == _GIVE_UP:
                return  # refused ones come round again, or nothing is accepted any more

    def show_refused(self) -> None:
        """Make the originals of refused copies visible again."""
        for handle in self._refused:
            with suppress(*sqs_errors()):  # then they appear by themselves within a minute
                self._client.change_message_visibility(
                    QueueUrl=self._out.source, ReceiptHandle=handle, VisibilityTimeout=0
                )

    def _move(self, messages: list[Any]) -> int:
        """Copy, delete the originals of accepted copies; returns how many were accepted."""
        out = self._out
        self._delete([m for m in messages if m["MessageId"] in self._copied])
        fresh = [m for m in messages if m["MessageId"] not in self._copied]
        done, accepted = 0, 0
        for part in batches(_copy(m, fifo=is_fifo(out.target)) for m in fresh):
            originals = fresh[done : done + len(part)]
            done += len(part)
            reasons = send(out.target, part)
            fault_point("redrive_copied")
            for k, reason in reasons.items():
                out.failed[originals[k]["MessageId"]] = reason
                self._refused.append(originals[k]["ReceiptHandle"])
            gone = [m for k, m in enumerate(originals) if k not in reasons]
            self._copied |= {m["MessageId"] for m in gone}
            accepted += len(gone)
            out.moved += len(gone)
            out.undeleted += len(gone)
            self._delete(gone)
            fault_point("redrive_deleted")
        return accepted

    def _delete(self, messages: Sequence[Any]) -> None:
        """Delete originals whose copies were accepted."""
        entries = {str(k): m["ReceiptHandle"] for k, m in enumerate(messages)}
        for _ in range(3):
            if not entries:
                return
            with suppress(*sqs_errors()):
                answer = self._client.delete_message_batch(
                    QueueUrl=self._out.source,
                    Entries=[{"Id": k, "ReceiptHandle": h} for k, h in entries.items()],
                )
                for entry in answer.get("Successful", []):
                    if entries.pop(entry["Id"], None) is not None:
                        self._out.undeleted -= 1


def _copy(message: Any, *, fifo: bool) -> Outgoing:
    """The message as it was; a new deduplication id, or SQS would swallow it for five minutes."""
    body, attrs = message["Body"], kept_attributes(message)
    group = message.get("Attributes", {}).get("MessageGroupId", "")
    if not fifo:
        return Outgoing(body, attrs, group)
    name = message["MessageId"]
    return Outgoing(body, attrs, group or name, f"redrive-{name}")


def redrive_native(dead: str, target: str | None) -> str:
    """Ask SQS itself to move everything (StartMessageMoveTask); returns the task handle."""
    options: Any = {"SourceArn": attributes(dead)["QueueArn"]}
    if target:
        options["DestinationArn"] = attributes(target)["QueueArn"]
    try:
        return sqs_client(dead, hasty=True).start_message_move_task(**options)["TaskHandle"]
    except sqs_errors() as exc:
        raise StoreError(
            f"the service refused StartMessageMoveTask: {exc}", "leave out --native"
        ) from None
