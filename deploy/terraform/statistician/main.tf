# What one statistics process needs in AWS: see README.md.

data "aws_caller_identity" "current" {}

data "aws_partition" "current" {}

data "aws_region" "current" {}

locals {
  suffix = var.fifo ? ".fifo" : ""
  path   = trim(var.destination_path, "/ ")
  s3     = "arn:${data.aws_partition.current.partition}:s3:::"

  output_buckets = compact([var.destination_bucket, var.test_bucket])
  taskdb         = trim(coalesce(var.taskdb_location, "${var.destination_bucket}/${local.path}"), "/ ")
  readable       = distinct(concat([for b in var.input_buckets : trim(b, "/ ")], [local.taskdb]))

  tags = merge(var.tags, {
    owner         = var.owner
    stats_process = var.stats_process
  })
}
