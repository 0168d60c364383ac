output "queue_name" {
  description = "For publish-tasks, run --from-sqs, queue-status and the job file."
  value       = aws_sqs_queue.tasks.name
}

output "queue_url" {
  description = "URL of the queue."
  value       = aws_sqs_queue.tasks.url
}

output "queue_arn" {
  description = "ARN of the queue."
  value       = aws_sqs_queue.tasks.arn
}

output "dead_letter_queue_name" {
  description = "For redrive-queue."
  value       = aws_sqs_queue.dead.name
}

output "dead_letter_queue_arn" {
  description = "ARN of the dead-letter queue."
  value       = aws_sqs_queue.dead.arn
}

output "role_arn" {
  description = "Role of the workers; with use_irsa it is the job file's role_arn."
  value       = aws_iam_role.worker.arn
}

output "bucket_policy_json" {
  description = "Statements for the destination bucket's policy, where this module doesn't own it."
  value       = data.aws_iam_policy_document.bucket.json
}

output "output_location" {
  description = "For --location and output_location."
  value       = "s3://${var.destination_bucket}/${local.path}"
}
