"""Taking work from a queue, one message at a time, until it stays empty."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from odc_stats_gpu.errors import ConfigError, StoreError
from odc_stats_gpu.queue._calls import in_background, settled
from odc_stats_gpu.queue._client import attributes, is_missing, sqs_client, sqs_errors
from odc_stats_gpu.queue._hand_back import hand_back
from odc_stats_gpu.queue._keeper import Keeper
from odc_stats_gpu.queue._lease import Lease, boot_clock
from odc_stats_gpu.queue._message import MalformedMessageError, TaskMessage
from odc_stats_gpu.telemetry import fault_point

_POLL = 2  # seconds of one long poll; when told to stop we wait for its end, or it brings a message
_TROUBLE = 5  # seconds without an answer that are borne even by the most impatient
_TOO_OFTEN = 10  # receives of a malformed message, after which no redrive policy will take it away
_LAST = 3.0  # seconds that an answer under way still has when told to stop


@dataclass(frozen=True, slots=True)
class Delivery:
    """A task received, with the lease on it."""

    message: TaskMessage
    lease: Lease

    @property
    def id(self) -> str:
        """SQS message id, for the log."""
        return str(self.lease.message["MessageId"])


@dataclass(frozen=True, slots=True)
class Answer:
    """What the queue said."""

    leases: list[Lease]
    visible: bool
    """Whether there is more that could be had."""
    trouble: str = ""


class Consumer:
    """What a worker makes of the queue's answers, and when it has waited long enough.

    It leaves when the queue showed nothing visible for `idle_timeout` seconds (default lease + 60,
    so that work another worker may still give back isn't abandoned; 0 leaves at the first empty
    answer). Malformed messages are released at once and reported.
    """

    def __init__(
        self,
        url: str,
        *,
        lease_seconds: int,
        idle_timeout: float | None = None,
        filedb: str = "",
        on_malformed: Callable[[str], None] = lambda _: None,
        on_trouble: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = boot_clock,
        client: Any = None,
    ) -> None:
        """`filedb` serves messages that are bare tile ids; `client` speaks SQS."""
        self.url = url
        self._seconds = lease_seconds
        self._patience = lease_seconds + 60 if idle_timeout is None else idle_timeout
        self._filedb = filedb
        self._on_malformed, self._on_trouble = on_malformed, on_trouble
        self._clock, self._given = clock, client
        # the clock of the lease starts with the request: a long poll must leave most of it
        self._poll = 1 if self._patience < _POLL else max(1, min(_POLL, lease_seconds // 4))
        self._idle_since = clock()
        self._troubled_since: float | None = None
        self._hopeful = False

    @property
    def finished(self) -> bool:
        """Whether nothing has been visible for long enough; never right after a message."""
        return not self._hopeful and self._clock() - self._idle_since >= self._patience

    def ask(self, poll: int | None = None) -> Answer:
        """One long poll for one message, and whether others wait when there was none."""
        sent = self._clock()  # of the lease's first second: no call may be retried for long
        client: Any = self._given or sqs_client(self.url, hasty=True)
        try:
            answer = client.receive_message(
                QueueUrl=self.url, MaxNumberOfMessages=1, VisibilityTimeout=self._seconds,
                WaitTimeSeconds=self._poll if poll is None else poll,
                AttributeNames=["All"], MessageAttributeNames=["All"],
            )  # fmt: skip
            found = [
                Lease(self.url, message, self._seconds, sent, self._clock, self._given)
                for message in answer.get("Messages", [])
            ]
            if found:
                fault_point("message_received")
            return Answer(found, visible=bool(found) or self._visible(client))
        except sqs_errors() as exc:
            if is_missing(exc):
                raise ConfigError(f"there is no queue {self.url}", "was it deleted?") from None
            return Answer([], visible=False, trouble=f"can't receive from {self.url}: {exc}")

    def take(self, answer: Answer) -> Delivery | None:
        """The task that an answer brings, if it brings one.

        Raises StoreError when SQS hasn't answered for `idle_timeout` seconds.
        """
        self._hopeful = False
        if answer.trouble:
            self._on_trouble(answer.trouble)
            if self._troubled_since is None:
                self._troubled_since = self._clock()
            if self._clock() - self._troubled_since >= max(self._patience, _TROUBLE):
                raise StoreError(answer.trouble, "nothing was lost: start the worker again")
            return None
        self._troubled_since = None
        for lease in answer.leases:  # never more than one
            try:
                return Delivery(_parse(lease.message.get("Body", ""), self._filedb), lease)
            except MalformedMessageError as exc:
                self._on_malformed(str(exc))
                lease.release()
                if lease.receives <= _TOO_OFTEN:
                    self._hopeful, self._idle_since = True, self._clock()
        if not answer.leases and answer.visible:
            self._idle_since = self._clock()
        return None

    def ask_ahead(self) -> Delivery | None:
        """A further task while one is in work, when no other worker has to go without for it.

        That is when more messages are visible than are in anybody's hands.
        """
        with suppress(StoreError):
            state = attributes(self.url, self._given or sqs_client(self.url, hasty=True))
            visible = int(state.get("ApproximateNumberOfMessages", 0))
            if visible > int(state.get("ApproximateNumberOfMessagesNotVisible", 0)):
                return self.take(self.ask(poll=0))
        return None

    def worked(self) -> None:
        """Time spent on a task isn't spent waiting."""
        self._idle_since = self._clock()

    def _visible(self, client: Any) -> bool:
        with suppress(StoreError):  # to look may be forbidden, or fail now and then
            return int(attributes(self.url, client).get("ApproximateNumberOfMessages", 0)) > 0
        return False


def deliveries(consumer: Consumer, keeper: Keeper, stop: threading.Event) -> Iterator[Delivery]:
    """Yield tasks with their leases already under renewal, until `stop` or an empty queue.

    No call of the queue can delay leaving: what a request under way brings goes back.
    """
    while not stop.is_set():
        request = in_background(consumer.ask)
        if not settled(request, stop, _LAST) or stop.is_set():
            request.add_done_callback(_return_all)
            return
        answer = request.result()
        handling = in_background(lambda answer=answer: consumer.take(answer))  # type: ignore[misc]
        if not settled(handling, stop, _LAST):
            return
        delivery = handling.result()
        if delivery is not None:
            keeper.hold(delivery.lease)
            yield delivery
            consumer.worked()
        elif answer.trouble:
            stop.wait(2)
        elif consumer.finished:
            return
        elif answer.leases:  # a poisonous message alone in the queue must not spin us
            stop.wait(0.2)


def _return_all(request: Future[Answer]) -> None:
    if request.exception() is None:
        for lease in request.result().leases:
            hand_back(lease)


def _parse(body: str, filedb: str) -> TaskMessage:
    """The task of a body; whatever is wrong with it is MalformedMessageError."""
    try:
        return TaskMessage.parse(body, filedb)
    except MalformedMessageError:
        raise
    except Exception as exc:
        # what a queue holds may come from anywhere: it must not end the worker
        raise MalformedMessageError(
            f"message {body[:80]!r} is no task: {exc!r}", "publish it with publish-tasks"
        ) from exc
