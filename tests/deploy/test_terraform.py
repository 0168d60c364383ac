"""deploy/terraform/statistician: formatted, valid, least privilege."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import hcl2
import pytest

ROOT = Path(__file__).parents[2]
MODULE = ROOT / "deploy/terraform/statistician"
PLACES = ("/opt", "/usr/share", "/usr/local/share", Path.home() / ".terraform.d")
"""Where a mirror of providers may lie, as `-plugin-dir` wants it, in a folder of any name."""


def bare(value):
    """hcl2 leaves quotes around keys and texts: take them off, recursively."""
    if isinstance(value, dict):
        return {bare(k): bare(v) for k, v in value.items() if not str(k).startswith("__")}
    if isinstance(value, list):
        return [bare(v) for v in value]
    if isinstance(value, str) and len(value) > 1 and value[0] == value[-1] == '"':
        return value[1:-1]
    return value


def load(folder):
    out = {}
    for path in sorted(folder.glob("*.tf")):
        with path.open() as file:
            for kind, blocks in bare(hcl2.load(file)).items():
                out.setdefault(kind, []).extend(blocks if isinstance(blocks, list) else [blocks])
    return out


@pytest.fixture(scope="module")
def module():
    return load(MODULE)


def named(blocks):
    return {name: body for block in blocks for name, body in block.items()}


def resources(module, kind="resource"):
    return {(t, n): b for block in module[kind] for t, x in block.items() for n, b in x.items()}


def test_takes_the_variables_of_the_old_module(module):
    variables = named(module["variable"])
    asked = {"stats_process", "destination_bucket", "destination_path", "test_bucket"}
    assert asked | {"cluster_id", "owner"} <= set(variables)
    required = {n for n, v in variables.items() if "default" not in v}
    assert required == (asked | {"cluster_id", "owner"}) - {"test_bucket"}
    for name, body in variables.items():
        assert body["description"], name
        assert body["type"], name


def test_every_variable_is_used_and_every_one_used_is_declared(module):
    text = "\n".join(p.read_text() for p in MODULE.glob("*.tf"))
    assert set(re.findall(r"\bvar\.([a-z0-9_]+)", text)) == set(named(module["variable"]))


def test_queue_gives_up_after_three_receives(module):
    found = resources(module)
    tasks, dead = found["aws_sqs_queue", "tasks"], found["aws_sqs_queue", "dead"]
    assert named(module["variable"])["max_receives"]["default"] == 3
    assert "aws_sqs_queue.dead.arn" in str(tasks["redrive_policy"])
    assert "var.max_receives" in str(tasks["redrive_policy"])
    allow = found["aws_sqs_queue_redrive_allow_policy", "dead"]
    assert "byQueue" in str(allow["redrive_allow_policy"])
    for queue in (tasks, dead):
        assert "true" in str(queue["sqs_managed_sse_enabled"])
        assert queue["message_retention_seconds"] == 1209600


NEEDS = {
    "receive_message": {"sqs:ReceiveMessage"},
    "delete_message": {"sqs:DeleteMessage"},
    "delete_message_batch": {"sqs:DeleteMessage"},
    "change_message_visibility": {"sqs:ChangeMessageVisibility"},
    "change_message_visibility_batch": {"sqs:ChangeMessageVisibility"},
    "send_message": {"sqs:SendMessage"},
    "send_message_batch": {"sqs:SendMessage"},
    "get_queue_attributes": {"sqs:GetQueueAttributes"},
    "get_queue_url": {"sqs:GetQueueUrl"},
    "list_dead_letter_source_queues": {"sqs:ListDeadLetterSourceQueues"},
    "start_message_move_task": {"sqs:StartMessageMoveTask"},
    "get_metric_statistics": {"cloudwatch:GetMetricStatistics"},
    "head_object": {"s3:GetObject", "s3:ListBucket"},  # without the latter absent is 403
    "get_object": {"s3:GetObject"},
    "put_object": {"s3:PutObject"},
    "delete_object": {"s3:DeleteObject"},
    "create_multipart_upload": {"s3:PutObject"},
    "upload_part": {"s3:PutObject"},
    "complete_multipart_upload": {"s3:PutObject"},
    "abort_multipart_upload": {"s3:AbortMultipartUpload"},
    "list_multipart_uploads": {"s3:ListBucketMultipartUploads"},
    "list_objects_v2": {"s3:ListBucket"},
}
"""Calls of boto3 and the rights they take."""


def granted(node):
    return set(re.findall(r"(?:sqs|s3|kms|cloudwatch):[A-Z*][A-Za-z*]*", str(node)))


def test_role_may_do_what_the_code_calls(module):
    import boto3

    known = set().union(
        *(dir(boto3.client(n, region_name="us-east-1")) for n in ("sqs", "s3", "cloudwatch"))
    )
    calls = set()
    for room in ("queue", "output", "ingest", "tasks"):
        for path in (ROOT / "odc_stats_gpu" / room).rglob("*.py"):
            text = path.read_text()
            calls |= set(re.findall(r'\.([a-z]\w+_\w+)\(|get_paginator\("(\w+)"', text))
    used = {name for pair in calls for name in pair if name} & known - {"get_paginator"}
    used |= {"list_objects_v2", "list_dead_letter_source_queues"}
    assert len(used) > 10
    assert used <= set(NEEDS), "say what rights these take"
    found = resources(module, "data")["aws_iam_policy_document", "worker"]
    wanted = set().union(*(NEEDS[name] for name in used))
    assert wanted <= granted(found), wanted - granted(found)
    assert granted(found) - wanted <= {
        "s3:ListMultipartUploadParts", "s3:PutObjectAcl", "kms:Decrypt", "kms:GenerateDataKey",
    }  # fmt: skip


def test_role_has_no_wildcard_rights(module):
    (document,) = [
        b for (t, n), b in resources(module, "data").items()
        if (t, n) == ("aws_iam_policy_document", "worker")
    ]  # fmt: skip
    actions = granted(document)
    assert not {a for a in actions if "*" in a}
    assert not actions & {"s3:PutBucketPolicy", "s3:DeleteBucket", "sqs:PurgeQueue"}
    everywhere = {
        a for s in document["statement"] if s["resources"] == ["*"] for a in granted(s)
    }  # fmt: skip
    assert everywhere == {"cloudwatch:GetMetricStatistics"}  # it can't be narrowed
    outputs = next(s for s in document["statement"] if s["sid"] == "Outputs")
    assert "local.path" in str(outputs["resources"])


def test_what_costs_money_is_off(module):
    variables = named(module["variable"])
    assert variables["gpu_node_group"]["default"] is False
    for (kind, name), body in resources(module).items():
        if kind.startswith(("aws_eks_node_group", "aws_launch_template")):
            assert "var.gpu_node_group" in str(body["count"]), name
    scaling = resources(module)["aws_eks_node_group", "gpu"]["scaling_config"]
    scaling = scaling[0] if isinstance(scaling, list) else scaling
    assert (scaling["min_size"], scaling["desired_size"]) == (0, 0)


def test_identity_is_pod_identity_unless_irsa_is_asked_for(module):
    assert named(module["variable"])["use_irsa"]["default"] is False
    association = resources(module)["aws_eks_pod_identity_association", "worker"]
    assert association["count"] == "${var.use_irsa ? 0 : 1}"


def test_alarms_watch_dead_tasks_and_age(module):
    alarms = {n: b for (t, n), b in resources(module).items() if t.endswith("metric_alarm")}
    assert alarms["dead"]["metric_name"] == "ApproximateNumberOfMessagesVisible"
    assert "dead" in str(alarms["dead"]["dimensions"])
    assert alarms["oldest"]["metric_name"] == "ApproximateAgeOfOldestMessage"


@pytest.mark.parametrize("name", ["minimal", "managed-nodes"])
def test_examples_give_what_the_module_needs(module, name):
    (call,) = named(load(MODULE / "examples" / name)["module"]).values()
    assert (MODULE / "examples" / name / call["source"]).resolve() == MODULE
    variables = named(module["variable"])
    assert {n for n, v in variables.items() if "default" not in v} <= set(call)
    assert set(call) - {"source"} <= set(variables)


def test_service_account_is_the_one_of_the_manifests(module):
    from odc_stats_gpu.fleet import JobSpec

    variables = named(module["variable"])
    for key in ("namespace", "service_account"):
        assert variables[key]["default"] == JobSpec.model_fields[key].default


needs_terraform = pytest.mark.skipif(
    shutil.which("terraform") is None, reason="no terraform here: its own checks are not run"
)


def terraform(folder, *arguments):
    env = {k: v for k, v in os.environ.items() if not k.startswith("TF_")}
    env["TF_IN_AUTOMATION"] = "1"
    return subprocess.run(
        ["terraform", *arguments], cwd=folder, env=env, capture_output=True, text=True, check=False
    )


@needs_terraform
def test_formatted_as_terraform_does():
    done = terraform(MODULE.parent, "fmt", "-check", "-recursive", "-diff")
    assert done.returncode == 0, done.stdout


@pytest.fixture
def plugins():
    pattern = "*/registry.terraform.io/hashicorp/aws"
    found = next((p.parents[2] for place in PLACES for p in Path(place).glob(pattern)), None)
    if found is None:
        pytest.skip("no aws provider on disk: terraform validate and terraform test are not run")
    return found


@needs_terraform
def test_terraform_validates_the_examples_and_with_them_the_module(tmp_path, plugins):
    shutil.copytree(MODULE, tmp_path / "statistician")
    for name in ("minimal", "managed-nodes"):
        folder = tmp_path / "statistician/examples" / name
        done = terraform(folder, "init", "-backend=false", f"-plugin-dir={plugins}", "-no-color")
        assert done.returncode == 0, done.stderr
        done = terraform(folder, "validate", "-no-color")
        assert done.returncode == 0, done.stdout + done.stderr


@needs_terraform
def test_the_module_passes_its_own_tests(tmp_path, plugins):
    """Plans with a mocked provider; older Terraforms know no mocks."""
    version = re.search(r"v(\d+)\.(\d+)", terraform(MODULE, "version").stdout)
    if tuple(map(int, version.groups())) < (1, 7):
        pytest.skip(f"terraform {version[0]} has no mock_provider: terraform test is not run")
    shutil.copytree(MODULE, tmp_path / "statistician")
    folder = tmp_path / "statistician"
    done = terraform(folder, "init", "-backend=false", f"-plugin-dir={plugins}", "-no-color")
    assert done.returncode == 0, done.stderr
    done = terraform(folder, "test", "-no-color")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 failed" in done.stdout
