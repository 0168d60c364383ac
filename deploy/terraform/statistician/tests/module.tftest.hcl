# terraform test: the module's plan with a mocked provider, no account needed. Terraform 1.7 or newer.
mock_provider "aws" {
  mock_data "aws_iam_policy_document" {
    defaults = { json = "{}" }
  }

  mock_data "aws_partition" {
    defaults = { partition = "aws", dns_suffix = "amazonaws.com" }
  }

  override_data {
    target = data.aws_iam_openid_connect_provider.cluster
    values = { url = "https://oidc.example.com/id/1" }
  }

  override_resource {
    target = aws_launch_template.gpu
    values = { id = "lt-1" }
  }

  override_resource {
    target = aws_sqs_queue.tasks
    values = { arn = "arn:aws:sqs:ap-southeast-2:123456789012:gm-ls" }
  }

  override_resource {
    target = aws_sqs_queue.dead
    values = { arn = "arn:aws:sqs:ap-southeast-2:123456789012:gm-ls-deadletter" }
  }

  override_resource {
    target = aws_iam_role.worker
    values = { arn = "arn:aws:iam::123456789012:role/gm-ls-worker" }
  }

  override_resource {
    target = aws_iam_role.node
    values = { arn = "arn:aws:iam::123456789012:role/gm-ls-gpu-node" }
  }
}

variables {
  stats_process      = "gm-ls"
  destination_bucket = "odc-stats-output"
  destination_path   = "/derivative/gm/"
  test_bucket        = "odc-stats-test"
  cluster_id         = "analysis"
  owner              = "earth-observation"
}

run "the_old_inputs_are_enough" {
  assert {
    condition     = aws_sqs_queue.tasks.name == "gm-ls" && aws_sqs_queue.dead.name == "gm-ls-deadletter"
    error_message = "queues are named after the process"
  }

  assert {
    condition = jsondecode(aws_sqs_queue.tasks.redrive_policy) == {
      deadLetterTargetArn = aws_sqs_queue.dead.arn
      maxReceiveCount     = 3
    }
    error_message = "three receives, then the dead-letter queue"
  }

  assert {
    condition     = jsondecode(aws_sqs_queue_redrive_allow_policy.dead.redrive_allow_policy).sourceQueueArns == [aws_sqs_queue.tasks.arn]
    error_message = "only our queue may send its dead there"
  }

  assert {
    condition     = aws_sqs_queue.tasks.sqs_managed_sse_enabled && aws_sqs_queue.dead.sqs_managed_sse_enabled
    error_message = "both are encrypted"
  }

  assert {
    condition     = length(aws_eks_pod_identity_association.worker) == 1 && length(aws_eks_node_group.gpu) == 0
    error_message = "pod identity, and no nodes: Karpenter's"
  }

  assert {
    condition     = output.output_location == "s3://odc-stats-output/derivative/gm"
    error_message = "slashes around the path don't matter"
  }

  assert {
    condition     = aws_sqs_queue.tasks.tags.owner == "earth-observation"
    error_message = "the owner is a tag"
  }
}

run "nodes_irsa_and_a_key_on_request" {
  variables {
    use_irsa          = true
    oidc_provider_arn = "arn:aws:iam::123456789012:oidc-provider/oidc.example.com/id/1"
    gpu_node_group    = true
    subnet_ids        = ["subnet-1"]
    kms_key_arn       = "arn:aws:kms:ap-southeast-2:123456789012:key/1"
    fifo              = true
  }

  assert {
    condition     = length(aws_eks_pod_identity_association.worker) == 0 && length(aws_eks_node_group.gpu) == 1
    error_message = "a node group, and roles through OIDC"
  }

  assert {
    condition     = aws_eks_node_group.gpu[0].scaling_config[0].min_size == 0
    error_message = "it scales to zero"
  }

  assert {
    condition     = endswith(aws_sqs_queue.tasks.name, ".fifo") && endswith(aws_sqs_queue.dead.name, ".fifo")
    error_message = "FIFO queues are named so"
  }
}

run "a_whole_bucket_is_refused" {
  command = plan

  variables {
    destination_path = " / "
  }

  expect_failures = [var.destination_path]
}

run "nodes_need_subnets" {
  command = plan

  variables {
    gpu_node_group = true
  }

  expect_failures = [aws_eks_node_group.gpu]
}
