"""A queue, a store and workers in fake time: strict where SQS may be, and as unreliable."""

from __future__ import annotations

import itertools
import json
from concurrent.futures import Future
from dataclasses import dataclass, field

from botocore.exceptions import ClientError, ReadTimeoutError

from odc_stats_gpu.engine import CancelToken, RunSummary, TaskResult
from odc_stats_gpu.engine._ahead import Ahead
from odc_stats_gpu.engine._fleet import Hand
from odc_stats_gpu.errors import Cancelled
from odc_stats_gpu.queue import Consumer, Keeper, hand_back

URL = "https://sqs.us-west-2.amazonaws.com/1/tiles"
RECEIVES, LEASE, MARGIN = 3, 30, 10


class Clock:
    """Seconds that pass when we say so; every machine counts from its own start."""

    def __init__(self):
        self.now = 1000.0

    def of_a_machine(self, offset):
        return lambda: self.now + offset


@dataclass
class Message:
    """What the queue knows of a message."""

    id: str
    body: str
    attributes: dict
    visible_at: float
    receives: int = 0
    receipt: str = ""
    twice: bool = False
    """Delivered again by the service's own fault: nobody can hold it alone."""

    @property
    def interruptions(self):
        return int(self.attributes.get("interruptions", {}).get("StringValue", 0))


class Queue:
    """SQS: visibility, receive counts, redrive policy, receipts that are superseded."""

    def __init__(self, clock, store):
        self.clock, self.store = clock, store
        self.messages, self.dead, self.faults = [], [], []
        self.sent = self.deleted = 0
        self._names = itertools.count()

    def call(self, operation, effect):
        """Let an operation take effect, unless a fault is due for it."""
        fault = next((f for f in self.faults if f[0] == operation), None)
        if fault is None:
            return effect()
        self.faults.remove(fault)
        kind = fault[1]
        if kind == "throttled":
            raise refusal("ThrottlingException", 503)
        if kind == "expired":
            raise refusal("ExpiredToken", 403)
        if kind == "refused":
            raise refusal("InvalidParameterValue", 400)
        if kind == "slow":
            self.clock.now += 4
        out = effect()
        if kind == "lost":
            self.clock.now += 6
            raise ReadTimeoutError(endpoint_url=URL)
        if kind == "slow":
            self.clock.now += 4
        return out

    def put(self, body, interruptions=0):
        attributes = {"interruptions": {"DataType": "Number", "StringValue": str(interruptions)}}
        name = f"m{next(self._names)}"
        self.messages.append(
            Message(name, body, attributes if interruptions else {}, self.clock.now)
        )
        self.sent += 1

    def receive_message(self, **options):
        def effect():
            for message in list(self.messages):
                if message.visible_at > self.clock.now:
                    continue
                if message.receives >= RECEIVES:
                    self.messages.remove(message)
                    self.dead.append(message)
                    continue
                message.receives += 1
                message.receipt = f"{message.id}#{message.receives}"
                message.visible_at = self.clock.now + options["VisibilityTimeout"]
                return {"Messages": [{
                    "MessageId": message.id, "Body": message.body,
                    "ReceiptHandle": message.receipt, "MessageAttributes": message.attributes,
                    "Attributes": {"ApproximateReceiveCount": str(message.receives)},
                }]}  # fmt: skip
            return {}

        return self.call("receive", effect)

    def get_queue_attributes(self, **_):
        visible = sum(m.visible_at <= self.clock.now for m in self.messages)
        flying = len(self.messages) - visible
        counts = {"": visible, "NotVisible": flying}
        return {
            "Attributes": {f"ApproximateNumberOfMessages{k}": str(v) for k, v in counts.items()}
        }

    def change_message_visibility(self, **options):
        def effect():
            message = self.holder(options["ReceiptHandle"])
            if message is None:
                raise refusal("ReceiptHandleIsInvalid", 400)
            message.visible_at = self.clock.now + options["VisibilityTimeout"]

        self.call("visibility", effect)

    def delete_message(self, **options):
        def effect():
            receipt = options["ReceiptHandle"]
            message = next((m for m in self.messages if m.receipt == receipt), None)
            if message is None:
                return  # a superseded receipt: nothing happens, no error either
            copies = [
                m for m in (*self.messages, *self.dead)
                if m.body == message.body and m.interruptions == message.interruptions + 1
            ]  # fmt: skip
            done = tile_of(message.body) in self.store.items
            assert done or copies, f"{message} deleted before its result or its copy was there"
            self.messages.remove(message)
            self.deleted += 1

        self.call("delete", effect)

    def send_message(self, **options):
        def effect():
            count = int(options["MessageAttributes"]["interruptions"]["StringValue"])
            assert count <= 20
            self.put(options["MessageBody"], count)

        self.call("send", effect)

    def holder(self, receipt):
        """The message that this receipt still holds."""
        for message in self.messages:
            if message.receipt == receipt and message.visible_at > self.clock.now:
                return message
        return None


def refusal(code, status):
    return ClientError({"Error": {"Code": code, "Message": ""},
                        "ResponseMetadata": {"HTTPStatusCode": status}}, "X")  # fmt: skip


def body_of(tile):
    return json.dumps({"filedb": "s3://b/x.db", "tile_idx": tile})


def tile_of(body):
    try:
        return json.loads(body)["tile_idx"]
    except (ValueError, KeyError, TypeError):
        return None


@dataclass
class Store:
    """Items by tile, each with the workers who wrote it: the first finisher wins."""

    items: dict = field(default_factory=dict)

    def put_item(self, tile, worker):
        """True when it was not there."""
        if tile in self.items:
            return False
        self.items[tile] = worker
        return True


class Executor:
    """Makes one tile step by step: look, read, ask, write assets, ask, write the item."""

    slots = 1

    def __init__(self, queue, name, token):
        self.queue, self.name, self.token = queue, name, token
        self.future, self.steps, self.deaf, self.failing = None, iter(()), False, False

    def submit(self, job, guard):
        self.future, self.steps = Future(), self._life(job, guard)
        return self.future

    def expect(self, job):
        self.expected = job

    def kill(self, reason):
        self.token.cancel(reason)
        if not self.deaf:
            self.end(Cancelled(reason))

    def end(self, exc):
        self.steps = iter(())
        if self.future is not None and not self.future.done():
            self.future.set_exception(exc)

    def advance(self):
        """One step further; a supervisor lets nothing more pass once it was told to stop."""
        try:
            next(self.steps, None)
        except Cancelled as exc:
            self.end(exc)

    def _life(self, job, guard):
        store = self.queue.store
        if job.tile in store.items:
            self.future.set_result(TaskResult(job.tile, "skipped"))
            return
        yield
        if self.failing:
            self.future.set_result(TaskResult(job.tile, "failed", error="bad scene"))
            return
        for _ in ("assets", "item"):
            self.token.check()
            guard()
            lease = guard.__self__
            message = self.queue.holder(lease.message["ReceiptHandle"])
            known = next(
                (m for m in self.queue.messages if m.id == lease.message["MessageId"]), None
            )
            assert message is not None or known is None or known.twice, "published without a lease"
            if job.tile in store.items:
                self.future.set_result(TaskResult(job.tile, "skipped"))
                return
            yield
        first = store.put_item(job.tile, self.name)
        self.future.set_result(TaskResult(job.tile, "done" if first else "skipped"))


class Worker:
    """The real consumer, keeper, lease and hand of one worker over the fakes."""

    def __init__(self, queue, name, offset=0.0):
        self.queue, self.token, self.summary = queue, CancelToken(), RunSummary()
        clock = queue.clock.of_a_machine(offset)
        self.late, self.hanging, self.delivery = [], False, None
        self.executor = Executor(queue, name, self.token)
        self.keeper = Keeper(MARGIN, clock=clock)
        self.consumer = Consumer(URL, lease_seconds=LEASE, clock=clock, client=queue)
        self.ahead = Ahead(
            self.consumer, self.keeper, self.executor, self.token.event, enabled=True,
            start=self.start,
        )  # fmt: skip
        self.hand = Hand(self.executor, self.summary, lambda *_: None, self.token, self.start)

    def start(self, work):
        """A call of the queue: at once, or one that hangs and may take effect late, or never."""
        future = Future()
        if self.hanging and self.token.cancelled:
            self.late.append(work)
            return future
        try:
            future.set_result(work())
        except Exception as exc:  # noqa: BLE001 - as in the real one
            future.set_exception(exc)
        return future

    def receive(self):
        """The next message: one taken ahead, else one that the queue has."""
        delivery = self.ahead.take()
        if delivery is None:
            delivery = self.consumer.take(self.consumer.ask())
            if delivery is not None:
                self.keeper.hold(delivery.lease)
        if delivery is not None:
            self.delivery = delivery
            self.hand.take(delivery)

    def receive_and_leave(self):
        answer = self.consumer.ask()
        self.token.cancel("SIGTERM")
        for lease in answer.leases:
            hand_back(lease, self.start)

    def settle(self):
        """True when there is nothing in hand."""
        if self.delivery is not None and self.hand.settle():
            self.keeper.drop(self.delivery.lease)
            self.delivery = None
            if self.token.cancelled:
                self.ahead.wait()
        return self.delivery is None
