"""EC2's two minutes' notice: the work goes back to the queue at once."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.client import HTTPException
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

from odc_stats_gpu.engine._job import CancelToken
from odc_stats_gpu.telemetry import log

_EVERY = 2.0
"""Seconds between two questions: after a notice there are 5 for giving the work back."""
_TRIES = 3
"""Questions without any answer after which the machine counts as none of EC2's."""
_TIMEOUT = 2.0
_TOKEN_LIFE = 300
_ADDRESSES = {"ipv4": "http://169.254.169.254", "ipv6": "http://[fd00:ec2::254]"}
_ACTIONS = ("terminate", "stop", "hibernate")


@contextmanager
def spot_notice(token: CancelToken, *, enabled: bool = True) -> Iterator[None]:
    """Cancel `token` when the instance metadata (IMDSv2) announce a reclaim.

    Off where AWS_EC2_METADATA_DISABLED is true; AWS_EC2_METADATA_SERVICE_ENDPOINT names another
    address. A machine without the service is asked three times and then left alone; neither start
    nor end wait for an answer.
    """
    if not enabled or os.environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
        yield
        return
    leave = threading.Event()
    thread = threading.Thread(
        target=_watch, args=(_Metadata(_address()), token, leave), name="spot notice", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        leave.set()
        thread.join(0.2)  # it may be waiting for an answer: it doesn't outlive the process


def _address() -> str:
    mode = os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", "").lower()
    default = _ADDRESSES.get(mode, _ADDRESSES["ipv4"])
    return (os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT") or default).rstrip("/")


def _watch(metadata: _Metadata, token: CancelToken, leave: threading.Event) -> None:
    """Body of the thread."""
    silent, met = 0, False
    while not leave.is_set():
        try:
            action = metadata.announced()
        except (OSError, HTTPException, ValueError):
            silent += 1
            if not met and silent >= _TRIES:
                log("no EC2 instance metadata: no notice of a reclaim will come", level="debug")
                return
        else:
            silent, met = 0, True
            if action:
                token.cancel(f"EC2 spot reclaim ({action})")
                return
        leave.wait(_EVERY)


class _Metadata:
    """The instance metadata service, version 2: questions need a token, and tokens expire."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._key, self._until = "", 0.0
        self._open = build_opener(ProxyHandler({})).open  # link-local: never by way of a proxy

    def announced(self) -> str:
        """What is going to be done to the instance, or nothing.

        Raises OSError, HTTPException or ValueError when the service doesn't tell.
        """
        if time.monotonic() > self._until:
            life = {"X-aws-ec2-metadata-token-ttl-seconds": str(_TOKEN_LIFE)}
            self._key = self._ask("PUT", "api/token", life)
            self._until = time.monotonic() + _TOKEN_LIFE / 2
        try:
            text = self._ask(
                "GET", "meta-data/spot/instance-action", {"X-aws-ec2-metadata-token": self._key}
            )
        except HTTPError as exc:
            if exc.code == HTTPStatus.NOT_FOUND:
                return ""
            self._until = 0.0  # 401: the token isn't known any more
            raise
        notice = json.loads(text)
        action = notice.get("action") if isinstance(notice, dict) else None
        return str(action) if action in _ACTIONS else ""

    def _ask(self, method: str, path: str, headers: dict[str, str]) -> str:
        request = Request(f"{self._address}/latest/{path}", method=method, headers=headers)  # noqa: S310 - http by configuration
        with self._open(request, timeout=_TIMEOUT) as answer:
            return str(answer.read(65536).decode())
