# A bucket has one policy: where this module doesn't own it, add the output's statements to it.
# For a bucket in another account both sides must allow; in the same one the role's policy is enough.

data "aws_iam_policy_document" "bucket" {
  statement {
    sid = "${replace(title(replace(var.stats_process, "-", " ")), " ", "")}Writes"
    actions = concat(
      ["s3:AbortMultipartUpload", "s3:DeleteObject", "s3:GetObject", "s3:ListMultipartUploadParts", "s3:PutObject"],
      var.public ? ["s3:PutObjectAcl"] : [],
    )
    resources = ["${local.s3}${var.destination_bucket}/${local.path}/*"]

    principals {
      type        = "AWS"
      identifiers = [aws_iam_role.worker.arn]
    }
  }

  statement {
    sid       = "${replace(title(replace(var.stats_process, "-", " ")), " ", "")}Lists"
    actions   = ["s3:ListBucket", "s3:ListBucketMultipartUploads"]
    resources = ["${local.s3}${var.destination_bucket}"]

    principals {
      type        = "AWS"
      identifiers = [aws_iam_role.worker.arn]
    }

    condition {
      test     = "StringLikeIfExists"
      variable = "s3:prefix"
      values   = ["${local.path}/*"]
    }
  }
}

resource "aws_s3_bucket_policy" "destination" {
  count  = var.manage_bucket_policy ? 1 : 0
  bucket = var.destination_bucket
  policy = data.aws_iam_policy_document.bucket.json
}

resource "aws_s3_bucket_lifecycle_configuration" "destination" {
  count  = var.manage_bucket_lifecycle ? 1 : 0
  bucket = var.destination_bucket

  # parts of uploads that a killed worker never finished cost money and are listed nowhere
  rule {
    id     = "${var.stats_process}-unfinished-uploads"
    status = "Enabled"

    filter {
      prefix = "${local.path}/"
    }

    abort_incomplete_multipart_upload {
      days_after_initiation = 1
    }
  }
}
