"""One way to reach SQS: the default credential chain, names, URLs or ARNs of queues."""

from __future__ import annotations

import os
import re
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

from odc_stats_gpu.errors import ConfigError, StoreError

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

_REGION = "us-west-2"  # botocore insists on one
_HOST = re.compile(r"(?:sqs(?:-fips)?\.([a-z0-9-]+)|([a-z0-9-]+)\.queue)\.(?:amazonaws|api\.aws)\b")
_found: dict[str, str] = {}
"""Regions of the queues that were looked up by ARN: an endpoint override hides them in the URL."""


def sqs_client(url: str = "", *, hasty: bool = False) -> SQSClient:
    """The process's SQS client for the region of a queue; the default chain's region without one.

    Credentials refresh through botocore's default chain. The `hasty` one gives up within seconds:
    for calls that a lease's clock runs against.
    """
    return _client(_region(url), hasty=hasty)


@cache
def _client(region: str, *, hasty: bool) -> SQSClient:
    import boto3
    from botocore.config import Config

    retries: Any = {"mode": "standard", "total_max_attempts": 2 if hasty else 8}
    config = Config(retries=retries, connect_timeout=3 if hasty else 5,
                    read_timeout=6 if hasty else 30)  # fmt: skip
    session = boto3.session.Session()
    home = session.region_name or os.environ.get("AWS_REGION") or _REGION
    return session.client("sqs", region_name=region or home, config=config)


def forget_clients() -> None:
    """Make new clients on the next use: the environment has changed."""
    _client.cache_clear()
    _found.clear()


def _region(url: str) -> str:
    """Region of a queue: botocore itself sends every call to the client's own region."""
    host = _HOST.match(urlparse(url).hostname or "")
    return (host[1] or host[2]) if host else _found.get(url, "")


def queue_url(name: str) -> str:
    """URL of a queue given by name, URL or ARN.

    Raises ConfigError when there is none or it is forbidden, StoreError when SQS doesn't answer.
    """
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        CredentialRetrievalError,
        HTTPClientError,
    )

    region, owner, lookup = "", {}, name
    is_url = urlparse(name).scheme in ("http", "https")
    if name.startswith("arn:"):
        parts = name.split(":")
        if len(parts) != 6 or parts[2] != "sqs":
            raise ConfigError(f"{name} is no queue", "expected arn:aws:sqs:REGION:ACCOUNT:NAME")
        region, lookup = parts[3], parts[5]
        owner = {"QueueOwnerAWSAccountId": parts[4]} if parts[4] else {}
    try:
        if is_url:  # it may be mistyped, or deleted
            sqs_client(name).get_queue_attributes(QueueUrl=name, AttributeNames=["QueueArn"])
            return name
        url = _client(region, hasty=False).get_queue_url(QueueName=lookup, **owner)["QueueUrl"]
    except ClientError as exc:
        if is_missing(exc):
            raise ConfigError(
                f"there is no queue {name!r}", "check its name, AWS_DEFAULT_REGION and account"
            ) from None
        if is_url and not passing(exc):
            return name  # to look at it may be forbidden where using it is not
        failure = StoreError if passing(exc) else ConfigError
        raise failure(f"can't look up the queue {name!r}: {exc}", "check AWS access") from None
    except HTTPClientError as exc:
        raise StoreError(f"can't reach SQS: {exc}", "check AWS_ENDPOINT_URL, or wait") from None
    except CredentialRetrievalError as exc:  # whoever hands them out may still be starting
        raise StoreError(f"can't get AWS credentials: {exc}", "check their source") from None
    except BotoCoreError as exc:
        raise ConfigError(
            f"can't reach SQS for the queue {name!r}: {exc}",
            "check AWS credentials, AWS_DEFAULT_REGION and AWS_ENDPOINT_URL",
        ) from None
    if region:
        _found[url] = region
    return url


def sqs_errors() -> tuple[type[Exception], ...]:
    """Everything boto3 raises for a call that didn't succeed."""
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError
    from urllib3.exceptions import HTTPError

    return (BotoCoreError, ClientError, ResponseParserError, HTTPError)


def passing(exc: Exception) -> bool:
    """Whether it is of the kind that goes away: no answer, throttling, the service's own fault."""
    from botocore.exceptions import ClientError

    if not isinstance(exc, ClientError):
        return True
    status = exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500)
    return "Throttl" in exc.response["Error"]["Code"] or status == 429 or status >= 500


def distrusted(exc: Exception) -> bool:
    """Whether only the signature was refused: wrong clocks, credentials that have just expired."""
    code = str(getattr(exc, "response", {}).get("Error", {}).get("Code", ""))
    return code in ("RequestExpired", "RequestTimeTooSkewed", "InvalidSignatureException",
                    "SignatureDoesNotMatch", "ExpiredToken", "ExpiredTokenException")  # fmt: skip


def is_missing(exc: Exception) -> bool:
    """Whether SQS says that there is no such queue."""
    from botocore.exceptions import ClientError

    code = exc.response["Error"]["Code"] if isinstance(exc, ClientError) else ""
    return "NonExistentQueue" in code or "QueueDoesNotExist" in code


def attributes(url: str, client: Any = None) -> dict[str, str]:
    """All attributes of a queue; raises StoreError when SQS doesn't answer."""
    client = client or sqs_client(url)
    try:
        answer = client.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])
    except sqs_errors() as exc:
        raise StoreError(f"can't read the queue {url}: {exc}", "check AWS access") from None
    return {str(k): v for k, v in answer.get("Attributes", {}).items()}


def queue_name(url: str) -> str:
    """Last part of a queue's URL."""
    return url.rsplit("/", 1)[-1]


def is_fifo(url: str) -> bool:
    """Whether a queue keeps order by group."""
    return url.endswith(".fifo")
