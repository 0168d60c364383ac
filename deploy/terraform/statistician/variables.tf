variable "stats_process" {
  description = "Name of the process: the queue has it, and everything else starts with it."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,40}$", var.stats_process))
    error_message = "stats_process must be 2 to 41 lower-case letters, digits and hyphens, a letter first."
  }
}

variable "destination_bucket" {
  description = "Bucket that the tiles are written to."
  type        = string
}

variable "destination_path" {
  description = "Folder in the bucket; workers may write below it only. May not be empty."
  type        = string

  validation {
    condition     = trim(var.destination_path, "/ ") != ""
    error_message = "destination_path may not be empty: the role would own the whole bucket."
  }
}

variable "test_bucket" {
  description = "Bucket for trial runs, writable below destination_path too; null for none."
  type        = string
  default     = null
}

variable "cluster_id" {
  description = "Name of the EKS cluster."
  type        = string
}

variable "owner" {
  description = "Who answers for it; a tag on everything."
  type        = string
}

variable "input_buckets" {
  description = "Buckets that scenes are read from, as bucket or bucket/prefix."
  type        = list(string)
  default     = []
}

variable "taskdb_location" {
  description = "Where task databases lie, as bucket/prefix; null for destination_bucket below destination_path."
  type        = string
  default     = null
}

variable "public" {
  description = "Whether workers may make objects readable by everybody (run --public)."
  type        = bool
  default     = false
}

variable "manage_bucket_policy" {
  description = "Whether this module owns the destination bucket's policy; else use the output bucket_policy_json."
  type        = bool
  default     = false
}

variable "manage_bucket_lifecycle" {
  description = "Whether this module owns the destination bucket's lifecycle: unfinished uploads are removed after a day."
  type        = bool
  default     = false
}

variable "fifo" {
  description = "Whether the queues keep order by tile."
  type        = bool
  default     = false
}

variable "max_receives" {
  description = "Receives after which a message goes to the dead-letter queue; interruptions don't count."
  type        = number
  default     = 3
}

variable "visibility_timeout" {
  description = "Seconds for receivers that don't ask for a lease of their own, as ours do."
  type        = number
  default     = 300
}

variable "kms_key_arn" {
  description = "Key of the queues; null for the one that SQS keeps."
  type        = string
  default     = null
}

variable "namespace" {
  description = "Kubernetes namespace of the workers."
  type        = string
  default     = "odc-stats"
}

variable "service_account" {
  description = "Kubernetes service account of the workers."
  type        = string
  default     = "odc-stats"
}

variable "use_irsa" {
  description = "Whether the role is assumed through the cluster's OIDC provider instead of EKS pod identity."
  type        = bool
  default     = false
}

variable "oidc_provider_arn" {
  description = "The cluster's OIDC provider, for use_irsa."
  type        = string
  default     = null
}

variable "keda_role_arn" {
  description = "Role of KEDA's operator, which reads the queue's length; null without KEDA."
  type        = string
  default     = null
}

variable "alarm_actions" {
  description = "ARNs, such as an SNS topic, that hear of alarms."
  type        = list(string)
  default     = []
}

variable "alarm_oldest_age" {
  description = "Seconds that a message may wait before somebody is told."
  type        = number
  default     = 21600
}

variable "gpu_node_group" {
  description = "Whether to make a managed node group with GPUs. Off: Karpenter provides nodes (deploy/kubernetes/nodes)."
  type        = bool
  default     = false
}

variable "gpu_instance_types" {
  description = "Instance types of the node group."
  type        = list(string)
  default     = ["g6.2xlarge", "g5.2xlarge", "g4dn.2xlarge"]
}

variable "gpu_capacity_type" {
  description = "SPOT or ON_DEMAND."
  type        = string
  default     = "SPOT"

  validation {
    condition     = contains(["SPOT", "ON_DEMAND"], var.gpu_capacity_type)
    error_message = "gpu_capacity_type must be SPOT or ON_DEMAND."
  }
}

variable "gpu_max_nodes" {
  description = "Most nodes of the group."
  type        = number
  default     = 10
}

variable "subnet_ids" {
  description = "Subnets of the node group."
  type        = list(string)
  default     = []
}

variable "tags" {
  description = "More tags."
  type        = map(string)
  default     = {}
}
