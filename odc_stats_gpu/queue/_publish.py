"""Publishing the tasks of a database to a queue."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from odc_stats_gpu.model import TileIndex
from odc_stats_gpu.queue._batch import Outgoing, batches, send
from odc_stats_gpu.queue._client import is_fifo
from odc_stats_gpu.queue._message import TaskMessage

_GIVE_UP = 3  # batches refused as a whole, one after another


@dataclass(frozen=True, slots=True)
class PublishSummary:
    """What became of a publication."""

    found: int
    """Tasks to publish."""
    sent: int
    """Tasks that SQS accepted."""
    failed: dict[TileIndex, str]
    """Refused tasks with the reason."""


def publish(
    filedb: str,
    url: str,
    indexes: Sequence[TileIndex],
    progress: Callable[[int, int], None] | None = None,
) -> PublishSummary:
    """Send one message per task to the queue at `url`; every entry of every answer is checked.

    On a FIFO queue each tile is its own message group (tiles don't wait for each other) and the
    deduplication id is a digest of database and tile, so that a repeated publication within SQS's
    five minutes doesn't double the work.
    """
    fifo = is_fifo(url)
    sent, failed = 0, dict[TileIndex, str]()
    position = refused = 0
    hopeless = ""
    messages = [TaskMessage(filedb, index) for index in indexes]
    for part in batches(_outgoing(m, fifo) for m in messages):
        # a queue that refuses whole batches, each tried for a while, will refuse the rest, too
        reasons = dict.fromkeys(range(len(part)), hopeless) if hopeless else send(url, part)
        refused = refused + 1 if len(reasons) == len(part) else 0
        if refused == _GIVE_UP and not hopeless:
            hopeless = f"not tried: the queue refused everything before ({reasons[0]})"
        failed |= {messages[position + k].index: why for k, why in reasons.items()}
        sent += len(part) - len(reasons)
        position += len(part)
        if progress:
            progress(sent, len(messages))
    return PublishSummary(len(messages), sent, failed)


def _outgoing(message: TaskMessage, fifo: bool) -> Outgoing:
    body = message.render()
    if not fifo:
        return Outgoing(body)
    digest = hashlib.sha256(body.encode()).hexdigest()
    return Outgoing(body, group=str(message.index), deduplication=digest)
