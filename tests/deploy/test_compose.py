"""docker/compose.yaml: a fleet that holds together, as far as that shows without an engine."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import boto3
import pytest
import yaml
from moto import mock_aws

DOCKER = Path(__file__).parents[2] / "docker"
COMPOSE = yaml.safe_load((DOCKER / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]
KEYS = {
    "image", "build", "command", "entrypoint", "environment", "labels", "depends_on", "restart",
    "stop_grace_period", "read_only", "user", "cap_drop", "security_opt", "cpus", "mem_limit",
    "tmpfs", "volumes", "profiles", "working_dir", "ports", "healthcheck",
}  # fmt: skip


def test_the_fleet_is_complete():
    images = {n: s["image"].partition(":")[0].rpartition("/")[2] for n, s in SERVICES.items()}
    assert {"moto", "postgres", "prometheus", "loki", "alloy", "grafana"} <= set(images.values())
    assert [n for n, s in SERVICES.items() if "--from-sqs=laptop" in s.get("command", ())] == [
        "worker-1",
        "worker-2",
    ]


@pytest.mark.parametrize("name", SERVICES)
def test_service_names_what_exists(name):
    service = SERVICES[name]
    assert set(service) <= KEYS
    tag = service["image"].rpartition(":")[2]
    assert tag
    assert tag != "latest"
    for other in service.get("depends_on", ()):
        assert other in SERVICES
        condition = isinstance(service["depends_on"], dict) and service["depends_on"][other]
        if condition == {"condition": "service_healthy"}:
            assert SERVICES[other]["healthcheck"]["test"]
    for volume in service.get("volumes", ()):
        source = re.sub(r"\$\{\w+:-([^}]+)\}", r"\1", volume).split(":")[0]
        if source.startswith((".", "/")):
            known = source in {"/var/run/docker.sock", "./data"}
            assert known or (DOCKER / source).exists(), source
        else:
            assert source in COMPOSE["volumes"]
    if "build" in service:
        dockerfile = DOCKER / service["build"]["context"] / service["build"]["dockerfile"]
        assert re.search(rf"(?m)^FROM \S+ AS {service['build']['target']}$", dockerfile.read_text())


def test_ports_are_open_to_this_machine_only():
    for name, service in SERVICES.items():
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), name


def test_prometheus_scrapes_both_workers_where_they_answer():
    doc = yaml.safe_load((DOCKER / "laptop/prometheus.yaml").read_text())
    found = {
        t: c["labels"] for s in doc["scrape_configs"] for c in s["static_configs"]
        for t in c["targets"]
    }  # fmt: skip
    for name in ("worker-1", "worker-2"):
        (port,) = [c.partition("=")[2] for c in SERVICES[name]["command"] if "metrics-port" in c]
        assert found[f"{name}:{port}"] == {"job_name": "laptop", "pod": name}
        assert SERVICES[name]["labels"]["job_name"] == "laptop"
    mounted = [v.split(":")[1] for v in SERVICES["prometheus"]["volumes"]]
    assert set(doc["rule_files"]) <= set(mounted)


def test_grafana_finds_its_sources_and_dashboards():
    root = DOCKER.parent / "deploy/grafana/provisioning"
    sources = yaml.safe_load((root / "datasources/datasources.yaml").read_text())["datasources"]
    for source in sources:
        host = re.match(r"http://([a-z]+):\d+$", source["url"])[1]
        assert host in SERVICES
    providers = yaml.safe_load((root / "dashboards/dashboards.yaml").read_text())["providers"]
    folder = providers[0]["options"]["path"]
    targets = [v.split(":")[1] for v in SERVICES["grafana"]["volumes"]]
    assert {f"{folder}/fleet.json", f"{folder}/pod.json"} <= set(targets)


def test_workers_get_a_configuration_that_run_accepts():
    from odc_stats_gpu.model import parse_config

    config = parse_config(yaml.safe_load((DOCKER / "laptop/config.yaml").read_text()))
    assert config.output_location.startswith("s3://laptop/")


@mock_aws
def test_setup_makes_queues_that_belong_together_and_may_run_twice(monkeypatch):
    for key, value in SERVICES["setup"]["environment"].items():
        if key != "AWS_ENDPOINT_URL":
            monkeypatch.setenv(key, value)
    path = DOCKER / "laptop/setup.py"
    for _ in range(2):
        spec = importlib.util.spec_from_file_location("laptop_setup", path)
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
    sqs = boto3.client("sqs")
    url = sqs.get_queue_url(QueueName="laptop")["QueueUrl"]
    attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    policy = json.loads(attributes["RedrivePolicy"])
    assert policy["deadLetterTargetArn"].endswith(":laptop-deadletter")
    assert boto3.client("s3").list_buckets()["Buckets"][0]["Name"] == "laptop"


def braces(text):
    """Depth at the end and the lowest one on the way, texts and comments left out."""
    depth = low = 0
    for char in re.sub(r'"[^"\n]*"|//[^\n]*', "", text):
        depth += {"{": 1, "[": 1, "(": 1, "}": -1, "]": -1, ")": -1}.get(char, 0)
        low = min(low, depth)
    return depth, low


@pytest.mark.parametrize(
    "path", [DOCKER / "laptop/config.alloy", DOCKER.parent / "deploy/alloy/kubernetes.alloy"]
)
def test_alloy_forwards_to_components_that_exist_and_labels_by_job(path):
    text = path.read_text()
    assert braces(text) == (0, 0)
    blocks = {f"{a}.{b}" for a, b in re.findall(r'(?m)^([a-z.]+) "(\w+)" \{', text)}
    for used in re.findall(r"= \[?([a-z_.]+)\.(?:targets|output|receiver)\b", text):
        assert used in blocks, used
    assert 'target_label  = "job_name"' in text
    assert 'target_label  = "pod"' in text


def test_loki_keeps_its_index_for_a_schema_it_knows():
    doc = yaml.safe_load((DOCKER / "laptop/loki.yaml").read_text())
    (period,) = doc["schema_config"]["configs"]
    assert (period["store"], period["schema"]) == ("tsdb", "v13")
    assert doc["server"]["http_listen_port"] == 3100
