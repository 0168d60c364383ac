"""The job file: what one fleet works on, with which image, on which machines."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from importlib import metadata
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

from odc_stats_gpu.errors import ConfigError
from odc_stats_gpu.fleet._remedies import QUANTITY, told
from odc_stats_gpu.model import parse_config

GPUS = ("t4", "a10g", "l4", "l40s", "a100", "h100", "h200", "b200")
"""As Karpenter's label karpenter.k8s.aws/instance-gpu-name has them; all that CUDA 13 runs on."""
_IMAGE = (
    r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?(:\d{1,5})?/)?"  # registry
    r"[a-z0-9]+([._-]+[a-z0-9]+)*(/[a-z0-9]+([._-]+[a-z0-9]+)*)*"
    r"(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@sha256:[0-9a-f]{64})?$"
)
_SQS_HOST = re.compile(r"^https://sqs\.([a-z0-9-]+)\.amazonaws\.com")
_QUANTITY = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$"
_NAME = re.compile(r"[A-Za-z_]([-A-Za-z0-9_./]*[A-Za-z0-9_])?")
"""Of an environment variable or a node's label."""
Quantity = Annotated[str, StringConstraints(pattern=_QUANTITY)]
_UNITS = {"": 1, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12} | {
    f"{letter}i": 1024**power for power, letter in enumerate("KMGT", 1)
}
TMP = "1Gi"
"""Disk for libraries that know no TMPDIR."""
_LOGS = "1Gi"
_SPELLINGS = {"db": "filedb", "gpu_type": "gpu"}
"""Taken for the key, too."""


def _mebibytes(quantity: str) -> int:
    """A quantity of Kubernetes, rounded up."""
    number = quantity.rstrip("mkMGTKi")
    return math.ceil(float(number) * _UNITS[quantity[len(number) :]] / (1 << 20))


def _gpu_name(value: Any) -> str:
    """As Karpenter names it: `NVIDIA Tesla T4`, `nvidia-l4` and `A10G` are t4, l4 and a10g."""
    if value is True:
        return "any"
    return re.sub(r"^(nvidia[- ]+)?(tesla[- ]+)?", "", str(value).lower())


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Resources(_Strict):
    """Of one worker. Requests equal limits: the worker sizes threads and blocks by its limits."""

    cpu: Quantity = "7"
    """An 8-CPU node less what its daemons take."""
    memory: Quantity = "26Gi"
    scratch: Quantity = "20Gi"
    """Disk for temporary files, task databases and the heartbeat."""
    cache: Quantity = "2Gi"
    """Disk for compiled kernels."""

    @property
    def disk(self) -> str:
        """What the pod's volumes and logs may fill together: a smaller limit would evict it."""
        total = sum(_mebibytes(q) for q in (self.scratch, self.cache, TMP, _LOGS))
        return f"{total // 1024}Gi" if total % 1024 == 0 else f"{total}Mi"

    @field_validator("*", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        """YAML reads `cpu: 7` as a number."""
        return f"{value:g}" if isinstance(value, (int, float)) else value

    @field_validator("*")
    @classmethod
    def _more_than_nothing(cls, value: str) -> str:
        if not float(value.rstrip("mkMGTKi")):
            raise ValueError(f"must be {QUANTITY}")
        return value


class JobSpec(_Strict):
    """Keys of the job file; only queue, image, region, config and a place for tiles are needed."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$", max_length=52)]
    queue: Annotated[
        str, StringConstraints(pattern=r"^(https?://\S+/)?[A-Za-z0-9_-]{1,75}(\.fifo)?$")
    ]
    """Name or URL of the SQS queue."""
    image: Annotated[str, StringConstraints(pattern=_IMAGE)]
    """As `docker pull` takes it: lower-case name, tag or digest."""
    region: Annotated[str, StringConstraints(pattern=r"^[a-z]{2}(-[a-z]+)+-\d$")]
    config: dict[str, Any]
    """The run configuration, validated as `run --config` does."""
    kind: Literal["job", "scaledjob"] = "job"
    """`job`: so many workers until the queue is empty. `scaledjob`: KEDA starts them on demand."""
    replicas: int = Field(default=1, ge=1, le=5000, strict=True)
    """Workers at the same time, at most."""
    tiles_per_worker: int = Field(default=5, ge=1)
    """`scaledjob`: messages in the queue for which one more worker is worth its start."""
    filedb: str = ""
    """Task database for messages that are bare tile ids."""
    bucket: Annotated[str, StringConstraints(pattern=r"^([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])?$")] = ""
    """Output bucket, where `config` has no output_location."""
    prefix: str = ""
    """Folder in the bucket."""
    gpu: tuple[str, ...] = ("any",)
    """`any`, `none`, or names such as l4, a10g."""
    capacity: Literal["spot", "spot-only", "on-demand"] = "spot"
    """`spot`: Spot first, on-demand when there is none."""
    namespace: Annotated[
        str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)
    ] = "odc-stats"
    service_account: Annotated[
        str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)
    ] = "odc-stats"
    role_arn: Annotated[
        str, StringConstraints(pattern=r"^(arn:aws[a-z-]*:iam::\d{12}:role/\S+)?$")
    ] = ""
    """For IRSA; empty with EKS pod identity, where the cluster knows the role."""
    resources: Resources = Resources()
    idle_timeout: int | None = Field(default=None, ge=0)
    """Seconds without visible work after which a worker leaves; default lease + 60."""
    grace: int = Field(default=60, ge=20)
    """Seconds between SIGTERM and SIGKILL; work is handed back in 5."""
    keep_finished: int = Field(default=3600, ge=0)
    """Seconds after which Kubernetes removes a finished job."""
    metrics_port: int = Field(default=9090, ge=1024, le=65535)
    pod_monitor: bool = True
    """Whether the cluster has the Prometheus operator."""
    endpoint_url: Annotated[str, StringConstraints(pattern=r"^(https?://\S+)?$")] = ""
    """Instead of AWS: moto, MinIO."""
    env: dict[str, str] = Field(default_factory=dict)
    node_selector: dict[str, str] = Field(default_factory=dict)

    @field_validator("gpu", mode="before")
    @classmethod
    def _gpu_names(cls, value: Any) -> Any:
        """One name or a list of them."""
        names = value if isinstance(value, (list, tuple)) else [value]
        names = ["none" if n is None or n is False else _gpu_name(n) for n in names]
        for name in names:
            if name not in GPUS and name not in ("any", "none"):
                near = difflib.get_close_matches(name, GPUS, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(GPUS)}"
                raise ValueError(f"unknown GPU {name!r}, {hint}")
        if not names or (len(names) > 1 and {"any", "none"} & set(names)):
            raise ValueError("any and none stand alone")
        return tuple(names)

    @field_validator("env", "node_selector", mode="before")
    @classmethod
    def _texts(cls, value: Any) -> Any:
        """YAML reads numbers and booleans; Kubernetes takes text."""
        if not isinstance(value, Mapping):
            return value
        for key, text in value.items():
            if not _NAME.fullmatch(str(key)):
                raise ValueError(f"{str(key)!r} is no name that Kubernetes takes")
            if text is None or isinstance(text, (list, Mapping)):
                raise ValueError(f"{key} needs a text, got {text!r}")
        return {str(k): str(v).lower() if isinstance(v, bool) else str(v) for k, v in value.items()}

    @field_validator("kind", "capacity", mode="before")
    @classmethod
    def _in_lower_case(cls, value: Any) -> Any:
        return value.lower() if isinstance(value, str) else value

    @model_validator(mode="after")
    def _has_a_place(self) -> Self:
        """Output must go somewhere that outlives the pod."""
        location = str(self.config.get("output_location") or "")
        if location and not location.startswith("s3://"):
            raise ValueError(f"output_location {location!r} is gone with the pod, give s3://")
        if self.bucket and location and location[5:].partition("/")[0] != self.bucket:
            raise ValueError(f"output_location {location!r} is not in bucket {self.bucket!r}")
        if not self.bucket and not location:
            raise ValueError("give `bucket`, or output_location in the configuration")
        if self.filedb and not self.filedb.startswith(("s3://", "http://", "https://")):
            raise ValueError(f"filedb {self.filedb!r} can't be seen by pods, give s3://")
        host = _SQS_HOST.match(self.queue)
        if host and host[1] != self.region:
            raise ValueError(f"queue {self.queue!r} is not in region {self.region!r}")
        return self

    @property
    def queue_name(self) -> str:
        """Last part of the queue's URL."""
        return self.queue.rsplit("/", 1)[-1]

    @property
    def wants_gpu(self) -> bool:
        """Whether pods ask for a device."""
        return self.gpu != ("none",)

    @property
    def run_config(self) -> dict[str, Any]:
        """The configuration as the workers get it: database and location filled in."""
        out = dict(self.config)
        if self.filedb:
            out["filedb"] = self.filedb
        if not out.get("output_location"):
            out["output_location"] = "/".join(
                p for p in (f"s3://{self.bucket}", self.prefix.strip("/")) if p
            )
        return out


def parse_job(raw: Mapping[str, Any], where: str = "job") -> JobSpec:
    """Validate a loaded job file, the run configuration in it too; raises ConfigError.

    Without a name the job has its queue's; without a region the one in the queue's URL.
    """
    given = {_SPELLINGS.get(str(k), str(k)): v for k, v in raw.items()}
    given = {k: v for k, v in given.items() if v is not None or k in ("gpu", "config")}
    queue = given.get("queue")
    if isinstance(queue, str):
        name = queue.rsplit("/", 1)[-1].removesuffix(".fifo").lower().replace("_", "-")
        given.setdefault("name", name)
        if host := _SQS_HOST.match(queue):
            given.setdefault("region", host[1])
    try:
        spec = JobSpec.model_validate(given)
    except ValidationError as exc:
        raise told(exc, where, JobSpec) from None
    config = parse_config(spec.run_config, f"{where}: config")
    if not config.plugin:
        raise ConfigError(f"{where}: config has no plugin", "name one, such as gm-ls")
    _check_plugin(config.plugin, where)
    if config.product is None:
        raise ConfigError(f"{where}: config has no product", "give its name and version")
    config.product.expand_location(config.output_location)
    return spec


def _check_plugin(name: str, where: str) -> None:
    """A slip of the pen in a name of ours; what nobody here knows may be in the image."""
    known = metadata.entry_points(group="odc_stats_gpu.plugins").names
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
    if name not in known and near:
        raise ConfigError(
            f"{where}: unknown plugin {name!r}",
            f"did you mean {near[0]!r}? One of your own must be installed here, too",
        )
