"""Taking work from a queue, one message at a time, until it stays empty."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from odc_stats_gpu.errors import StoreError
from odc_stats_gpu.queue._client import attributes, sqs_client
from odc_stats_gpu.queue._lease import Keeper, Lease
from odc_stats_gpu.queue._message import MalformedMessageError, TaskMessage

_WAIT = 5  # seconds of one long poll


@dataclass(frozen=True, slots=True)
class Delivery:
    """A task received, with the lease on it."""

    message: TaskMessage
    lease: Lease

    @property
    def id(self) -> str:
        """SQS message id, for the log."""
        return str(self.lease.message["MessageId"])


def deliveries(
    url: str,
    keeper: Keeper,
    *,
    lease_seconds: int,
    idle_timeout: float | None = None,
    filedb: str = "",
    stop: threading.Event | None = None,
    on_malformed: Callable[[str], None] = lambda _: None,
    on_trouble: Callable[[str], None] = lambda _: None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Delivery]:
    """Yield tasks with their leases already under renewal.

    Ends when `stop` is set, or when the queue showed nothing visible for `idle_timeout` seconds
    (default lease + 60, so that work another worker may still give back isn't abandoned; 0 leaves
    at the first empty answer). Malformed messages are released at once and reported; SQS not
    answering is reported and tried again.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    patience = lease_seconds + 60 if idle_timeout is None else idle_timeout
    stop = stop or threading.Event()
    idle_since = clock()
    while not stop.is_set():
        wait = 1 if patience < _WAIT else _WAIT
        sent = clock()
        try:
            answer = sqs_client().receive_message(
                QueueUrl=url, MaxNumberOfMessages=1, VisibilityTimeout=lease_seconds,
                WaitTimeSeconds=wait, AttributeNames=["All"], MessageAttributeNames=["All"],
            )  # fmt: skip
        except (BotoCoreError, ClientError) as exc:
            on_trouble(f"can't receive from {url}: {exc}")
            if clock() - idle_since >= patience:
                return
            stop.wait(2)
            continue
        for raw in answer.get("Messages", []):
            message: Any = raw
            lease = Lease(url, message, lease_seconds, sent, clock)
            if stop.is_set():
                lease.hand_back()
                return
            try:
                task = TaskMessage.parse(message["Body"], filedb)
            except MalformedMessageError as exc:
                lease.release()
                on_malformed(str(exc))
                stop.wait(0.2)  # a poisonous message alone in the queue must not spin us
                continue
            keeper.hold(lease)
            yield Delivery(task, lease)
            idle_since = clock()
        if not answer.get("Messages") and _visible(url):
            idle_since = clock()
        if clock() - idle_since >= patience:
            return


def _visible(url: str) -> bool:
    try:
        return int(attributes(url).get("ApproximateNumberOfMessages", 0)) > 0
    except StoreError:
        return False
