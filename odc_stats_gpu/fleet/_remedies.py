"""What is wrong with a job file, in one line that says what would be right."""

from __future__ import annotations

import re

from pydantic import BaseModel, ValidationError

from odc_stats_gpu.errors import ConfigError
from odc_stats_gpu.model import explain

REMEDY = "see docs/operating.md, the job file"
QUANTITY = "more than 0, such as 2, 500m, 26Gi"
_FORMS = {
    "name": "up to 52 lower-case letters, digits and hyphens, a letter first",
    "queue": "the name of an SQS queue or its URL",
    "image": "as `docker pull` takes it: lower-case name, then :tag or @sha256:digest",
    "region": "such as ap-southeast-2",
    "bucket": "the bare name of a bucket, without s3://",
    "namespace": "lower-case letters, digits and hyphens",
    "service_account": "lower-case letters, digits and hyphens",
    "role_arn": "such as arn:aws:iam::123456789012:role/NAME",
    "endpoint_url": "http://host:port or https://host",
    "config": "a path, a URL or the keys of `run --config`",
    "resources": "keys cpu, memory, scratch, cache",
    "env": "NAME: value pairs",
    "node_selector": "label: value pairs",
}
_ELSEWHERE = {
    "workers": "replicas", "parallelism": "replicas", "completions": "replicas", "pods": "replicas",
    "memory": "resources.memory", "cpu": "resources.cpu", "memory_limit": "resources.memory",
    "limits": "resources", "requests": "resources", "spot": "capacity", "nodes": "node_selector",
    "output": "bucket", "location": "bucket", "output_location": "bucket", "database": "filedb",
    "plugin": "config", "product": "config", "irsa": "role_arn", "environment": "env",
    "ttlsecondsafterfinished": "keep_finished", "account": "service_account",
    "terminationgraceperiodseconds": "grace", "type": "kind",
}  # fmt: skip
"""Where those look for a key who call it otherwise, too far off for a likeness of letters."""
_FORM = ("string_pattern_mismatch", "string_too_long", "dict_type", "model_type")


def told(exc: ValidationError, where: str, model: type[BaseModel]) -> ConfigError:
    """The first error of a job file; an unknown key before a missing one that it may stand for."""
    error = min(exc.errors(), key=lambda e: e["type"] != "extra_forbidden")
    path = ".".join(str(p) for p in error["loc"])
    key = path.partition(".")[0]
    if not path:  # of the whole file: no value to show
        return ConfigError(f"{where}: {_bare(error['msg'])}", REMEDY)
    if error["type"] == "extra_forbidden" and path.lower() in _ELSEWHERE:
        meant = _ELSEWHERE[path.lower()]
        return ConfigError(f"{where}: unknown key {path!r}", f"did you mean {meant!r}?")
    if error["type"] in _FORM and key in _FORMS:
        form = QUANTITY if key != path and key == "resources" else _FORMS[key]
        return ConfigError(f"{where}: {path} = {error['input']!r}: must be {form}", REMEDY)
    message, remedy = explain(exc, where, model, REMEDY)
    return ConfigError(_bare(message), remedy)


def _bare(message: str) -> str:
    """Without pydantic's preface to errors of ours."""
    return re.sub(r"(^|: )Value error, ", r"\1", message)
