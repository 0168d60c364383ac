# Only where Karpenter isn't: a managed node group that an autoscaler may take to zero.

data "aws_iam_policy_document" "node_trust" {
  count = var.gpu_node_group ? 1 : 0

  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["ec2.${data.aws_partition.current.dns_suffix}"]
    }
  }
}

resource "aws_iam_role" "node" {
  count              = var.gpu_node_group ? 1 : 0
  name               = "${var.stats_process}-gpu-node"
  assume_role_policy = data.aws_iam_policy_document.node_trust[0].json
  tags               = local.tags
}

resource "aws_iam_role_policy_attachment" "node" {
  for_each = var.gpu_node_group ? toset([
    "AmazonEKSWorkerNodePolicy",
    "AmazonEKS_CNI_Policy",
    "AmazonEC2ContainerRegistryReadOnly",
  ]) : toset([])

  role       = aws_iam_role.node[0].name
  policy_arn = "arn:${data.aws_partition.current.partition}:iam::aws:policy/${each.value}"
}

resource "aws_launch_template" "gpu" {
  count                  = var.gpu_node_group ? 1 : 0
  name_prefix            = "${var.stats_process}-gpu-"
  update_default_version = true
  tags                   = local.tags

  block_device_mappings {
    device_name = "/dev/xvda"

    ebs {
      volume_type           = "gp3"
      volume_size           = 100
      encrypted             = true
      delete_on_termination = true
    }
  }

  metadata_options {
    http_tokens                 = "required"
    http_put_response_hop_limit = 1 # pods have an identity of their own
  }
}

resource "aws_eks_node_group" "gpu" {
  count           = var.gpu_node_group ? 1 : 0
  cluster_name    = var.cluster_id
  node_group_name = "${var.stats_process}-gpu"
  node_role_arn   = aws_iam_role.node[0].arn
  subnet_ids      = var.subnet_ids
  ami_type        = "AL2023_x86_64_NVIDIA"
  capacity_type   = var.gpu_capacity_type
  instance_types  = var.gpu_instance_types
  tags            = local.tags

  launch_template {
    id      = aws_launch_template.gpu[0].id
    version = aws_launch_template.gpu[0].latest_version
  }

  scaling_config {
    min_size     = 0
    desired_size = 0
    max_size     = var.gpu_max_nodes
  }

  labels = {
    workload = "odc-stats"
  }

  taint {
    key    = "nvidia.com/gpu"
    value  = "true"
    effect = "NO_SCHEDULE"
  }

  lifecycle {
    ignore_changes = [scaling_config[0].desired_size] # the autoscaler's

    precondition {
      condition     = length(var.subnet_ids) > 0
      error_message = "gpu_node_group needs subnet_ids."
    }
  }

  depends_on = [aws_iam_role_policy_attachment.node]
}
