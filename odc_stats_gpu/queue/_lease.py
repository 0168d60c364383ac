"""A lease: a message stays ours from receipt to acknowledgement, or we know that it does not."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from odc_stats_gpu.errors import Cancelled
from odc_stats_gpu.queue._client import distrusted, is_fifo, passing, sqs_client, sqs_errors
from odc_stats_gpu.telemetry import fault_point

_PAUSE = 1.0
"""Seconds between two attempts at a renewal that nobody answered."""
_UNDER_WAY = 2.0
"""Seconds that a release waits for a renewal under way: the later one counts."""
MAX_INTERRUPTIONS = 20
_BACKOFF_FIRST, _BACKOFF_CAP = 5.0, 900.0


def boot_clock() -> float:
    """Seconds that no clock setting moves; goes on while the machine is suspended, as SQS does."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


class Lease:
    """The right to work on one message. Thread-safe; time is that of `clock`."""

    def __init__(
        self,
        url: str,
        message: dict[str, Any],
        seconds: int,
        sent: float,
        clock: Callable[[], float] = boot_clock,
        client: Any = None,
    ) -> None:
        """`sent`: when the request that brought the message was sent; `client` speaks SQS."""
        self.url = url
        self.message = message
        self.seconds = seconds
        self.receives = int(message.get("Attributes", {}).get("ApproximateReceiveCount", 1))
        self._deadline = sent + seconds
        self._clock = clock
        self._given = client
        self._lost = threading.Event()
        self._closed = self._deleted = False
        self._again_at = 0.0
        self._renewing = threading.Lock()

    @property
    def _client(self) -> Any:
        return self._given or sqs_client(self.url, hasty=True)

    @property
    def remaining(self) -> float:
        """Seconds until SQS may hand the message to somebody else."""
        return self._deadline - self._clock()

    @property
    def lost(self) -> bool:
        """Whether a renewal was refused, or the last accepted one has run out."""
        if self.remaining <= 0:
            self._lost.set()
        return self._lost.is_set()

    @property
    def closed(self) -> bool:
        """Whether the message was acknowledged, released or handed back, or that was tried."""
        return self._closed

    @property
    def patient(self) -> bool:
        """Whether a renewal has just failed and should wait a moment."""
        return self._clock() < self._again_at

    def check(self) -> None:
        """Raise Cancelled when the work must stop and publish nothing."""
        if self.lost:
            raise Cancelled(
                f"lost the lease on message {self.message['MessageId']}",
                "another worker has it now; raise job_queue_max_lease if this recurs",
            )

    def renew(self) -> bool:
        """Ask for another full lease; a refusal loses it, a failed call may be tried again."""
        with self._renewing:
            if self._closed or self.lost:
                return False
            sent = self._clock()
            try:
                self._visibility(self.seconds)
            except sqs_errors() as exc:
                if not (passing(exc) or distrusted(exc) or self._closed):
                    self._lost.set()  # without an answer to the question the clock decides
            else:
                self._deadline = sent + self.seconds
                return True
            pause = _PAUSE * random.uniform(0.7, 1.3)  # noqa: S311 - jitter
            self._again_at = self._clock() + pause
            return False

    def acknowledge(self) -> None:
        """Delete the message: the work is published. Also when the lease was lost meanwhile."""
        self._closed = True
        fault_point("before_acknowledge")
        self._client.delete_message(QueueUrl=self.url, ReceiptHandle=self.message["ReceiptHandle"])
        self._deleted = True
        fault_point("message_deleted")

    def release(self, delay: float = 0) -> None:
        """Make the message visible again after `delay` seconds; harmless when it isn't ours."""
        self._closed = True
        if self._deleted or self.lost:
            return
        idle = self._renewing.acquire(timeout=_UNDER_WAY)
        try:
            with suppress(*sqs_errors()):  # then it comes back with the lease's end
                self._visibility(int(delay))
        finally:
            if idle:
                self._renewing.release()

    def back_off(self) -> float:
        """Release a failed task: 5 s doubled with every receive, at most 900 s, +-20 %."""
        delay = min(_BACKOFF_CAP, _BACKOFF_FIRST * 2.0 ** min(self.receives - 1, 30))
        delay *= random.uniform(0.8, 1.2)  # noqa: S311 - jitter
        fault_point("before_release")
        self.release(delay)
        return delay

    def hand_back(self) -> None:
        """Return interrupted work without a mark against it.

        A copy with attribute `interruptions` + 1 is sent and the original deleted once the copy is
        accepted, so that spot reclaims don't count toward the dead-letter queue; after 20 of them,
        or when the copy isn't accepted, the message is released as it is. `release` may be called
        meanwhile when this takes too long.
        """
        if self._closed or self.lost:
            return
        self._closed = True
        attrs = kept_attributes(self.message)
        text = str(attrs.get("interruptions", {}).get("StringValue", "0"))
        count = int(text) + 1 if text.isdecimal() else 1
        if count > MAX_INTERRUPTIONS:
            self.release()
            return
        attrs["interruptions"] = {"DataType": "Number", "StringValue": str(count)}
        options = {}
        group = self.message.get("Attributes", {}).get("MessageGroupId")
        if group is not None:
            options["MessageGroupId"] = group
        if is_fifo(self.url):
            options["MessageDeduplicationId"] = f"interrupted-{self.message['MessageId']}-{count}"
        try:
            self._client.send_message(
                QueueUrl=self.url, MessageBody=self.message["Body"], MessageAttributes=attrs,
                **options,
            )  # fmt: skip
        except sqs_errors():
            self.release()
            return
        fault_point("copy_sent")
        with suppress(*sqs_errors()):  # then there are two, and the second is skipped
            self.acknowledge()

    def _visibility(self, seconds: int) -> None:
        self._client.change_message_visibility(
            QueueUrl=self.url,
            ReceiptHandle=self.message["ReceiptHandle"],
            VisibilityTimeout=max(0, min(seconds, 43_200)),
        )


def kept_attributes(message: Any) -> dict[str, Any]:
    """The message attributes as they may be sent again."""
    return {
        name: {k: v for k, v in value.items() if k in ("DataType", "StringValue", "BinaryValue")}
        for name, value in message.get("MessageAttributes", {}).items()
    }
