"""The product a run makes: names, folders and the identity of a tile."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from odc_stats_gpu.errors import ConfigError


class OutputProduct(BaseModel):
    """The `product:` block of a run configuration. Defaults are the plugin's, then the field's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    short_name: str = ""
    version: str = ""
    product_family: str = ""
    collections_site: str = "collections.dea.ga.gov.au"
    producer: str = "ga.gov.au"
    properties: dict[str, Any] = Field(default_factory=dict)
    region_code_format: str = "x{x:02d}y{y:02d}"
    naming_conventions_values: str = "dea_c3"
    explorer_path: str = "https://explorer.dea.ga.gov.au"
    inherit_skip_properties: list[str] | None = None
    preview_image_ows_style: dict[str, Any] | None = None
    classifier: str = "level3"
    maturity: str | None = None
    collection_number: int = 3
    nodata: Any = None

    @field_validator("version", mode="before")
    @classmethod
    def _version_text(cls, value: Any) -> Any:
        """YAML reads an unquoted 3.0 as a number."""
        return str(value) if isinstance(value, (int, float)) else value

    @field_validator("region_code_format")
    @classmethod
    def _fits_a_tile(cls, value: str) -> str:
        try:
            if value.format(x=1, y=2) == value.format(x=3, y=2) or value.format(
                x=1, y=2
            ) == value.format(x=1, y=3):
                raise ValueError("tiles would share a name, both {x} and {y} are needed")
        except (LookupError, AttributeError) as exc:
            raise ValueError(f"only {{x}} and {{y}} are known, not {exc}") from None
        return value

    @property
    def href(self) -> str:
        """Public address of the product."""
        return f"https://{self.collections_site}/product/{self.name}"

    def region_code(self, x: int, y: int) -> str:
        """Name of a tile, e.g. x41y13."""
        return self.region_code_format.format(x=x, y=y)

    def expand_location(self, template: str) -> str:
        """Fill {name} {product} {short_name} {version} ... of an output location.

        Raises ConfigError for a name that isn't known.
        """
        if "{" in template and "}" in template:
            dashed = self.version.replace(".", "-")
            values = {
                "name": self.name, "product": self.name, "short_name": self.short_name,
                "version": dashed, "version_dashed": dashed, "version_raw": self.version,
            }  # fmt: skip
            try:
                template = template.format(**values)
            except (LookupError, ValueError, AttributeError):
                known = ", ".join(f"{{{name}}}" for name in values)
                raise ConfigError(
                    f"can't fill in the location {template!r}",
                    f"known: {known}; a brace that belongs to the name is written twice",
                ) from None
        return template.rstrip("/")
