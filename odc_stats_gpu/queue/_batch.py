"""Sending in batches with every entry checked: SQS answers 200 even when some were refused."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from odc_stats_gpu.queue._client import passing, sqs_client, sqs_errors

BATCH = 10
_MAX_BYTES = 256 * 1024
_ATTEMPTS = 8


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to send."""

    body: str
    attributes: dict[str, Any] = field(default_factory=dict)
    group: str = ""
    """FIFO message group; empty on standard queues."""
    deduplication: str = ""
    """FIFO deduplication id."""

    @property
    def size(self) -> int:
        """Bytes that count toward SQS's limit on a batch: body and attributes."""
        parts = [self.body]
        for name, value in self.attributes.items():
            parts += [name, *value.values()]
        return sum(len(p if isinstance(p, bytes) else p.encode()) for p in parts)

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
    """In order, at most ten messages and 256 KiB at a time; a larger message goes alone."""
    part, size = list[Outgoing](), 0
    for item in items:
        if part and (len(part) == BATCH or size + item.size > _MAX_BYTES):
            yield part
            part, size = [], 0
        part.append(item)
        size += item.size
    if part:
        yield part


def send(url: str, messages: Sequence[Outgoing]) -> dict[int, str]:
    """Send one batch; refused entries are tried again unless they are at fault themselves.

    Returns {position: reason} of those that SQS never accepted; positions not in it were accepted.
    """
    waiting = dict(enumerate(messages))
    hopeless, reasons = dict[int, str](), dict[int, str]()
    for attempt in range(_ATTEMPTS):
        entries: Any = [m.entry(k) for k, m in waiting.items()]
        try:
            answer = sqs_client(url).send_message_batch(QueueUrl=url, Entries=entries)
        except sqs_errors() as exc:
            reasons = dict.fromkeys(waiting, " ".join(str(exc).split()))
            if not passing(exc):
                break
        else:
            for accepted in answer.get("Successful", []):
                waiting.pop(int(accepted["Id"]), None)
            failed = {int(f["Id"]): f for f in answer.get("Failed", [])}
            reasons = {
                k: failed[k].get("Message") or failed[k]["Code"] if k in failed else "no answer"
                for k in waiting
            }
            for k in [k for k in waiting if k in failed and _is_our_fault(failed[k])]:
                hopeless[k] = reasons.pop(k)  # trying again changes nothing
                del waiting[k]
        if not waiting:
            break
        if attempt < _ATTEMPTS - 1:
            time.sleep(min(8.0, 0.2 * 2**attempt) * random.uniform(0.5, 1.5))  # noqa: S311 - jitter
    return hopeless | reasons


def _is_our_fault(failure: Any) -> bool:
    return bool(failure.get("SenderFault")) and "Throttl" not in failure["Code"]
