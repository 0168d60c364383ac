"""SQS: publish tasks, lease them, bring dead ones back. Batches are checked entry by entry."""

from odc_stats_gpu.queue._area import within
from odc_stats_gpu.queue._calls import in_background, settled
from odc_stats_gpu.queue._client import (
    attributes,
    forget_clients,
    is_fifo,
    queue_name,
    queue_url,
    sqs_client,
    sqs_errors,
)
from odc_stats_gpu.queue._consumer import Answer, Consumer, Delivery, deliveries
from odc_stats_gpu.queue._hand_back import Start, hand_back
from odc_stats_gpu.queue._keeper import Keeper
from odc_stats_gpu.queue._lease import MAX_INTERRUPTIONS, Lease
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
    "MAX_INTERRUPTIONS",
    "Answer",
    "Consumer",
    "Delivery",
    "Keeper",
    "Lease",
    "MalformedMessageError",
    "PublishSummary",
    "QueueStatus",
    "RedriveSummary",
    "Start",
    "TaskMessage",
    "attributes",
    "dead_letter_queue",
    "deliveries",
    "forget_clients",
    "hand_back",
    "in_background",
    "is_fifo",
    "publish",
    "queue_name",
    "queue_status",
    "queue_url",
    "redrive",
    "redrive_native",
    "redrive_target",
    "settled",
    "sqs_client",
    "sqs_errors",
    "within",
]
