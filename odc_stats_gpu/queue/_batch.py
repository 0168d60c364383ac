"""Sending in batches with every entry checked: SQS answers 200 even when some were refused."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from odc_stats_gpu.queue._client import sqs_client

BATCH = 10
_MAX_BYTES = 256 * 1024
_ATTEMPTS = 6


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to send."""

    body: str
    attributes: dict[str, Any] = field(default_factory=dict)
    group: str = ""
    """FIFO message group; empty on standard queues."""
    deduplication: str = ""
    """FIFO deduplication id."""

    def entry(self, number: int) -> dict[str, Any]:
        """As SendMessageBatch wants it."""
        out: dict[str, Any] = {"Id": str(number), "MessageBody": self.body}
        if self.attributes:
            out["MessageAttributes"] = self.attributes
        if self.group:
            out["MessageGroupId"] = self.group
        if self.deduplication:
            out["MessageDeduplicationId"] = self.deduplication
        return out


def batches(items: Iterable[Outgoing]) -> Iterator[list[Outgoing]]:
    """At most ten messages and 256 KiB at a time."""
    source = iter(items)
    while chunk := list(islice(source, BATCH)):
        size, part = 0, list[Outgoing]()
        for item in chunk:
            length = len(item.body.encode()) + 1024
            if part and size + length > _MAX_BYTES:
                yield part
                size, part = 0, []
            part.append(item)
            size += length
        yield part


def send(url: str, messages: Sequence[Outgoing]) -> dict[int, str]:
    """Send at most ten messages; refused entries are tried again.

    Returns {position: reason} of those that SQS never accepted; positions not in it were accepted.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    waiting = dict(enumerate(messages))
    reasons: dict[int, str] = {}
    for attempt in range(_ATTEMPTS):
        entries: Any = [m.entry(k) for k, m in waiting.items()]
        try:
            answer = sqs_client().send_message_batch(QueueUrl=url, Entries=entries)
        except (BotoCoreError, ClientError) as exc:
            reasons = dict.fromkeys(waiting, str(exc))
        else:
            for accepted in answer.get("Successful", []):
                waiting.pop(int(accepted["Id"]), None)
            failed = {int(f["Id"]): f for f in answer.get("Failed", [])}
            reasons = {
                k: failed[k].get("Message") or failed[k]["Code"] if k in failed else "no answer"
                for k in waiting
            }
            if waiting and all(f.get("SenderFault") for f in failed.values()) and failed:
                return reasons  # our fault: trying again changes nothing
        if not waiting:
            return {}
        if attempt < _ATTEMPTS - 1:
            time.sleep(min(8.0, 0.2 * 2**attempt) * random.uniform(0.5, 1.5))  # noqa: S311 - jitter
    return reasons
