"""Make the laptop fleet's bucket and queues; harmless the second time."""

import json

import boto3

QUEUE, BUCKET = "laptop", "laptop"
sqs, s3 = boto3.client("sqs"), boto3.client("s3")
dead = sqs.create_queue(QueueName=f"{QUEUE}-deadletter")["QueueUrl"]
arn = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
policy = {"deadLetterTargetArn": arn, "maxReceiveCount": 3}
sqs.create_queue(QueueName=QUEUE, Attributes={"RedrivePolicy": json.dumps(policy)})
if BUCKET not in {b["Name"] for b in s3.list_buckets()["Buckets"]}:
    place = {"LocationConstraint": s3.meta.region_name}
    s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration=place)
