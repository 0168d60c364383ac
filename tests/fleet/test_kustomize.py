"""deploy/kubernetes: valid, and the same as what `k8s render` writes."""

from __future__ import annotations

import shutil
import subprocess

import pytest
import yaml

from odc_stats_gpu.cli._yaml import read_mapping
from odc_stats_gpu.fleet import parse_job, render

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


@needs_kubectl
@pytest.mark.parametrize("name", OVERLAYS)
def test_overlays_are_valid_and_equal_to_render(name, kubernetes_dir, validate):
    done = subprocess.run(
        ["kubectl", "kustomize", str(kubernetes_dir / "overlays" / name)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    built = list(yaml.safe_load_all(done.stdout))
    for manifest in built:
        validate(manifest)
    spec = job_file(kubernetes_dir, **OVERLAYS[name])
    found = by_kind(built)
    assert found.pop("Namespace")["metadata"]["name"] == spec.namespace
    assert found == by_kind(render(spec).values())


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
