"""Leases: a message stays ours from receipt to acknowledgement, or we know that it does not."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from odc_stats_gpu.errors import Cancelled
from odc_stats_gpu.queue._client import is_fifo, passing, sqs_client
from odc_stats_gpu.telemetry import metrics

_TICK = 0.25
_PAUSE = 1.0
"""Seconds between two attempts at a renewal that nobody answered."""
_MAX_INTERRUPTIONS = 20
_BACKOFF_FIRST, _BACKOFF_CAP = 5.0, 900.0


def boot_clock() -> float:
    """Seconds that no clock setting moves; goes on while the machine is suspended, as SQS does."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


class Lease:
    """The right to work on one message. Thread-safe; time is the monotonic clock."""

    def __init__(
        self,
        url: str,
        message: dict[str, Any],
        seconds: int,
        sent: float,
        clock: Callable[[], float] = boot_clock,
    ) -> None:
        self.url = url
        self.message = message
        self.seconds = seconds
        self.receives = int(message.get("Attributes", {}).get("ApproximateReceiveCount", 1))
        self._deadline = sent + seconds
        self._clock = clock
        self._lost = threading.Event()
        self._closed = self._deleted = False
        self._again_at = 0.0
        self._lock = threading.RLock()

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

    def check(self) -> None:
        """Raise Cancelled when the work must stop and publish nothing."""
        if self.lost:
            raise Cancelled(
                f"lost the lease on message {self.message['MessageId']}",
                "another worker has it now; raise job_queue_max_lease if this recurs",
            )

    def renew(self) -> bool:
        """Ask for another full lease; a refusal loses it, a failed call may be tried again."""
        from botocore.exceptions import BotoCoreError, ClientError

        with self._lock:
            if self._closed or self.lost:
                return False
            sent = self._clock()
            try:
                self._visibility(self.seconds)
            except ClientError as exc:
                if not passing(exc):
                    self._lost.set()
            except BotoCoreError:
                pass  # no answer: the clock decides
            else:
                self._deadline = sent + self.seconds
                return True
            pause = _PAUSE * random.uniform(0.7, 1.3)  # noqa: S311 - jitter
            self._again_at = self._clock() + pause
            return False

    @property
    def patient(self) -> bool:
        """Whether a renewal has just failed and should wait a moment."""
        return self._clock() < self._again_at

    def acknowledge(self) -> None:
        """Delete the message: the work is published."""
        with self._lock:  # a renewal under way ends first
            self._closed = True
        sqs_client(hasty=True).delete_message(
            QueueUrl=self.url, ReceiptHandle=self.message["ReceiptHandle"]
        )
        self._deleted = True

    def release(self, delay: float = 0) -> None:
        """Make the message visible again after `delay` seconds; harmless when it isn't ours."""
        from botocore.exceptions import BotoCoreError, ClientError

        with self._lock:
            self._closed = True
        if not self._deleted and not self._lost.is_set():
            with suppress(BotoCoreError, ClientError):
                self._visibility(int(delay))

    def back_off(self) -> float:
        """Release a failed task: 5 s doubled with every receive, at most 900 s, +-20 %."""
        delay = min(_BACKOFF_CAP, _BACKOFF_FIRST * 2.0 ** min(self.receives - 1, 30))
        delay *= random.uniform(0.8, 1.2)  # noqa: S311 - jitter
        self.release(delay)
        return delay

    def hand_back(self) -> None:
        """Return interrupted work without a mark against it.

        A copy with attribute `interruptions` + 1 is sent and the original deleted once the copy is
        accepted, so that spot reclaims don't count toward the dead-letter queue; after 20 of them,
        or when the copy isn't accepted, the message is released as it is. `release` may be called
        meanwhile when this takes too long.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        with self._lock:
            closed, self._closed = self._closed, True
        if closed or self.lost:
            return
        attrs = {
            k: {n: v for n, v in a.items() if n in ("DataType", "StringValue", "BinaryValue")}
            for k, a in self.message.get("MessageAttributes", {}).items()
        }
        text = attrs.get("interruptions", {}).get("StringValue", "0")
        count = int(text) + 1 if str(text).isdigit() else 1
        if count > _MAX_INTERRUPTIONS:
            self.release()
            return
        attrs["interruptions"] = {"DataType": "Number", "StringValue": str(count)}
        options: dict[str, Any] = {}
        system = self.message.get("Attributes", {})
        if "MessageGroupId" in system:
            options["MessageGroupId"] = system["MessageGroupId"]
        if is_fifo(self.url):
            options["MessageDeduplicationId"] = f"interrupted-{self.message['MessageId']}-{count}"
        try:
            sqs_client(hasty=True).send_message(
                QueueUrl=self.url,
                MessageBody=self.message["Body"],
                MessageAttributes=attrs,  # type: ignore[arg-type]
                **options,
            )
            self.acknowledge()
        except (BotoCoreError, ClientError):
            self.release()

    def _visibility(self, seconds: int) -> None:
        sqs_client(hasty=True).change_message_visibility(
            QueueUrl=self.url,
            ReceiptHandle=self.message["ReceiptHandle"],
            VisibilityTimeout=max(0, min(seconds, 43_200)),
        )


class Keeper:
    """The thread that renews every held lease in time and writes the heartbeat, idle or busy."""

    def __init__(
        self,
        margin: float,
        heartbeat: str = "",
        on_lost: Callable[[Lease], None] | None = None,
        clock: Callable[[], float] = boot_clock,
    ) -> None:
        self._margin = margin
        self._heartbeat = Path(heartbeat) if heartbeat else None
        self._on_lost = on_lost
        self._clock = clock
        self._held: list[Lease] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease-keeper", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=5)

    def hold(self, lease: Lease) -> None:
        """Renew this lease from now on."""
        with self._lock:
            self._held.append(lease)

    def drop(self, lease: Lease) -> None:
        """Renew it no more."""
        with self._lock, suppress(ValueError):
            self._held.remove(lease)

    @property
    def held(self) -> list[Lease]:
        """Leases under renewal."""
        with self._lock:
            return list(self._held)

    def beat(self) -> None:
        """Write the heartbeat: a whole file or none, never half a line."""
        if self._heartbeat is None:
            return
        self._heartbeat.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._heartbeat.with_name(f".{self._heartbeat.name}.{os.getpid()}")
        temporary.write_text(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}\n")
        temporary.replace(self._heartbeat)

    def _run(self) -> None:
        next_beat = 0.0
        while not self._stop.wait(_TICK):
            if self._clock() >= next_beat:
                next_beat = self._clock() + 5
                with suppress(OSError):  # a full disk must not cost the lease
                    self.beat()
            for lease in self.held:
                due = lease.remaining < self._renew_at(lease) and not lease.patient
                if due and not lease.lost and lease.renew():
                    metrics.lease_event("renewed")
                if lease.lost:
                    self.drop(lease)
                    if self._on_lost:
                        self._on_lost(lease)

    def _renew_at(self, lease: Lease) -> float:
        """Remaining seconds at which to renew: the margin, and at least half the lease."""
        return max(lease.seconds / 2, min(self._margin, lease.seconds * 0.9))
