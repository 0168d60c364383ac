"""deploy/kubernetes: valid, and the same as what `k8s render` writes."""

from __future__ import annotations

import copy
import importlib.util
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from odc_stats_gpu.cli._app import app
from odc_stats_gpu.cli._yaml import read_mapping
from odc_stats_gpu.fleet import parse_job, render
from odc_stats_gpu.fleet._spec import GPUS

OVERLAYS = {
    "cpu": {"gpu": "none", "replicas": 1, "resources": {"cpu": "2", "memory": "4Gi"}},
    "gpu-spot": {"replicas": 10},
    "gpu-on-demand": {"replicas": 10, "capacity": "on-demand"},
    "keda-gpu-spot": {"replicas": 10, "kind": "scaledjob"},
}
needs_kubectl = pytest.mark.skipif(
    shutil.which("kubectl") is None, reason="no kubectl here: overlays are not rendered"
)


def job_file(folder, **change):
    config = yaml.safe_load((folder / "base/common/config.yaml").read_text())
    gpu = change.get("gpu") != "none"
    return parse_job(
        {
            "name": "odc-stats-worker", "queue": "odc-stats", "region": "ap-southeast-2",
            "image": "odc-stats-gpu:gpu" if gpu else "odc-stats-gpu:cpu", "config": config,
        } | change
    )  # fmt: skip


def by_kind(manifests):
    """Kind to manifest; the configuration as read, order of variables and tolerations aside."""
    out = {}
    for m in manifests:
        if m["kind"] == "ConfigMap":
            m["data"] = {k: yaml.safe_load(v) for k, v in m["data"].items()}
        spec = m.get("spec", {})
        for inner in (spec.get("template"), spec.get("jobTargetRef", {}).get("template")):
            if inner:
                inner["spec"]["containers"][0]["env"].sort(key=lambda e: e["name"])
        out[m["kind"]] = m
    return out


@pytest.fixture(scope="module")
def built(kubernetes_dir):
    """Overlay to its manifests, by a reader of our own."""
    spec = importlib.util.spec_from_file_location(
        "reader", Path(__file__).with_name("kustomize.py")
    )
    reader = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reader)
    return {name: reader.build(kubernetes_dir / "overlays" / name) for name in OVERLAYS}


def test_every_overlay_is_known_here(kubernetes_dir):
    assert {p.name for p in (kubernetes_dir / "overlays").iterdir()} == set(OVERLAYS)


@pytest.mark.parametrize("name", OVERLAYS)
def test_overlays_are_valid_and_equal_to_render(name, built, kubernetes_dir, validate):
    manifests = copy.deepcopy(built[name])
    for manifest in manifests:
        validate(manifest)
    spec = job_file(kubernetes_dir, **OVERLAYS[name])
    found = by_kind(manifests)
    assert found.pop("Namespace")["metadata"]["name"] == spec.namespace
    assert found == by_kind(render(spec).values())


@needs_kubectl
@pytest.mark.parametrize("name", OVERLAYS)
def test_kubectl_builds_the_same(name, built, kubernetes_dir):
    done = subprocess.run(
        ["kubectl", "kustomize", str(kubernetes_dir / "overlays" / name)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert by_kind(yaml.safe_load_all(done.stdout)) == by_kind(copy.deepcopy(built[name]))


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_clause_holds_in_every_overlay(name, built):
    """What a fleet on interruptible GPU nodes must have, looked up one by one."""
    kinds = {m["kind"]: m for m in built[name]}
    work = kinds["ScaledJob"]["spec"]["jobTargetRef"] if "ScaledJob" in kinds else None
    job = work or kinds["Job"]["spec"]
    rules = [
        (r["action"], tuple(r.get("onExitCodes", {}).get("values", ())),
         tuple(c["type"] for c in r.get("onPodConditions", ())))
        for r in job["podFailurePolicy"]["rules"]
    ]  # fmt: skip
    assert rules == [
        ("FailJob", (2,), ()),
        ("Ignore", (3,), ()),
        ("Ignore", (), ("DisruptionTarget",)),
    ]
    assert job["ttlSecondsAfterFinished"] > 0
    pod = job["template"]["spec"]
    assert job["template"]["metadata"]["annotations"]["karpenter.sh/do-not-disrupt"] == "true"
    assert pod["restartPolicy"] == "Never"
    assert pod["terminationGracePeriodSeconds"] >= 30  # work is handed back in 5, gone in 10
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["serviceAccountName"] == kinds["ServiceAccount"]["metadata"]["name"]
    (worker,) = pod["containers"]
    assert worker["securityContext"]["readOnlyRootFilesystem"]
    volumes = {v["name"]: v for v in pod["volumes"]}
    mounts = {m["mountPath"]: m for m in worker["volumeMounts"]}
    assert all("emptyDir" in volumes[mounts[p]["name"]] for p in ("/scratch", "/cache", "/tmp"))
    assert (
        volumes[mounts["/etc/odc-stats"]["name"]]["configMap"]["name"]
        == (kinds["ConfigMap"]["metadata"]["name"])
    )
    assert "config.yaml" in kinds["ConfigMap"]["data"]
    gpu = name != "cpu"
    limits = worker["resources"]["limits"]
    assert limits == worker["resources"]["requests"]
    assert limits.get("nvidia.com/gpu") == ("1" if gpu else None)
    assert {"cpu", "memory", "ephemeral-storage"} <= set(limits)
    room = sum(gibibytes(v["emptyDir"]["sizeLimit"]) for v in volumes.values() if "emptyDir" in v)
    assert gibibytes(limits["ephemeral-storage"]) > room, "a full volume would evict the pod"
    assert worker["image"].endswith(":gpu" if gpu else ":cpu")
    assert ("tolerations" in pod) == gpu
    # metrics and heartbeat: where the worker has them is where they are looked for
    options = dict(a.lstrip("-").split("=", 1) for a in worker["args"][1:])
    (port,) = worker["ports"]
    (scraped,) = kinds["PodMonitor"]["spec"]["podMetricsEndpoints"]
    assert (port["name"], str(port["containerPort"])) == (scraped["port"], options["metrics-port"])
    assert kinds["PodMonitor"]["spec"]["selector"]["matchLabels"].items() <= (
        job["template"]["metadata"]["labels"].items()
    )
    beat = options["heartbeat-filepath"]
    assert worker["startupProbe"]["exec"]["command"] == ["test", "-e", beat]
    assert beat in worker["livenessProbe"]["exec"]["command"][-1]
    assert options["config"] == "/etc/odc-stats/config.yaml"
    # the command line reads it, as the image's entry point gets it
    command = get_command(app).commands[worker["args"][0]]
    assert command.make_context("run", worker["args"][1:]).params["from_sqs"] == "odc-stats"


def gibibytes(quantity):
    return float(quantity.removesuffix("Gi"))


@pytest.mark.parametrize("kind", ["job", "scaledjob"])
def test_base_is_what_render_writes(kind, kubernetes_dir, validate):
    """Also where there is no kubectl."""
    base = kubernetes_dir / "base"
    rendered = render(job_file(kubernetes_dir, gpu="none", replicas=10, kind=kind))
    for name, manifest in rendered.items():
        if name == "config.yaml":
            assert yaml.safe_load((base / "common" / name).read_text())
            continue
        path = next(p for p in (base / "common" / name, base / kind / name) if p.exists())
        written = yaml.safe_load(path.read_text())
        validate(written)
        assert manifest["metadata"].pop("namespace") == "odc-stats"  # kustomize sets it
        assert written == manifest


def test_kustomizations_name_files_that_exist(kubernetes_dir):
    folders = [p.parent for p in kubernetes_dir.rglob("kustomization.yaml")]
    assert len(folders) >= 10
    for folder in folders:
        doc = yaml.safe_load((folder / "kustomization.yaml").read_text())
        assert doc["kind"] in {"Kustomization", "Component"}
        for name in (*doc.get("resources", ()), *doc.get("components", ())):
            path = folder / name
            assert path.is_file() or (path / "kustomization.yaml").is_file(), path
        for patch in doc.get("patches", ()):
            assert all("path" in op for op in yaml.safe_load(patch["patch"]))


def test_node_pool_serves_the_workers(kubernetes_dir, validate):
    nodes = kubernetes_dir / "nodes"
    pool = yaml.safe_load((nodes / "nodepool-gpu.yaml").read_text())
    node_class = yaml.safe_load((nodes / "ec2nodeclass.yaml").read_text())
    validate(pool)
    validate(node_class)
    spec = pool["spec"]["template"]["spec"]
    assert spec["nodeClassRef"]["name"] == node_class["metadata"]["name"]
    needs = {r["key"]: r["values"] for r in spec["requirements"]}
    assert needs["karpenter.sh/capacity-type"] == ["spot", "on-demand"]
    assert {"g4dn", "g5", "g6", "g6e", "p5"} <= set(needs["karpenter.k8s.aws/instance-family"])
    pod = render(job_file(kubernetes_dir))["job.yaml"]["spec"]["template"]["spec"]
    tolerated = {(t["key"], t["effect"]) for t in pod["tolerations"]}
    assert {(t["key"], t["effect"]) for t in spec["taints"]} <= tolerated
    smallest = int(needs["karpenter.k8s.aws/instance-cpu"][0]) + 1
    assert float(pod["containers"][0]["resources"]["requests"]["cpu"]) < smallest
    assert pool["spec"]["limits"]["nvidia.com/gpu"]


def test_the_example_job_renders(kubernetes_dir, validate):
    file = kubernetes_dir / "example/job.yaml"
    raw = read_mapping(str(file), "--config")
    raw["config"] = read_mapping(str(file.parent / raw["config"]), "config")
    for manifest in render(parse_job(raw)).values():
        validate(manifest)


def test_the_pool_has_nodes_with_every_gpu_that_a_job_may_name(kubernetes_dir):
    pool = yaml.safe_load((kubernetes_dir / "nodes/nodepool-gpu.yaml").read_text())
    needs = {r["key"]: r["values"] for r in pool["spec"]["template"]["spec"]["requirements"]}
    families = {
        "t4": "g4dn", "a10g": "g5", "l4": "g6", "l40s": "g6e", "a100": "p4d", "h100": "p5",
        "h200": "p5en", "b200": "p6-b200",
    }  # fmt: skip
    assert set(families) == set(GPUS)
    assert set(families.values()) <= set(needs["karpenter.k8s.aws/instance-family"])


def started(strategy, messages, per_worker, most, polls=10):
    """Workers that KEDA starts for messages that all take longer than these polls."""
    running = 0
    for _ in range(polls):
        in_flight = min(running, messages)
        length = messages if strategy["scaleOnInFlight"] == "true" else messages - in_flight
        wanted = min(most, -(-length // per_worker))
        if strategy["strategy"] == "default":
            new = wanted - running
        else:  # accurate: none is pending, all run at once
            new = most - running if wanted + running > most else wanted
        running += max(0, new)
    return running


def test_keda_starts_no_more_workers_than_the_queue_is_worth(kubernetes_dir):
    spec = yaml.safe_load((kubernetes_dir / "base/scaledjob/scaledjob.yaml").read_text())["spec"]
    (trigger,) = spec["triggers"]
    ours = {**spec["scalingStrategy"], **trigger["metadata"]}
    assert started(ours, 100, 5, 300) == 20
    assert started(ours, 3, 5, 300) == 1
    assert started(ours, 0, 5, 300) == 0
    assert started(ours, 9000, 5, 300) == 300
    # why not the other one: it would run a worker for nearly every message
    assert started({"strategy": "accurate", "scaleOnInFlight": "false"}, 100, 5, 300) > 50
