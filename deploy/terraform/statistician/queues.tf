resource "aws_sqs_queue" "dead" {
  name                       = "${var.stats_process}-deadletter${local.suffix}"
  fifo_queue                 = var.fifo
  message_retention_seconds  = 1209600 # 14 days, the most there is: time to find out why
  visibility_timeout_seconds = 60
  sqs_managed_sse_enabled    = var.kms_key_arn == null ? true : null
  kms_master_key_id          = var.kms_key_arn
  tags                       = local.tags
}

resource "aws_sqs_queue" "tasks" {
  name                       = "${var.stats_process}${local.suffix}"
  fifo_queue                 = var.fifo
  message_retention_seconds  = 1209600
  visibility_timeout_seconds = var.visibility_timeout
  receive_wait_time_seconds  = 5
  sqs_managed_sse_enabled    = var.kms_key_arn == null ? true : null
  kms_master_key_id          = var.kms_key_arn
  tags                       = local.tags

  redrive_policy = jsonencode({
    deadLetterTargetArn = aws_sqs_queue.dead.arn
    maxReceiveCount     = var.max_receives
  })
}

resource "aws_sqs_queue_redrive_allow_policy" "dead" {
  queue_url = aws_sqs_queue.dead.id

  redrive_allow_policy = jsonencode({
    redrivePermission = "byQueue"
    sourceQueueArns   = [aws_sqs_queue.tasks.arn]
  })
}

data "aws_iam_policy_document" "queue" {
  for_each = {
    tasks = aws_sqs_queue.tasks.arn
    dead  = aws_sqs_queue.dead.arn
  }

  statement {
    sid       = "EncryptedTransportOnly"
    effect    = "Deny"
    actions   = ["sqs:*"]
    resources = [each.value]

    principals {
      type        = "*"
      identifiers = ["*"]
    }

    condition {
      test     = "Bool"
      variable = "aws:SecureTransport"
      values   = ["false"]
    }
  }

  dynamic "statement" {
    for_each = var.keda_role_arn == null ? [] : [var.keda_role_arn]

    content {
      sid       = "KedaReadsLength"
      actions   = ["sqs:GetQueueAttributes", "sqs:GetQueueUrl"]
      resources = [each.value]

      principals {
        type        = "AWS"
        identifiers = [statement.value]
      }
    }
  }
}

resource "aws_sqs_queue_policy" "tasks" {
  queue_url = aws_sqs_queue.tasks.id
  policy    = data.aws_iam_policy_document.queue["tasks"].json
}

resource "aws_sqs_queue_policy" "dead" {
  queue_url = aws_sqs_queue.dead.id
  policy    = data.aws_iam_policy_document.queue["dead"].json
}
