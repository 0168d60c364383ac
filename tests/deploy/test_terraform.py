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


def test_role_has_no_wildcard_rights(module):
    (document,) = [
        b for (t, n), b in resources(module, "data").items()
        if (t, n) == ("aws_iam_policy_document", "worker")
    ]  # fmt: skip
    text = str(document)
    actions = set(re.findall(r"(?:sqs|s3|kms):[A-Za-z*]+", text))
    assert not {a for a in actions if "*" in a}
    assert {"sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility"} <= actions
    assert {"sqs:SendMessage", "sqs:GetQueueAttributes", "sqs:GetQueueUrl"} <= actions
    assert {"s3:GetObject", "s3:PutObject", "s3:DeleteObject"} <= actions
    assert not actions & {"s3:PutBucketPolicy", "s3:DeleteBucket", "sqs:PurgeQueue"}
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


@needs_terraform
def test_terraform_validates_the_examples_and_with_them_the_module(tmp_path):
    pattern = "*/registry.terraform.io/hashicorp/aws"
    plugins = next((p.parents[2] for place in PLACES for p in Path(place).glob(pattern)), None)
    if plugins is None:
        pytest.skip("no aws provider on disk: terraform validate is not run")
    shutil.copytree(MODULE, tmp_path / "statistician")
    for name in ("minimal", "managed-nodes"):
        folder = tmp_path / "statistician/examples" / name
        done = terraform(folder, "init", "-backend=false", f"-plugin-dir={plugins}", "-no-color")
        assert done.returncode == 0, done.stderr
        done = terraform(folder, "validate", "-no-color")
        assert done.returncode == 0, done.stdout + done.stderr
