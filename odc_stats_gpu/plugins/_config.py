"""Keys that every plugin takes under `plugin_config`, and how a mapping becomes a checked model."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterable, Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator, model_validator

from odc_stats_gpu.errors import ConfigError
from odc_stats_gpu.model import explain

_log = logging.getLogger(__name__)

RESAMPLINGS = (
    "nearest", "bilinear", "cubic", "average",  # our kernels
    "cubic_spline", "lanczos", "mode", "max", "min", "med", "q1", "q3", "sum", "rms",  # GDAL
)  # fmt: skip


class PluginConfig(BaseModel):
    """Base keys; a plugin's own model adds its keys and changes defaults.

    Every list may be a YAML list or a Python tuple, one name may stand for a list of one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    resampling: str = "bilinear"
    """How native pixels come onto the tile's grid."""
    input_bands: tuple[str, ...] = ()
    """Bands to read: names or aliases of the product definition."""
    optional_bands: tuple[str, ...] = ()
    """Bands that an input product may lack."""
    chunks: Any = None
    """Accepted for the sake of old configurations: blocks follow from the memory plan."""
    basis: str | None = None
    """Band whose native grid the others are brought onto; default: the first."""
    group_by: Literal["solar_day", "time", "idx"] = "solar_day"
    """What is fused into one observation."""
    rgb_bands: tuple[str, str, str] | None = None
    """Output bands of the rgba picture."""
    rgb_clamp: tuple[float, float] = (1.0, 3000.0)
    """Values shown as black and as white."""
    transform_code: str | None = None
    """PROJ operation between scene and tile CRS."""
    area_of_interest: tuple[float, float, float, float] | None = None
    """West, south, east, north in degrees, for the choice of that operation."""
    measurements: tuple[str, ...] | None = None
    """Names of the output bands, for plugins that don't derive them."""

    @field_validator("input_bands", "optional_bands", "measurements", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return as_tuple(value)

    @field_validator("input_bands", "optional_bands", mode="before")
    @classmethod
    def _none_is_empty(cls, value: Any) -> Any:
        return () if value is None else value

    @field_validator("group_by", mode="before")
    @classmethod
    def _no_grouping(cls, value: Any) -> Any:
        """`group_by: null` fuses nothing."""
        return "idx" if value is None or value == "" else value

    @field_validator("transform_code", mode="before")
    @classmethod
    def _code_text(cls, value: Any) -> Any:
        """`9688` in YAML is a number; PROJ wants the authority."""
        if isinstance(value, int):
            return f"EPSG:{value}"
        return value or None

    @model_validator(mode="after")
    def _base_rules(self) -> PluginConfig:
        if self.resampling not in RESAMPLINGS:
            raise ConfigError(
                f"unknown resampling {self.resampling!r}",
                hint(self.resampling, RESAMPLINGS),
            )
        low, high = self.rgb_clamp
        if not low < high:
            raise ConfigError(
                f"rgb_clamp [{low:g}, {high:g}] is empty", "write [black, white], e.g. [1, 3000]"
            )
        if self.area_of_interest is not None:
            west, south, east, north = self.area_of_interest
            if not (west < east and -90 <= south < north <= 90):
                raise ConfigError(
                    f"area_of_interest {list(self.area_of_interest)} is not a rectangle",
                    "write [west, south, east, north] in degrees",
                )
        for key in self.ignored_keys():
            if key in self.model_fields_set and getattr(self, key) is not None:
                _log.info("plugin_config: %s = %r has no effect here", key, getattr(self, key))
        return self

    @classmethod
    def ignored_keys(cls) -> tuple[str, ...]:
        """Keys that are accepted, mentioned in the log and otherwise without effect."""
        return ("chunks",)

    @classmethod
    def parse(cls, raw: Mapping[str, Any] | None, where: str) -> Self:
        """Validate a loaded YAML mapping; `where` opens the message of every error.

        Raises:
            ConfigError: unknown key (with a suggestion) or a value that doesn't fit.
        """
        if not isinstance(raw or {}, Mapping):
            raise ConfigError(f"{where} = {raw!r} is not a mapping", "write key: value lines")
        try:
            return cls.model_validate(dict(raw or {}))
        except ValidationError as exc:
            raise ConfigError(*explain(exc, where, cls, "see docs/plugins.md")) from None
        except ConfigError as exc:
            raise ConfigError(f"{where}: {exc.message}", exc.remedy) from None


def as_tuple(value: Any) -> Any:
    """A name or number stands for a list of one; None stays None."""
    return (value,) if isinstance(value, (str, int)) and not isinstance(value, bool) else value


def hint(name: object, known: Iterable[str], listed: Iterable[str] | None = None) -> str:
    """Remedy for a name that isn't one of `known`: the nearest one, then all (as `listed`)."""
    names = list(known)
    near = difflib.get_close_matches(str(name), names, n=1)
    everything = "known: " + (", ".join(names if listed is None else listed) or "none")
    return f"did you mean {near[0]!r}? {everything}" if near else everything
