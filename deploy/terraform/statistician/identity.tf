data "aws_iam_openid_connect_provider" "cluster" {
  count = var.use_irsa ? 1 : 0
  arn   = var.oidc_provider_arn

  lifecycle {
    precondition {
      condition     = var.oidc_provider_arn != null
      error_message = "use_irsa needs oidc_provider_arn."
    }
  }
}

data "aws_iam_policy_document" "trust" {
  dynamic "statement" {
    for_each = var.use_irsa ? [] : [1]

    content {
      sid     = "PodIdentity"
      actions = ["sts:AssumeRole", "sts:TagSession"]

      principals {
        type        = "Service"
        identifiers = ["pods.eks.amazonaws.com"]
      }

      condition {
        test     = "StringEquals"
        variable = "aws:RequestTag/eks-cluster-arn"
        values   = ["arn:${data.aws_partition.current.partition}:eks:${data.aws_region.current.name}:${data.aws_caller_identity.current.account_id}:cluster/${var.cluster_id}"]
      }

      condition {
        test     = "StringEquals"
        variable = "aws:RequestTag/kubernetes-namespace"
        values   = [var.namespace]
      }

      condition {
        test     = "StringEquals"
        variable = "aws:RequestTag/kubernetes-service-account"
        values   = [var.service_account]
      }
    }
  }

  dynamic "statement" {
    for_each = data.aws_iam_openid_connect_provider.cluster

    content {
      sid     = "ServiceAccount"
      actions = ["sts:AssumeRoleWithWebIdentity"]

      principals {
        type        = "Federated"
        identifiers = [statement.value.arn]
      }

      condition {
        test     = "StringEquals"
        variable = "${trimprefix(statement.value.url, "https://")}:sub"
        values   = ["system:serviceaccount:${var.namespace}:${var.service_account}"]
      }

      condition {
        test     = "StringEquals"
        variable = "${trimprefix(statement.value.url, "https://")}:aud"
        values   = ["sts.amazonaws.com"]
      }
    }
  }
}

resource "aws_iam_role" "worker" {
  name               = "${var.stats_process}-worker"
  description        = "Workers of ${var.stats_process} on ${var.cluster_id}"
  assume_role_policy = data.aws_iam_policy_document.trust.json
  tags               = local.tags
}

data "aws_iam_policy_document" "worker" {
  # sending: interrupted work goes back as a new message, redriven work into the queue
  statement {
    sid = "Queues"
    actions = [
      "sqs:ChangeMessageVisibility",
      "sqs:DeleteMessage",
      "sqs:GetQueueAttributes",
      "sqs:GetQueueUrl",
      "sqs:ReceiveMessage",
      "sqs:SendMessage",
    ]
    resources = [aws_sqs_queue.tasks.arn, aws_sqs_queue.dead.arn]
  }

  # redrive-queue finds the queue that a dead-letter queue belongs to; --native leaves moving to SQS
  statement {
    sid       = "DeadLetters"
    actions   = ["sqs:ListDeadLetterSourceQueues", "sqs:StartMessageMoveTask"]
    resources = [aws_sqs_queue.dead.arn]
  }

  # the age of the oldest message is nowhere else; CloudWatch knows no resources to narrow it to
  statement {
    sid       = "OldestAge"
    actions   = ["cloudwatch:GetMetricStatistics"]
    resources = ["*"]
  }

  dynamic "statement" {
    for_each = var.kms_key_arn == null ? [] : [var.kms_key_arn]

    content {
      sid       = "QueueKey"
      actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
      resources = [statement.value]
    }
  }

  statement {
    sid       = "Inputs"
    actions   = ["s3:GetObject"]
    resources = [for b in local.readable : "${local.s3}${b}/*"]
  }

  statement {
    sid = "Outputs"
    actions = concat(
      ["s3:AbortMultipartUpload", "s3:DeleteObject", "s3:GetObject", "s3:ListMultipartUploadParts", "s3:PutObject"],
      var.public ? ["s3:PutObjectAcl"] : [],
    )
    resources = [for b in local.output_buckets : "${local.s3}${b}/${local.path}/*"]
  }

  # without it S3 answers 403 instead of 404, and "absent" can't be told from "forbidden"
  statement {
    sid       = "AbsentIsNotForbidden"
    actions   = ["s3:ListBucket"]
    resources = [for b in distinct(concat(local.output_buckets, [for r in local.readable : split("/", r)[0]])) : "${local.s3}${b}"]

    # IfExists: S3 asks this question for a missing object, too, and then there is no prefix
    condition {
      test     = "StringLikeIfExists"
      variable = "s3:prefix"
      values = distinct(concat(
        ["${local.path}/*"],
        [for r in local.readable : length(split("/", r)) > 1 ? "${join("/", slice(split("/", r), 1, length(split("/", r))))}/*" : "*"],
      ))
    }
  }

  # to abort what killed workers began and never finished
  statement {
    sid       = "UnfinishedUploads"
    actions   = ["s3:ListBucketMultipartUploads"]
    resources = [for b in local.output_buckets : "${local.s3}${b}"]

    # IfExists: s3:prefix isn't among the keys that S3 documents for this action
    condition {
      test     = "StringLikeIfExists"
      variable = "s3:prefix"
      values   = ["${local.path}/*"]
    }
  }
}

resource "aws_iam_role_policy" "worker" {
  name   = "worker"
  role   = aws_iam_role.worker.id
  policy = data.aws_iam_policy_document.worker.json
}

resource "aws_eks_pod_identity_association" "worker" {
  count           = var.use_irsa ? 0 : 1
  cluster_name    = var.cluster_id
  namespace       = var.namespace
  service_account = var.service_account
  role_arn        = aws_iam_role.worker.arn
  tags            = local.tags
}
