"""A proxy before moto server that misbehaves on demand; it knows the calls of SQS and of S3.

It is also stricter than moto about receipts, as SQS is: a renewal with one that has run out or been
superseded is refused, a delete with it does nothing.
"""

from __future__ import annotations

import json
import os
import random
import re
import socket
import struct
import threading
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import urlsplit

from faultproxy._faults import (
    HOP,
    Answer,
    Call,
    Fault,
    ResetError,
    blame,
    broken,
    cut,
    doubled,
    error_answer,
    json_answer,
    lost,
    name_call,
    pretend,
    refuse,
    slow,
)

__all__ = [
    "Call",
    "FaultProxy",
    "Rule",
    "blame",
    "broken",
    "cut",
    "doubled",
    "lost",
    "pretend",
    "refuse",
    "slow",
]


@dataclass
class Rule:
    """Which calls go wrong, and how."""

    action: str
    """Regular expression of the whole name."""
    fault: Fault
    chance: float = 1.0
    times: int | None = None
    """How many calls at most; None: all."""
    key: str = ""
    """Regular expression found in the object's key."""
    seen: int = 0


@dataclass
class _Receipts:
    """Who may renew and delete which message."""

    newest: dict[str, str] = field(default_factory=dict)
    message: dict[str, str] = field(default_factory=dict)
    until: dict[str, float] = field(default_factory=dict)

    def received(self, call: Call, answer: Answer) -> None:
        """Note whose every message is now."""
        seconds = float(call.sqs.get("VisibilityTimeout", 30))
        for message in json.loads(answer.body).get("Messages", ()):
            handle = message["ReceiptHandle"]
            self.newest[message["MessageId"]] = handle
            self.message[handle] = message["MessageId"]
            self.until[handle] = time.monotonic() + seconds

    def valid(self, handle: str) -> bool:
        """Whether SQS would still listen to the holder; unknown receipts are moto's business."""
        message = self.message.get(handle)
        if message is None:
            return True
        return self.newest[message] == handle and time.monotonic() < self.until[handle]


class FaultProxy:
    """Listens at `url`, forwards to `target`; add rules to make it misbehave."""

    def __init__(self, target: str, seed: int = 0) -> None:
        self.calls: Counter[str] = Counter()
        """How often each action was asked for."""
        self._rules: list[Rule] = []
        self._receipts = _Receipts()
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._receiving = threading.Lock()
        self._target = urlsplit(target).netloc
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def add(self, action: str, fault: Fault, **options: Any) -> Rule:
        """Let calls go wrong from now on; the newest rule that fits a call decides."""
        rule = Rule(action, fault, **options)
        with self._lock:
            self._rules.insert(0, rule)
        return rule

    def clear(self) -> None:
        """Behave again."""
        with self._lock:
            self._rules.clear()

    def _fault(self, call: Call) -> Fault | None:
        with self._lock:
            self.calls[call.action] += 1
            for rule in self._rules:
                if rule.times is not None and rule.seen >= rule.times:
                    continue
                fits = re.fullmatch(rule.action, call.action) and re.search(rule.key, call.key)
                if fits and self._random.random() < rule.chance:
                    rule.seen += 1
                    return rule.fault
        return None

    def _handle(self, call: Call) -> Answer:
        fault = self._fault(call)
        return fault(call, self._forward) if fault else self._forward(call)

    def _forward(self, call: Call) -> Answer:
        if call.action == "ReceiveMessage":
            return self._receive(call)
        receipted = call.action in ("DeleteMessage", "ChangeMessageVisibility")
        handle = call.sqs.get("ReceiptHandle", "") if receipted else ""
        if handle and not self._receipts.valid(handle):
            if call.action == "DeleteMessage":
                return json_answer({})
            return error_answer(call, 400, "ReceiptHandleIsInvalid")
        asked = time.monotonic()
        answer = self._pass_on(call)
        if call.action == "ChangeMessageVisibility" and answer.status == 200:
            self._receipts.until[handle] = asked + float(call.sqs["VisibilityTimeout"])
        return answer

    def _receive(self, call: Call) -> Answer:
        """The long poll, one look at a time: moto hands a message to two that ask at once."""
        until = time.monotonic() + float(call.sqs.get("WaitTimeSeconds", 0))
        once = replace(call, body=json.dumps(call.sqs | {"WaitTimeSeconds": 0}).encode())
        while True:
            with self._receiving:
                answer = self._pass_on(once)
            if answer.status != 200:
                return answer
            if json.loads(answer.body).get("Messages"):
                self._receipts.received(call, answer)
                return answer
            if time.monotonic() >= until:
                return answer
            time.sleep(0.2)

    def _pass_on(self, call: Call) -> Answer:
        connection = HTTPConnection(self._target, timeout=60)
        try:
            connection.request(call.method, call.path, call.body, call.headers)
            found = connection.getresponse()
            headers = [(k, v) for k, v in found.getheaders() if k.lower() not in HOP]
            if call.method == "HEAD":
                headers.append(("Content-Length", found.getheader("Content-Length") or "0"))
            return Answer(found.status, headers, found.read())
        finally:
            connection.close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _serve(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length)
                headers = {k: v for k, v in self.headers.items() if k.lower() not in HOP}
                call = Call(*name_call(self.command, self.path, headers), self.command, self.path,
                            headers, body)  # fmt: skip
                try:
                    answer = proxy._handle(call)
                    self._answer(answer)
                except ResetError:
                    self._reset()
                except OSError:  # who asked is gone, or moto is at the end of the test
                    self.close_connection = True

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _serve  # noqa: N815 - the standard library asks for these names

            def _answer(self, answer: Answer) -> None:
                self.send_response(answer.status)
                for name, value in answer.headers:
                    self.send_header(name, value)
                if self.command != "HEAD":
                    self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(answer.body[: answer.send])
                if answer.send is not None:
                    self.wfile.flush()
                    self._reset()

            def _reset(self) -> None:
                linger = struct.pack("ii", 1, 0)  # the end is RST, not FIN
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                os.close(self.connection.detach())
                self.close_connection = True

            def log_message(self, *_: object) -> None:
                pass

        return Handler
