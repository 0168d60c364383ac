"""Calls, answers, and what can happen between them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

HOP = ("connection", "keep-alive", "transfer-encoding", "content-length", "expect")
"""Headers between two machines: not passed on."""
_S3 = {"GET": "GetObject", "HEAD": "HeadObject", "PUT": "PutObject", "DELETE": "DeleteObject"}
_S3_SUB = {
    ("POST", "uploads"): "CreateMultipartUpload", ("POST", "uploadId"): "CompleteMultipartUpload",
    ("PUT", "partNumber"): "UploadPart", ("DELETE", "uploadId"): "AbortMultipartUpload",
    ("GET", "uploads"): "ListMultipartUploads", ("GET", "list-type"): "ListObjectsV2",
}  # fmt: skip


@dataclass(frozen=True)
class Call:
    """One request."""

    action: str
    """SendMessage, PutObject, ..."""
    key: str
    """Object key; empty for SQS."""
    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def sqs(self) -> dict[str, Any]:
        """The parameters of an SQS call."""
        return dict(json.loads(self.body or b"{}"))


@dataclass
class Answer:
    """What goes back; `send` is how many bytes of the body, then the connection is reset."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    send: int | None = None


class ResetError(Exception):
    """The connection breaks instead of an answer."""


Forward = Callable[[Call], Answer]
Fault = Callable[[Call, Forward], Answer]


def refuse(status: int, code: str, retry_after: float | None = None) -> Fault:
    """An error, nothing done."""
    return lambda call, _: error_answer(call, status, code, retry_after)


def blame(status: int = 500, code: str = "InternalError") -> Fault:
    """Done, but an error is answered."""

    def fault(call: Call, forward: Forward) -> Answer:
        forward(call)
        return error_answer(call, status, code)

    return fault


def slow(seconds: float) -> Fault:
    """Done late."""

    def fault(call: Call, forward: Forward) -> Answer:
        time.sleep(seconds)
        return forward(call)

    return fault


def broken(_call: Call, _forward: Forward) -> Answer:
    """The connection breaks before anything is done."""
    raise ResetError


def lost(call: Call, forward: Forward) -> Answer:
    """Done, and the connection breaks before the answer."""
    forward(call)
    raise ResetError


def cut(call: Call, forward: Forward) -> Answer:
    """Done, and the connection breaks in the middle of the answer's body."""
    answer = forward(call)
    answer.send = len(answer.body) // 2
    return answer


def pretend(call: Call, _forward: Forward) -> Answer:
    """Nothing done, success answered: a deleted message comes back, as SQS warns it may."""
    ids = [{"Id": entry["Id"]} for entry in call.sqs.get("Entries", ())]
    return json_answer({"Successful": ids, "Failed": []} if ids else {})


def doubled(call: Call, forward: Forward) -> Answer:
    """A received message stays visible: another worker gets it at the same time."""
    answer = forward(call)
    for message in json.loads(answer.body).get("Messages", ()):
        body = {"QueueUrl": call.sqs["QueueUrl"], "ReceiptHandle": message["ReceiptHandle"],
                "VisibilityTimeout": 0}  # fmt: skip
        headers = call.headers | {"X-Amz-Target": "AmazonSQS.ChangeMessageVisibility"}
        forward(Call("", "", "POST", call.path, headers, json.dumps(body).encode()))
    return answer


def name_call(method: str, path: str, headers: dict[str, str]) -> tuple[str, str]:
    """Action and object key of a request."""
    target = next((v for k, v in headers.items() if k.lower() == "x-amz-target"), "")
    if target:
        return target.rpartition(".")[2], ""
    parts = urlsplit(path)
    query = parse_qs(parts.query, keep_blank_values=True)
    key = parts.path.strip("/").partition("/")[2]
    sub = next((name for (m, q), name in _S3_SUB.items() if m == method and q in query), "")
    return sub or (_S3.get(method, method) if key else f"{method} bucket"), key


def json_answer(doc: Any) -> Answer:
    return Answer(200, [("Content-Type", "application/x-amz-json-1.0")], json.dumps(doc).encode())


def error_answer(call: Call, status: int, code: str, retry_after: float | None = None) -> Answer:
    if any(k.lower() == "x-amz-target" for k in call.headers):
        kind, body = (
            "application/x-amz-json-1.0",
            json.dumps({"__type": f"com.amazonaws.sqs#{code}", "message": "as the test wants it"}),
        )
    else:
        kind = "application/xml"
        body = f"<Error><Code>{code}</Code><Message>as the test wants it</Message></Error>"
    headers = [("Content-Type", kind)]
    if retry_after is not None:
        headers.append(("Retry-After", f"{retry_after:g}"))
    return Answer(status, headers, body.encode())
