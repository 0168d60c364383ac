# No Karpenter in the cluster, roles through the OIDC provider, the bucket's policy owned here.
provider "aws" {
  region = "ap-southeast-2"
}

module "statistician" {
  source = "../.."

  stats_process      = "gm-s2"
  destination_bucket = "odc-stats-output"
  destination_path   = "derivative/ga_s2_gm_cyear_3"
  cluster_id         = "analysis"
  owner              = "earth-observation"

  use_irsa             = true
  oidc_provider_arn    = "arn:aws:iam::123456789012:oidc-provider/oidc.eks.ap-southeast-2.amazonaws.com/id/EXAMPLE"
  manage_bucket_policy = true
  public               = true
  gpu_node_group       = true
  subnet_ids           = ["subnet-0123456789abcdef0"]
  alarm_actions        = ["arn:aws:sns:ap-southeast-2:123456789012:operators"]
}
