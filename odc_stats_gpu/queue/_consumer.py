"""Taking work from a queue, one message at a time, until it stays empty."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from odc_stats_gpu.errors import StoreError
from odc_stats_gpu.queue._client import attributes, sqs_client
from odc_stats_gpu.queue._lease import Keeper, Lease, boot_clock
from odc_stats_gpu.queue._message import MalformedMessageError, TaskMessage

_WAIT = 5  # seconds of one long poll
_LOOK = 0.1  # seconds between two looks at `stop`
_LAST = 2.0  # seconds that an answer under way still has when told to stop


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
class _Answer:
    """What the queue said."""

    leases: list[Lease]
    visible: bool
    """Whether there is more that could be had."""
    trouble: str = ""


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
    clock: Callable[[], float] = boot_clock,
) -> Iterator[Delivery]:
    """Yield tasks with their leases already under renewal.

    Ends when `stop` is set, or when the queue showed nothing visible for `idle_timeout` seconds
    (default lease + 60, so that work another worker may still give back isn't abandoned; 0 leaves
    at the first empty answer). Malformed messages are released at once and reported; SQS not
    answering is reported and tried again, for `idle_timeout` seconds at most: then StoreError.
    """
    patience = lease_seconds + 60 if idle_timeout is None else idle_timeout
    stop = stop or threading.Event()
    # the clock of the lease starts with the request: a long poll must leave most of it
    poll = 1 if patience < _WAIT else max(1, min(_WAIT, lease_seconds // 4))
    idle_since = heard = clock()
    while not stop.is_set():
        answer = _wait_for(lambda: _ask(url, lease_seconds, poll, clock), stop)
        if answer is None:
            return
        if answer.trouble:
            on_trouble(answer.trouble)
            if clock() - heard >= max(patience, _WAIT):
                raise StoreError(answer.trouble, "nothing was lost: start the worker again")
            stop.wait(2)
            continue
        heard = clock()
        for lease in answer.leases:
            if stop.is_set():
                lease.hand_back()
                return
            try:
                task = _parse(lease.message["Body"], filedb)
            except MalformedMessageError as exc:
                lease.release()
                on_malformed(str(exc))
                stop.wait(0.2)  # a poisonous message alone in the queue must not spin us
                continue
            keeper.hold(lease)
            yield Delivery(task, lease)
            idle_since = heard = clock()
        if not answer.leases and answer.visible:
            idle_since = clock()
        if clock() - idle_since >= patience:
            return


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


def _ask(url: str, seconds: int, poll: int, clock: Callable[[], float]) -> _Answer:
    """One long poll for one message, and whether others wait when there was none."""
    from botocore.exceptions import BotoCoreError, ClientError

    sent = clock()
    try:
        answer = sqs_client().receive_message(
            QueueUrl=url, MaxNumberOfMessages=1, VisibilityTimeout=seconds,
            WaitTimeSeconds=poll, AttributeNames=["All"], MessageAttributeNames=["All"],
        )  # fmt: skip
    except (BotoCoreError, ClientError) as exc:
        return _Answer([], visible=False, trouble=f"can't receive from {url}: {exc}")
    found: list[Any] = list(answer.get("Messages", []))
    leases = [Lease(url, message, seconds, sent, clock) for message in found]
    return _Answer(leases, visible=bool(leases) or _visible(url))


def _wait_for(ask: Callable[[], _Answer], stop: threading.Event) -> _Answer | None:
    """The answer; None when `stop` was set first.

    The request runs in a thread of its own, so that a queue that doesn't answer can't keep us from
    leaving. What it brings after all goes back to the queue.
    """
    future: Future[_Answer] = Future()

    def work() -> None:
        try:
            future.set_result(ask())
        except BaseException as exc:  # noqa: BLE001 - it belongs to who waits
            future.set_exception(exc)

    threading.Thread(target=work, name="receive", daemon=True).start()
    done = threading.Event()
    future.add_done_callback(lambda _: done.set())
    while not done.wait(_LOOK):
        if stop.is_set():
            done.wait(_LAST)
            break
    if not stop.is_set():
        return future.result()
    future.add_done_callback(_return_all)
    return None


def _return_all(future: Future[_Answer]) -> None:
    if future.exception() is None:
        for lease in future.result().leases:
            lease.hand_back()


def _visible(url: str) -> bool:
    try:
        return int(attributes(url).get("ApproximateNumberOfMessages", 0)) > 0
    except StoreError:
        return False
