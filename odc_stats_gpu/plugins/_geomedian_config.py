"""Keys of the geomedian plugins, of today's configurations and of the old README's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import PrivateAttr, field_validator, model_validator

from odc_stats_gpu.errors import ConfigError
from odc_stats_gpu.plugins._config import PluginConfig, as_tuple, hint
from odc_stats_gpu.plugins._filters import (
    ClassName,
    MaskRule,
    Operation,
    parse_class_names,
    parse_cloud_filters,
    parse_operations,
)

AUX = ("smad", "emad", "bcmad", "count")
MAX_BANDS = 16  # what the kernels hold in registers


class GeomedianConfig(PluginConfig):
    """Keys of gm-generic; gm-ls and gm-s2 change defaults."""

    default_rules: ClassVar[tuple[MaskRule, ...]] = ()
    """Masked when neither cloud_filters nor cloud_classes is given."""
    default_aux: ClassVar[dict[str, str]] = dict(zip(AUX, AUX, strict=True))
    default_rgb: ClassVar[tuple[str, str, str] | None] = None
    """Colours when `bands` is left at its default."""

    bands: tuple[str, ...] = ()
    """Bands of the geomedian and names of its outputs: names or aliases of the product."""
    mask_band: str = ""
    """Band with the classes below."""
    nodata_classes: tuple[ClassName, ...] | None = None
    """Classes without observation; default: those that the product calls nodata."""
    cloud_filters: Any = None
    """Class -> [[operation, radius], ...]: cleaned per entry, then united."""
    cloud_classes: Any = None
    """Classes that are united, then cleaned by `filters`."""
    filters: Any = None
    """[opening radius, dilation radius] or [[operation, radius], ...] for `cloud_classes`."""
    contiguity_band: str | None = None
    """Band that is 0 where a pixel lacks some band; never an output."""
    basis_band: str | None = None
    """Same as `basis`."""
    aux_names: dict[str, str] = {}  # noqa: RUF012 - pydantic copies defaults
    """Names of the four outputs smad, emad, bcmad, count."""
    work_chunks: Any = None
    """Accepted for the sake of old configurations."""
    reshape_strategy: Any = None
    """Accepted for the sake of old configurations."""
    scale: float = 1e-4
    """Reflectance per DN; smad and bcmad depend on it and on `offset`."""
    offset: float = -1e-4
    numerics: Literal["exact", "compat"] | None = None
    """`compat` truncates as the incumbent does; default: the run's."""
    native_bands: Literal["basis", "own"] = "basis"
    """`own` warps each band from its own grid."""

    _rules: tuple[MaskRule, ...] = PrivateAttr(default=())

    @field_validator("bands", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        """`bands: null` keeps the plugin's default."""
        return cls.model_fields["bands"].default if value is None else as_tuple(value)

    @field_validator("nodata_classes", mode="before")
    @classmethod
    def _classes(cls, value: Any) -> Any:
        return None if value is None else parse_class_names(value, "nodata_classes")

    @field_validator("aux_names", mode="before")
    @classmethod
    def _aux(cls, value: Any) -> Any:
        if value is not None and not isinstance(value, Mapping):
            return value
        for key in value or {}:
            if key not in AUX:
                raise ConfigError(f"aux_names: unknown key {key!r}", hint(key, AUX))
        return {**cls.default_aux, **(value or {})}

    @model_validator(mode="after")
    def _geomedian_rules(self) -> GeomedianConfig:
        if not self.bands:
            raise ConfigError("bands is empty", "list the bands of the geomedian, e.g. [red, nir]")
        if not self.mask_band:
            raise ConfigError(
                "mask_band is missing", "name the band with cloud classes, e.g. fmask"
            )
        if self.mask_band in self.bands:
            raise ConfigError(
                f"mask_band {self.mask_band!r} is listed in bands", "leave it out of bands"
            )
        if self.basis and self.basis_band and self.basis != self.basis_band:
            raise ConfigError(
                f"basis {self.basis!r} and basis_band {self.basis_band!r} differ",
                "give one of them",
            )
        if not self.scale > 0:
            raise ConfigError(f"scale {self.scale:g} is not positive", "write e.g. 0.0001")
        self._check_names()
        self._rules = self._mask_rules()
        return self

    def _check_names(self) -> None:
        bands = self.data_bands
        if not 1 <= len(bands) <= MAX_BANDS:
            raise ConfigError(
                f"bands lists {len(bands)} bands", f"a geomedian takes 1 to {MAX_BANDS}"
            )
        names = [*bands, *self.aux.values()]
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(f"two output bands are called {name!r}", "rename or remove one")
        for name in self.rgb_bands or ():
            if name not in names:
                raise ConfigError(f"rgb_bands: {name!r} is no output band", hint(name, names))

    def _mask_rules(self) -> tuple[MaskRule, ...]:
        """What is masked; never nothing."""
        if self.cloud_filters is not None:
            for key in ("cloud_classes", "filters"):
                if getattr(self, key) is not None:
                    raise ConfigError(
                        f"cloud_filters and {key} are both given",
                        f"move {key} into cloud_filters: {{class: [[opening, r], [dilation, r]]}}",
                    )
            rules = parse_cloud_filters(self.cloud_filters)
        elif self.cloud_classes is not None:
            classes = parse_class_names(self.cloud_classes, "cloud_classes")
            rules = (MaskRule(classes, self._operations(self.default_rules)),) if classes else ()
        else:
            rules = self.default_rules
            if self.filters is not None:
                rules = tuple(MaskRule(r.classes, self._operations((r,))) for r in rules)
            if not rules and self.nodata_classes:
                rules = (MaskRule(("cloud", "shadow")),)  # as the incumbent does
        if not rules:
            raise ConfigError(
                "no mask class is configured",
                "give cloud_classes: [a, b], or cloud_filters: {a: [[opening, 2], [dilation, 5]]}",
            )
        return rules

    def _operations(self, default: tuple[MaskRule, ...]) -> tuple[Operation, ...]:
        if self.filters is not None:
            return parse_operations(self.filters, "filters")
        return default[0].operations if default else ()

    @property
    def rules(self) -> tuple[MaskRule, ...]:
        """Classes to erase and how they are cleaned."""
        return self._rules

    @property
    def data_bands(self) -> tuple[str, ...]:
        """Bands of the geomedian: as listed, without the contiguity band."""
        return tuple(b for b in self.bands if b != self.contiguity_band)

    @property
    def aux(self) -> dict[str, str]:
        """Output name of smad, emad, bcmad, count."""
        return {**self.default_aux, **self.aux_names}

    @property
    def colours(self) -> tuple[str, str, str] | None:
        """Bands of the rgba picture: as configured, or the default ones of the default bands."""
        if self.rgb_bands is None and "bands" not in self.model_fields_set:
            return self.default_rgb
        return self.rgb_bands

    @classmethod
    def ignored_keys(cls) -> tuple[str, ...]:
        """Memory layout of the incumbent, and what follows from `bands`."""
        return ("chunks", "work_chunks", "reshape_strategy", "measurements", "input_bands")


class Sentinel2Config(GeomedianConfig):
    """Defaults of gm-s2: ESA's band names, SCL cleaned as one union."""

    default_rules: ClassVar[tuple[MaskRule, ...]] = (
        MaskRule(
            (
                "cloud shadows",
                "cloud medium probability",
                "cloud high probability",
                "thin cirrus",
            ),
            (("opening", 2), ("dilation", 5)),
        ),
    )
    default_aux: ClassVar[dict[str, str]] = {k: k.upper() for k in AUX}
    default_rgb: ClassVar[tuple[str, str, str] | None] = ("B04", "B03", "B02")

    bands: tuple[str, ...] = (
        "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12",
    )  # fmt: skip
    mask_band: str = "SCL"


class LandsatConfig(GeomedianConfig):
    """Defaults of gm-ls: Geoscience Australia's band names, fmask without buffers."""

    default_rules: ClassVar[tuple[MaskRule, ...]] = (MaskRule(("cloud", "shadow")),)
    default_aux: ClassVar[dict[str, str]] = {
        "smad": "sdev", "emad": "edev", "bcmad": "bcdev", "count": "count",
    }  # fmt: skip
    default_rgb: ClassVar[tuple[str, str, str] | None] = ("nbart_red", "nbart_green", "nbart_blue")

    bands: tuple[str, ...] = (
        "nbart_red", "nbart_green", "nbart_blue", "nbart_nir", "nbart_swir_1", "nbart_swir_2",
    )  # fmt: skip
    mask_band: str = "fmask"
    contiguity_band: str | None = "nbart_contiguity"
