"""How a queue stands: visible, in flight, delayed, dead, age of the oldest message."""

from __future__ import annotations

from dataclasses import dataclass

from odc_stats_gpu.queue._client import attributes, queue_name, sqs_client
from odc_stats_gpu.queue._redrive import dead_letter_queue


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """Approximate counts, as SQS gives them."""

    queue: str
    visible: int
    in_flight: int
    delayed: int
    dead_queue: str | None
    dead: int | None
    oldest_age: float | None
    """Seconds since the oldest message was sent, from CloudWatch; None where it doesn't tell."""


def queue_status(url: str) -> QueueStatus:
    """Read the counts of a queue and of its dead-letter queue."""
    attrs = attributes(url)
    dead_url = dead_letter_queue(url)
    dead = int(attributes(dead_url)["ApproximateNumberOfMessages"]) if dead_url else None
    return QueueStatus(
        queue=queue_name(url),
        visible=int(attrs.get("ApproximateNumberOfMessages", 0)),
        in_flight=int(attrs.get("ApproximateNumberOfMessagesNotVisible", 0)),
        delayed=int(attrs.get("ApproximateNumberOfMessagesDelayed", 0)),
        dead_queue=queue_name(dead_url) if dead_url else None,
        dead=dead,
        oldest_age=_oldest_age(url),
    )


def _oldest_age(url: str) -> float | None:
    """SQS itself doesn't tell; CloudWatch has the metric, where it is and may be read."""
    from datetime import UTC, datetime, timedelta

    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    config = Config(connect_timeout=3, read_timeout=5, retries={"max_attempts": 1})
    now = datetime.now(UTC)
    try:
        answer = boto3.client(
            "cloudwatch", region_name=sqs_client(url).meta.region_name, config=config
        ).get_metric_statistics(
            Namespace="AWS/SQS", MetricName="ApproximateAgeOfOldestMessage",
            Dimensions=[{"Name": "QueueName", "Value": queue_name(url)}],
            StartTime=now - timedelta(minutes=15), EndTime=now, Period=60, Statistics=["Maximum"],
        )  # fmt: skip
    except (BotoCoreError, ClientError):
        return None
    points = sorted(answer.get("Datapoints", []), key=lambda p: p["Timestamp"])
    return float(points[-1]["Maximum"]) if points else None
