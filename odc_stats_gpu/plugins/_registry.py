"""From a name in the configuration to a plugin: entry points, dotted paths, files of one's own."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from odc_stats_gpu.errors import ConfigError
from odc_stats_gpu.model import Product
from odc_stats_gpu.plugins._base import Numerics, StatsPlugin
from odc_stats_gpu.plugins._config import hint

GROUP = "odc_stats_gpu.plugins"
_BUILT_IN = {  # also in pyproject.toml; here for a checkout that isn't installed
    "gm-generic": "odc_stats_gpu.plugins:GeomedianGeneric",
    "gm-ls": "odc_stats_gpu.plugins:GeomedianLandsat",
    "gm-s2": "odc_stats_gpu.plugins:GeomedianSentinel2",
    "pq": "odc_stats_gpu.plugins:PixelQuality",
}
_INCUMBENT = {
    "StatsGM": "gm-generic",
    "StatsGMS2": "gm-s2",
    "StatsGMLS": "gm-ls",
    "StatsPQ": "pq",
}


def registered_plugins() -> dict[str, EntryPoint]:
    """Every registered name, whether or not its code can be imported.

    Raises:
        ConfigError: two packages register the same name for different classes.
    """
    found = {name: EntryPoint(name, value, GROUP) for name, value in _BUILT_IN.items()}
    for entry in entry_points(group=GROUP):
        known = found.setdefault(entry.name, entry)
        if known.value != entry.value:
            raise ConfigError(
                f"the plugin name {entry.name!r} is registered for {known.value} and {entry.value}",
                "uninstall one of the packages, or name the class by its dotted path",
            )
    return dict(sorted(found.items()))


def load_plugin(
    name: str,
    config: Mapping[str, Any] | None = None,
    *,
    numerics: Numerics = "exact",
    products: Mapping[str, Product] | None = None,
) -> StatsPlugin:
    """Make the plugin `name` with its `plugin_config`.

    `name` is a registered name (gm-ls), a dotted path `package.module.Class`, a file
    `path/to/file.py:Class`, or the incumbent's dotted name of a plugin that exists here too.
    Given the input products, bands and classes are checked at once.

    Raises:
        ConfigError: unknown name (listing the registered ones), code that can't be imported (with
            the import's own error), unknown or wrong key, band or class that a product lacks.
    """
    found = _find(name)
    plugin = found(found.Config.parse(config, f"plugin_config of {name}"), numerics=numerics)
    if products:
        for product in products.values():
            plugin.inputs(product)
        plugin.native_bands(products)
        plugin.output_bands(products)
    return plugin


def _find(name: str) -> type[StatsPlugin]:
    if not name:
        raise ConfigError(
            "no plugin is named", f"give plugin: one of {', '.join(registered_plugins())}"
        )
    if name.startswith("odc.stats.") and (last := name.rpartition(".")[2]) in _INCUMBENT:
        name = _INCUMBENT[last]
    path, _, attribute = name.rpartition(":") if ".py:" in name else (name, "", "")
    if path.endswith(".py"):
        return _checked(_from_file(Path(path), name), attribute, name)
    registered = registered_plugins()
    if entry := registered.get(name):
        module, _, attribute = entry.value.partition(":")
        owner = f" (from {entry.dist.name})" if entry.dist else ""
        return _checked(_imported(module, f"{name!r}, {entry.value}{owner},"), attribute, name)
    module, _, attribute = name.replace(":", ".").rpartition(".")
    if not module:
        raise ConfigError(f"unknown plugin {name!r}", hint(name, registered))
    return _checked(_imported(module, repr(name)), attribute, name)


def _imported(module: str, what: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except Exception as exc:  # whatever a stranger's module does while it is imported
        absent = exc.name if isinstance(exc, ModuleNotFoundError) else None
        missing = absent is not None and f"{module}.".startswith(f"{absent}.")
        remedy = (
            f"registered: {', '.join(registered_plugins())}; a file is named path/to/file.py:Class"
            if missing
            else "correct the module, or install what it needs"
        )
        raise ConfigError(
            f"the plugin {what} can't be imported: {type(exc).__name__}: {exc}", remedy
        ) from exc


def _from_file(path: Path, name: str) -> ModuleType:
    """Import a file by path; the same file is the same module within a process."""
    if not path.is_file():
        raise ConfigError(f"the plugin file {path} doesn't exist", "write path/to/file.py:Class")
    path = path.resolve()
    key = f"odc_stats_gpu_plugin_{path.stem}_{abs(hash(str(path))):x}"
    if key in sys.modules:
        return sys.modules[key]
    spec = importlib.util.spec_from_file_location(key, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path} is no Python file", "write path/to/file.py:Class")
    module = importlib.util.module_from_spec(spec)
    sys.modules[key] = module  # before execution: dataclasses and pydantic look their module up
    try:
        spec.loader.exec_module(module)
    except Exception as exc:  # as above
        del sys.modules[key]
        raise ConfigError(
            f"the plugin {name!r} can't be imported: {type(exc).__name__}: {exc}",
            "correct the file, or install what it needs",
        ) from exc
    return module


def _checked(module: ModuleType, attribute: str, name: str) -> type[StatsPlugin]:
    """The class, after making sure that it is a plugin."""
    own = {
        k: v for k, v in vars(module).items()
        if inspect.isclass(v) and issubclass(v, StatsPlugin) and v is not StatsPlugin
    }  # fmt: skip
    if not attribute:
        written = [v for v in own.values() if v.__module__ == module.__name__]
        if len(written) != 1:
            raise ConfigError(f"{name!r} names no class", hint("", own))
        return _complete(written[0], name)
    found = getattr(module, attribute, None)
    if found is None:
        raise ConfigError(f"the plugin {name!r} has no class {attribute!r}", hint(attribute, own))
    if not (inspect.isclass(found) and issubclass(found, StatsPlugin)):
        raise ConfigError(
            f"the plugin {name!r} is no StatsPlugin", "extend odc_stats_gpu.plugins.StatsPlugin"
        )
    return _complete(found, name)


def _complete(found: type[StatsPlugin], name: str) -> type[StatsPlugin]:
    if missing := sorted(getattr(found, "__abstractmethods__", ())):
        raise ConfigError(
            f"the plugin {name!r} doesn't define {', '.join(missing)}", "see docs/plugins.md"
        )
    return found
