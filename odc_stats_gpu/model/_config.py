"""The configuration of a job: one YAML file serves `save-tasks` and `run`."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from odc_stats_gpu.errors import ConfigError
from odc_stats_gpu.model._product import OutputProduct

COG_DEFAULTS: dict[str, Any] = {
    "compress": "deflate",
    "zlevel": 6,  # libdeflate's level 9 is 3.9x dearer for 1.6 % of the size
    "blocksize": 800,
    "ovr_blocksize": 256,
    "overview_resampling": "average",
}
_SECRETS = ("key", "secret", "token", "password", "credential")


class RunConfig(BaseModel):
    """Keys of `--config`. Defaults below; the command line wins wherever an option is given."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    # what to compute
    plugin: str = ""
    plugin_config: dict[str, Any] = Field(default_factory=dict)
    product: OutputProduct | None = None
    numerics: Literal["exact", "compat"] = "exact"
    transform_code: str | None = None
    area_of_interest: tuple[float, float, float, float] | None = None
    dataset_filters: str | None = None
    resolution: str | None = None
    # from where, to where
    filedb: str = ""
    output_location: str = ""
    overwrite: bool = False
    apply_eodatasets3: bool = False
    cog_opts: dict[str, Any] = Field(default_factory=dict)
    s3_acl: str | None = None
    s3_public: bool = False
    aws_unsigned: bool | None = None
    requester_pays: bool | None = None
    # with what
    threads: int = -1
    memory_limit: str = ""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    device_memory: str = ""
    cluster: str = ""
    scheduler: str = ""
    workers: int = Field(default=0, ge=0)
    rmm_pool: str = "0.8"
    dashboard: str = ""
    block_size: str = ""
    max_processing_time: int = Field(default=0, ge=0)
    heartbeat_filepath: str = ""
    # queue
    job_queue_max_lease: int = Field(default=300, gt=0, le=43_200)  # SQS allows no more
    renew_safety_margin: int = Field(default=30, ge=0)
    future_poll_interval: float = Field(default=5, gt=0)  # taken, unused: nothing is polled here
    # save-tasks
    input_products: str | list[str] = ""
    grid: str = ""
    frequency: str = ""
    complevel: int = 6
    gqa: float | None = None
    usgs_collection_category: str | None = None
    dataset_filter: dict[str, Any] | str | None = None
    ignore_time: list[str] = Field(default_factory=list)
    optional_products: list[str] = Field(default_factory=list)
    temporal_range: str | None = Field(default=None, alias="temporal-range")
    year: int | None = None
    tiles: str | None = None

    @field_validator(
        "memory_limit", "device_memory", "resolution", "block_size", "rmm_pool", mode="before"
    )
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        """YAML reads a plain number as a number."""
        return str(value) if isinstance(value, (int, float)) else value

    @property
    def cog(self) -> dict[str, Any]:
        """COG options with the defaults filled in; `overrides` per band stay nested."""
        return {**COG_DEFAULTS, **self.cog_opts}

    def redacted(self) -> dict[str, Any]:
        """For logs: nothing that looks like a secret, no default values."""
        return _redact(self.model_dump(exclude_defaults=True))

    @property
    def hash(self) -> str:
        """Short digest of what decides the pixels: plugin, its configuration, product, numerics."""
        keys = {"plugin", "plugin_config", "product", "numerics", "transform_code",
                "area_of_interest", "dataset_filters", "resolution"}  # fmt: skip
        text = json.dumps(self.model_dump(include=keys, mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def parse_config(raw: Mapping[str, Any], where: str = "configuration") -> RunConfig:
    """Validate a loaded YAML mapping; raises ConfigError naming key, value and remedy."""
    try:
        return RunConfig.model_validate(dict(raw))
    except ValidationError as exc:
        raise ConfigError(*explain(exc, where)) from None


def explain(
    exc: ValidationError,
    where: str,
    model: type[BaseModel] = RunConfig,
    remedy: str = "see `odc-stats-gpu run --help`",
) -> tuple[str, str]:
    """First pydantic error as (message, remedy); suggests a key of `model` for an unknown one.

    An unknown key comes first: it may be what a missing one was meant to be.
    """
    err = min(exc.errors(), key=lambda e: e["type"] != "extra_forbidden")
    path = ".".join(str(p) for p in err["loc"])
    if err["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(err["loc"][-1]), _known(err["loc"][:-1], model), n=1)
        hint = f"did you mean {near[0]!r}?" if near else "remove it or check its spelling"
        return f"{where}: unknown key {path!r}", hint
    if err["type"] == "missing":
        return f"{where}: {path} is missing", remedy
    value = repr(err.get("input"))
    if any(s in path.lower() for s in _SECRETS):
        value = "***"
    return f"{where}: {path} = {value[:80]}: {err['msg']}", remedy


def _known(loc: tuple[Any, ...], model: type[BaseModel]) -> list[str]:
    """Keys allowed at that place of the configuration."""
    for part in loc:
        field = model.model_fields.get(str(part))
        found = [t for t in (*get_args(field.annotation), field.annotation)
                 if isinstance(t, type) and issubclass(t, BaseModel)] if field else []  # fmt: skip
        if not found:
            return []
        model = found[0]
    return [a for n, f in model.model_fields.items() for a in (n, f.alias) if a]


def _redact(value: Any, key: str = "") -> Any:
    if isinstance(value, Mapping):
        return {k: _redact(v, str(k)) for k, v in value.items()}
    if isinstance(value, list):
        return [_redact(v, key) for v in value]
    return "***" if value and any(s in key.lower() for s in _SECRETS) else value
