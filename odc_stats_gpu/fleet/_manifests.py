"""The objects of a fleet: service account, configuration, Job or ScaledJob, PodMonitor."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from odc_stats_gpu.fleet._pod import failure_policy, labels, pod_template
from odc_stats_gpu.fleet._spec import JobSpec

Manifest = dict[str, Any]
_NUMBER_ELSEWHERE = re.compile(r"[-+]?[.\d][\d_.:]*([eE][-+]?\d+)?|0[xXoObB][0-9a-fA-F]+|[yYnN]")
"""Texts that PyYAML writes bare and kubectl's YAML reads as something else."""


def render(spec: JobSpec) -> dict[str, Manifest]:
    """File name to manifest, in the order in which they should be applied."""
    out = {"serviceaccount.yaml": _service_account(spec), "config.yaml": _config_map(spec)}
    if spec.kind == "job":
        out["job.yaml"] = _job(spec)
    else:
        out["triggerauthentication.yaml"] = _trigger_authentication(spec)
        out["scaledjob.yaml"] = _scaled_job(spec)
    if spec.pod_monitor:
        out["podmonitor.yaml"] = _pod_monitor(spec)
    return out


def kustomization(files: Iterable[str]) -> Manifest:
    """A kustomization of rendered files, for `kubectl apply -k`."""
    return {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": list(files),
    }


def as_yaml(manifests: Iterable[Mapping[str, Any]]) -> str:
    """One YAML stream; keys in the order given, texts of several lines as blocks."""
    import yaml

    class Dumper(yaml.SafeDumper):
        """Anchors would make the file shorter and nobody wiser."""

        def ignore_aliases(self, data: Any) -> bool:
            del data
            return True

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
        style = "|" if "\n" in value else "'" if _NUMBER_ELSEWHERE.fullmatch(value) else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    Dumper.add_representer(str, text)
    return "---\n".join(
        yaml.dump(dict(m), Dumper=Dumper, sort_keys=False, width=1000) for m in manifests
    )


def _meta(spec: JobSpec, name: str = "") -> dict[str, Any]:
    return {"name": name or spec.name, "namespace": spec.namespace, "labels": labels(spec)}


def _service_account(spec: JobSpec) -> Manifest:
    """Shared by the jobs of a namespace, hence without the name of one."""
    meta: dict[str, Any] = {
        "name": spec.service_account,
        "namespace": spec.namespace,
        "labels": {"app.kubernetes.io/name": "odc-stats-gpu"},
    }
    if spec.role_arn:
        meta["annotations"] = {"eks.amazonaws.com/role-arn": spec.role_arn}
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": meta,
        "automountServiceAccountToken": False,
    }


def _config_text(spec: JobSpec) -> str:
    return as_yaml([spec.run_config])


def _config_map(spec: JobSpec) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _meta(spec),
        "data": {"config.yaml": _config_text(spec)},
    }


def _job_spec(spec: JobSpec, workers: int) -> dict[str, Any]:
    """JobSpec of so many workers.

    completions = parallelism: a work-queue Job without completions starts no new pods after the
    first worker has left, so work that a reclaimed worker handed back late would stay undone.
    """
    return {
        "parallelism": workers,
        "completions": workers,
        "backoffLimit": max(6, workers),
        "ttlSecondsAfterFinished": spec.keep_finished,
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": failure_policy(),
        "template": pod_template(spec),
    }


def _job(spec: JobSpec) -> Manifest:
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": _meta(spec),
        "spec": _job_spec(spec, spec.replicas),
    }


def _trigger_authentication(spec: JobSpec) -> Manifest:
    """KEDA's operator reads the queue's length with its own identity."""
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "TriggerAuthentication",
        "metadata": _meta(spec),
        "spec": {"podIdentity": {"provider": "aws"}},
    }


def _scaled_job(spec: JobSpec) -> Manifest:
    trigger = {
        "queueURL": spec.queue,
        "queueLength": str(spec.tiles_per_worker),
        "awsRegion": spec.region,
        # a tile in work is still work: without it KEDA would count workers twice
        "scaleOnInFlight": "true",
    }
    if spec.endpoint_url:
        trigger["awsEndpoint"] = spec.endpoint_url
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledJob",
        "metadata": _meta(spec),
        "spec": {
            "pollingInterval": 30,
            "minReplicaCount": 0,
            "maxReplicaCount": spec.replicas,
            "successfulJobsHistoryLimit": 5,
            "failedJobsHistoryLimit": 20,
            # a changed ScaledJob lets running workers finish
            "rollout": {"strategy": "gradual"},
            # new workers = wanted - running, right where messages in flight are counted and a
            # worker takes many; `accurate` would start the same workers again at every poll
            "scalingStrategy": {"strategy": "default"},
            "jobTargetRef": _job_spec(spec, 1),
            "triggers": [
                {
                    "type": "aws-sqs-queue",
                    "metadata": trigger,
                    "authenticationRef": {"name": spec.name},
                }
            ],
        },
    }


def _pod_monitor(spec: JobSpec) -> Manifest:
    """Prometheus finds the workers; `job_name` is what dashboards and Loki select by."""
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PodMonitor",
        "metadata": _meta(spec),
        "spec": {
            "selector": {"matchLabels": labels(spec)},
            "podMetricsEndpoints": [
                {
                    "port": "metrics",
                    "interval": "30s",
                    "relabelings": [
                        {
                            "sourceLabels": [
                                "__meta_kubernetes_pod_label_app_kubernetes_io_instance"
                            ],
                            "targetLabel": "job_name",
                        }
                    ],
                }
            ],
        },
    }
