"""The worker's pod: one container, one GPU, nothing writable but scratch and cache."""

from __future__ import annotations

from typing import Any

from odc_stats_gpu.fleet._spec import TMP, JobSpec

CONTAINER = "worker"
CONFIG = "/etc/odc-stats"
HEARTBEAT = "/scratch/heartbeat"
_USER = 1000  # of the image
_FRESH = "2"
"""Minutes that a heartbeat may be old; it is written every 5 s."""


def labels(spec: JobSpec) -> dict[str, str]:
    """On every object; `instance` becomes the label job_name of metrics and logs."""
    return {
        "app.kubernetes.io/name": "odc-stats-gpu",
        "app.kubernetes.io/component": "worker",
        "app.kubernetes.io/instance": spec.name,
    }


def pod_template(spec: JobSpec) -> dict[str, Any]:
    """PodTemplateSpec of a worker."""
    annotations = {
        # keeps consolidation and drift away from running tiles; Spot reclaims still come
        "karpenter.sh/do-not-disrupt": "true",
        "kubectl.kubernetes.io/default-container": CONTAINER,
    }
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": spec.grace,
        "serviceAccountName": spec.service_account,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "fsGroup": _USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(spec)],
        "volumes": [
            {"name": "config", "configMap": {"name": spec.name}},
            {"name": "scratch", "emptyDir": {"sizeLimit": spec.resources.scratch}},
            {"name": "cache", "emptyDir": {"sizeLimit": spec.resources.cache}},
            {"name": "tmp", "emptyDir": {"sizeLimit": TMP}},
        ],
    }
    affinity = _affinity(spec)
    if affinity:
        pod["affinity"] = {"nodeAffinity": affinity}
    if spec.node_selector:
        pod["nodeSelector"] = dict(spec.node_selector)
    if spec.wants_gpu:
        pod["tolerations"] = [
            {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
        ]
    return {"metadata": {"labels": labels(spec), "annotations": annotations}, "spec": pod}


def failure_policy() -> dict[str, Any]:
    """What Kubernetes makes of our exit codes; the first rule that fits decides.

    2 will fail again however often it is tried; 3 and a disruption are nobody's fault; anything
    else counts toward backoffLimit.
    """
    return {
        "rules": [
            {
                "action": "FailJob",
                "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": [2]},
            },
            {
                "action": "Ignore",
                "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": [3]},
            },
            {
                "action": "Ignore",
                "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
            },
        ]
    }


def _container(spec: JobSpec) -> dict[str, Any]:
    size = {
        "cpu": spec.resources.cpu,
        "memory": spec.resources.memory,
        "ephemeral-storage": spec.resources.disk,
    }
    if spec.wants_gpu:
        size["nvidia.com/gpu"] = "1"
    fresh = f'test -n "$(find {HEARTBEAT} -mmin -{_FRESH})"'
    return {
        "name": CONTAINER,
        "image": spec.image,
        "args": _arguments(spec),
        "env": [{"name": k, "value": v} for k, v in _environment(spec).items()],
        "ports": [{"name": "metrics", "containerPort": spec.metrics_port}],
        "resources": {"requests": dict(size), "limits": dict(size)},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "startupProbe": {
            "exec": {"command": ["test", "-e", HEARTBEAT]},
            "periodSeconds": 5,
            "failureThreshold": 60,
        },
        "livenessProbe": {
            "exec": {"command": ["sh", "-c", fresh]},
            "periodSeconds": 30,
            "timeoutSeconds": 10,
            "failureThreshold": 3,
        },
        "volumeMounts": [
            {"name": "config", "mountPath": CONFIG, "readOnly": True},
            {"name": "scratch", "mountPath": "/scratch"},
            {"name": "cache", "mountPath": "/cache"},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - the pod's own
        ],
    }


def _arguments(spec: JobSpec) -> list[str]:
    out = [
        "run",
        f"--from-sqs={spec.queue}",
        f"--config={CONFIG}/config.yaml",
        f"--heartbeat-filepath={HEARTBEAT}",
        f"--metrics-port={spec.metrics_port}",
        "--log-format=json",
    ]
    if spec.idle_timeout is not None:
        out.append(f"--idle-timeout={spec.idle_timeout}")
    return out


def _environment(spec: JobSpec) -> dict[str, str]:
    out = {
        "ODC_STATS_JOB": spec.name,
        "AWS_DEFAULT_REGION": spec.region,
        # pods can't reach it (hop limit 1); a reclaim arrives as SIGTERM when the node drains
        "AWS_EC2_METADATA_DISABLED": "true",
        "HOME": "/scratch",
        "TMPDIR": "/scratch",
        "NUMBA_CACHE_DIR": "/cache",
        "CUPY_CACHE_DIR": "/cache/cupy",
        "CUDA_CACHE_PATH": "/cache/cuda",
    }
    if not spec.wants_gpu:
        del out["CUPY_CACHE_DIR"], out["CUDA_CACHE_PATH"]
    if spec.endpoint_url:
        out["AWS_ENDPOINT_URL"] = spec.endpoint_url
    return out | spec.env


def _affinity(spec: JobSpec) -> dict[str, Any]:
    """Where the pod may run.

    Terms of a required affinity are alternatives, and so are the names that Karpenter and managed
    node groups have for the same thing.
    """
    if not spec.wants_gpu:
        return {}
    kind = "on-demand" if spec.capacity == "on-demand" else "spot"
    capacity = (
        ("karpenter.sh/capacity-type", kind),
        ("eks.amazonaws.com/capacityType", kind.upper().replace("-", "_")),
    )
    model = []
    if spec.gpu != ("any",):
        model = [_one_of("karpenter.k8s.aws/instance-gpu-name", *spec.gpu)]
    out: dict[str, Any] = {}
    if spec.capacity == "spot":
        out["preferredDuringSchedulingIgnoredDuringExecution"] = [
            {"weight": 100, "preference": {"matchExpressions": [_one_of(*pair)]}}
            for pair in capacity
        ]
        terms = [{"matchExpressions": model}] if model else []
    else:
        terms = [{"matchExpressions": [_one_of(*pair), *model]} for pair in capacity]
    if terms:
        out["requiredDuringSchedulingIgnoredDuringExecution"] = {"nodeSelectorTerms": terms}
    return out


def _one_of(key: str, *values: str) -> dict[str, Any]:
    return {"key": key, "operator": "In", "values": list(values)}
