"""One way to reach SQS: the default credential chain, names, URLs or ARNs of queues."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

from odc_stats_gpu.errors import ConfigError, StoreError

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

_REGION = "us-west-2"  # botocore insists on one; the queue's own URL decides where calls go


@cache
def sqs_client(*, hasty: bool = False) -> SQSClient:
    """The process's SQS client; credentials refresh through botocore's default chain.

    The `hasty` one gives up within seconds: for calls that a lease's clock runs against.
    """
    import boto3
    from botocore.config import Config

    session = boto3.session.Session()
    attempts = 2 if hasty else 8
    retries: Any = {"mode": "standard", "total_max_attempts": attempts}
    config = Config(retries=retries, connect_timeout=3 if hasty else 5,
                    read_timeout=6 if hasty else 30)  # fmt: skip
    return session.client("sqs", region_name=session.region_name or _REGION, config=config)


def queue_url(name: str) -> str:
    """URL of a queue given by name, URL or ARN.

    Raises ConfigError when there is none or it is forbidden, StoreError when SQS doesn't answer.
    """
    from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

    if urlparse(name).scheme in ("http", "https"):
        return name
    if name.startswith("arn:"):
        name = name.rsplit(":", 1)[-1]
    try:
        return sqs_client().get_queue_url(QueueName=name)["QueueUrl"]
    except ClientError as exc:
        if any(
            c in exc.response["Error"]["Code"] for c in ("NonExistentQueue", "QueueDoesNotExist")
        ):
            raise ConfigError(
                f"there is no queue {name!r}", "check its name, AWS_DEFAULT_REGION and account"
            ) from None
        failure = StoreError if passing(exc) else ConfigError
        raise failure(f"can't look up the queue {name!r}: {exc}", "check AWS access") from None
    except HTTPClientError as exc:
        raise StoreError(f"can't reach SQS: {exc}", "check AWS_ENDPOINT_URL, or wait") from None
    except BotoCoreError as exc:
        raise ConfigError(
            f"can't reach SQS for the queue {name!r}: {exc}",
            "check AWS credentials, AWS_DEFAULT_REGION and AWS_ENDPOINT_URL",
        ) from None


def passing(exc: Any) -> bool:
    """Whether a refusal is of the kind that goes away: throttling, or the service's own fault."""
    status = exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500)
    return "Throttl" in exc.response["Error"]["Code"] or status == 429 or status >= 500


def attributes(url: str) -> dict[str, str]:
    """All attributes of a queue; raises StoreError when SQS doesn't answer."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        answer = sqs_client().get_queue_attributes(QueueUrl=url, AttributeNames=["All"])
    except (BotoCoreError, ClientError) as exc:
        raise StoreError(f"can't read the queue {url}: {exc}", "check AWS access") from None
    return {str(k): v for k, v in answer.get("Attributes", {}).items()}


def is_fifo(url: str) -> bool:
    """Whether a queue keeps order by group."""
    return url.endswith(".fifo")
