provider "aws" {
  region = "ap-southeast-2"
}

module "statistician" {
  source = "../.."

  stats_process      = "gm-ls"
  destination_bucket = "odc-stats-output"
  destination_path   = "derivative/ga_ls8c_nbart_gm_cyear_3"
  test_bucket        = "odc-stats-test"
  cluster_id         = "analysis"
  owner              = "earth-observation"

  input_buckets = ["dea-public-data/baseline"]
}

output "queue" {
  value = module.statistician.queue_name
}
