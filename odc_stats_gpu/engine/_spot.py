"""EC2's two minutes' notice: the work goes back to the queue at once."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from urllib.request import Request, urlopen

from odc_stats_gpu.engine._job import CancelToken

_EVERY = 5.0
_DEFAULT = "http://169.254.169.254"


@contextmanager
def spot_notice(token: CancelToken, *, enabled: bool = True) -> Iterator[None]:
    """Cancel `token` when the instance metadata (IMDSv2) announce a reclaim.

    Off where AWS_EC2_METADATA_DISABLED is true; AWS_EC2_METADATA_SERVICE_ENDPOINT names another
    address. A machine without the service is asked once and then left alone.
    """
    if not enabled or os.environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
        yield
        return
    base = os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT", _DEFAULT).rstrip("/")
    leave = threading.Event()

    def watch() -> None:
        while not leave.is_set():
            try:
                key = _ask(f"{base}/latest/api/token", "PUT")
            except (OSError, HTTPException):
                return  # not on EC2
            if _announced(base, key):
                token.cancel("EC2 spot reclaim")
                return
            leave.wait(_EVERY)

    thread = threading.Thread(target=watch, name="spot notice", daemon=True)
    thread.start()
    try:
        yield
    finally:
        leave.set()
        thread.join(timeout=3)


def _announced(base: str, key: str) -> bool:
    """Whether there is a notice; 404 says no."""
    try:
        return bool(_ask(f"{base}/latest/meta-data/spot/instance-action", "GET", key))
    except (OSError, HTTPException):
        return False


def _ask(url: str, method: str, key: str = "") -> str:
    headers = (
        {"X-aws-ec2-metadata-token": key}
        if key
        else {"X-aws-ec2-metadata-token-ttl-seconds": "300"}
    )
    request = Request(url, method=method, headers=headers)  # noqa: S310 - http by configuration
    with urlopen(request, timeout=2) as answer:  # noqa: S310 - same
        return str(answer.read().decode())
