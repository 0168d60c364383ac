"""Values that are YAML: a file, a URL, or the text itself; and how they are merged."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from odc_stats_gpu.errors import ConfigError, OdcStatsError


def read_mapping(value: str, option: str) -> dict[str, Any]:
    """The first YAML document of a path, a URL (fsspec) or the text given; raises ConfigError."""
    import yaml

    where, text = _text(value, option)
    try:
        found = next(iter(yaml.safe_load_all(text)), None)
    except yaml.YAMLError as exc:
        raise ConfigError(
            f"{option}: {where} is no YAML: {' '.join(str(exc).split())}", "correct it"
        ) from None
    if found is None:
        return {}
    if isinstance(found, str) and where == "the text given":
        raise ConfigError(f"{option}: no such file: {value}", "give a path, a URL or YAML text")
    if not isinstance(found, Mapping):
        raise ConfigError(
            f"{option}: {where} holds a {type(found).__name__}", "keys and values are needed"
        )
    return {str(k): v for k, v in found.items()}


def _text(value: str, option: str) -> tuple[str, str]:
    """Where it was found, and the text."""
    parsed = urlparse(value)
    if parsed.scheme == "file" or (parsed.scheme and parsed.netloc and "\n" not in value):
        return value, _remote(value, option)
    try:
        path = Path(value).expanduser()
        found = path.is_file()
    except (OSError, ValueError, RuntimeError):  # text too long for a path
        found = False
    if not found:
        return "the text given", value
    try:
        return value, path.read_text()
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{option}: can't read {value}: {exc}", "check the file") from None


def _remote(url: str, option: str) -> str:
    from odc_stats_gpu.engine import read_url

    try:
        return read_url(url).decode()
    except (OdcStatsError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{option}: {exc}") from None


def merge(config: str | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration file, overruled by what the command line gives, 0 and False included."""
    out = read_mapping(config, "--config") if config else {}
    if "temporal-range" in out:
        out.setdefault("temporal_range", out.pop("temporal-range"))
    out.update({k: v for k, v in given.items() if v is not None})
    return out
