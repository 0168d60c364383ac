"""Names of a mask band's classes, looked up in the `flags_definition` of its product."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from odc_stats_gpu import kernels
from odc_stats_gpu.errors import ConfigError
from odc_stats_gpu.model import Measurement, Product
from odc_stats_gpu.plugins._config import hint
from odc_stats_gpu.plugins._filters import ClassName

_NODATA_NAMES = ("nodata", "no data", "no_data", "no-data")


@dataclass(frozen=True, slots=True)
class ClassTest:
    """Which pixels of a mask band belong: those of some whole values, or with some flag set so."""

    values: tuple[int, ...] = ()
    """Whole pixel values."""
    flags: tuple[kernels.FlagRule, ...] = ()
    """(lowest bit, number of bits, value of the field)."""

    def __bool__(self) -> bool:
        """Whether any pixel could belong."""
        return bool(self.values or self.flags)

    def __call__(self, mask: Any) -> Any:
        """Boolean array of the pixels that belong to any of the classes."""
        if not self.flags:
            return kernels.decode_enum(mask, self.values)
        found = kernels.decode_flags(mask, self.flags)
        return found | kernels.decode_enum(mask, self.values) if self.values else found


@dataclass(frozen=True, slots=True)
class _Flag:
    """One entry of a `flags_definition`."""

    name: str
    bits: tuple[int, ...]
    values: Mapping[int, str]

    def rule(self, value: int) -> kernels.FlagRule:
        """The field and one of its values."""
        return min(self.bits), len(self.bits), value


def class_test(product: Product, band: str, names: Iterable[ClassName]) -> ClassTest:
    """Find classes of a mask band by name or pixel value.

    An enumeration (one flag over several bits: fmask, SCL) is compared by whole value. Of bit
    fields (USGS QA_PIXEL) a one-bit flag is named by itself and means "set"; `flag=value` names
    any value of any flag.

    Raises:
        ConfigError: unknown band or class, listing the known ones.
    """
    measurement = known_band(product, band)
    flags = _flags(product, measurement)
    values: list[int] = []
    rules: list[kernels.FlagRule] = []
    for name in names:
        if isinstance(name, int):
            values.append(name)
        elif _is_enum(flags):
            found = [k for k, v in flags[0].values.items() if v == name]
            if not found:
                raise _unknown(name, product, measurement, flags)
            values += found
        else:
            rule = _find_rule(name, flags)
            if rule is None:
                raise _unknown(name, product, measurement, flags)
            rules.append(rule)
    return ClassTest(tuple(dict.fromkeys(values)), tuple(dict.fromkeys(rules)))


def nodata_classes(product: Product, band: str) -> tuple[ClassName, ...]:
    """Classes of a mask band that mean "no data", as far as its definition names them."""
    flags = _flags(product, known_band(product, band))
    if _is_enum(flags):
        return tuple(v for v in flags[0].values.values() if v.lower() in _NODATA_NAMES)
    return tuple(
        f.name for f in flags if f.name.lower() in (*_NODATA_NAMES, "fill") and len(f.bits) == 1
    )


def names_value(product: Product, band: str, value: float) -> bool:
    """Whether the band is an enumeration whose definition gives that pixel value a name."""
    flags = _flags(product, known_band(product, band))
    return _is_enum(flags) and value in flags[0].values


def known_band(product: Product, name: str) -> Measurement:
    """The band of that name or alias; raises ConfigError listing the known ones."""
    found = product.find(name)
    if found is None:
        names = [n for m in product.measurements for n in (m.name, *m.aliases)]
        listed = [
            f"{m.name} ({', '.join(m.aliases)})" if m.aliases else m.name
            for m in product.measurements
        ]
        raise ConfigError(
            f"product {product.name!r} has no band {name!r}", hint(name, names, listed)
        )
    return found


def _flags(product: Product, measurement: Measurement) -> tuple[_Flag, ...]:
    """The `flags_definition`; raises ConfigError naming an entry that can't be read."""
    out = []
    for name, doc in measurement.flags.items():
        where = f"flag {name!r} of band {measurement.name!r} of product {product.name!r}"
        try:
            bits = doc.get("bits", ())
            positions = tuple(int(b) for b in (bits if isinstance(bits, (list, tuple)) else [bits]))
            values = {int(k): _text(v) for k, v in (doc.get("values") or {}).items()}
        except (AttributeError, TypeError, ValueError) as exc:
            raise ConfigError(
                f"{where} can't be read: {exc}",
                "a flags_definition needs bits: [numbers] and values: {number: name}",
            ) from None
        if sorted(positions) != list(
            range(min(positions, default=0), max(positions, default=-1) + 1)
        ):
            raise ConfigError(
                f"{where} has the bits {list(positions)}",
                "bits of a flag must be neighbours: correct the product definition",
            )
        out.append(_Flag(str(name), positions, values))
    return tuple(out)


def _is_enum(flags: tuple[_Flag, ...]) -> bool:
    """One flag that takes the whole pixel: its values are the classes."""
    return len(flags) == 1 and len(flags[0].bits) != 1 and bool(flags[0].values)


def _find_rule(name: str, flags: tuple[_Flag, ...]) -> kernels.FlagRule | None:
    flag_name, _, value = (part.strip() for part in name.partition("="))
    flag = next((f for f in flags if f.name == flag_name), None)
    if flag is None or not flag.bits:
        return None
    if not value:
        return flag.rule(1) if len(flag.bits) == 1 else None
    found = next((k for k, v in flag.values.items() if v == value), None)
    return None if found is None else flag.rule(found)


def _unknown(
    name: str, product: Product, measurement: Measurement, flags: tuple[_Flag, ...]
) -> ConfigError:
    where = f"band {measurement.name!r} of product {product.name!r}"
    if not flags:
        return ConfigError(
            f"{where} names no classes, so {name!r} can't be found",
            "write pixel values, e.g. [2, 3], or give the band a flags_definition",
        )
    if _is_enum(flags):
        return ConfigError(f"{where} has no class {name!r}", hint(name, flags[0].values.values()))
    listed: list[str] = []
    for flag in flags:
        listed += [flag.name] if len(flag.bits) == 1 else []
        listed += [f"{flag.name}={value}" for value in flag.values.values()]
    return ConfigError(f"{where} has no flag {name!r}", hint(name, listed))


def _text(value: Any) -> str:
    """YAML's true and false as people write them."""
    return str(value).lower() if isinstance(value, bool) else str(value)
