"""SQS: publish tasks, lease them, bring dead ones back. Batches are checked entry by entry."""

from odc_stats_gpu.queue._area import within
from odc_stats_gpu.queue._client import attributes, is_fifo, queue_url, sqs_client
from odc_stats_gpu.queue._consumer import Delivery, deliveries
from odc_stats_gpu.queue._lease import Keeper, Lease
from odc_stats_gpu.queue._message import MalformedMessageError, TaskMessage
from odc_stats_gpu.queue._publish import PublishSummary, publish
from odc_stats_gpu.queue._redrive import (
    RedriveSummary,
    dead_letter_queue,
    redrive,
    redrive_native,
    redrive_target,
)
from odc_stats_gpu.queue._status import QueueStatus, queue_status

__all__ = [
    "Delivery",
    "Keeper",
    "Lease",
    "MalformedMessageError",
    "PublishSummary",
    "QueueStatus",
    "RedriveSummary",
    "TaskMessage",
    "attributes",
    "dead_letter_queue",
    "deliveries",
    "is_fifo",
    "publish",
    "queue_status",
    "queue_url",
    "redrive",
    "redrive_native",
    "redrive_target",
    "sqs_client",
    "within",
]
