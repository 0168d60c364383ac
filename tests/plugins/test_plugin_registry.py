"""Plugins by name, dotted path and file; what fails to import is told, not hidden."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint

import pytest

from odc_stats_gpu.errors import ConfigError
from odc_stats_gpu.plugins import (
    GeomedianGeneric,
    GeomedianLandsat,
    GeomedianSentinel2,
    PixelQuality,
    StatsPlugin,
    _registry,
    load_plugin,
    registered_plugins,
)

GENERIC = {"bands": ["red"], "mask_band": "fmask", "cloud_classes": ["cloud"]}
PLUGIN = """
from odc_stats_gpu.plugins import StatsPlugin
class Mine(StatsPlugin):
    def reduce(self, stack):
        return stack.isel(time=0)
class Unfinished(StatsPlugin):
    pass
class Other:
    pass
"""


@pytest.mark.parametrize(
    ("name", "config", "kind"),
    [
        ("gm-generic", GENERIC, GeomedianGeneric),
        ("gm-ls", {}, GeomedianLandsat),
        ("gm-s2", None, GeomedianSentinel2),
        ("pq", {}, PixelQuality),
        ("odc_stats_gpu.plugins.GeomedianLandsat", {}, GeomedianLandsat),
        ("odc.stats.plugins.gm.StatsGM", GENERIC, GeomedianGeneric),
        ("odc.stats.plugins.gm.StatsGMS2", {}, GeomedianSentinel2),
        ("odc.stats.plugins.gm.StatsGMLS", {}, GeomedianLandsat),
        ("odc.stats.plugins.pq.StatsPQ", {}, PixelQuality),
    ],
)
def test_names_old_and_new(name, config, kind):
    assert type(load_plugin(name, config)) is kind


def test_the_four_are_entry_points():
    assert {"gm-generic", "gm-ls", "gm-s2", "pq"} <= set(registered_plugins())


def test_a_file_holds_a_plugin(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(PLUGIN)
    plugin = load_plugin(f"{path}:Mine", {"input_bands": ["red"]})
    assert isinstance(plugin, StatsPlugin)
    assert (plugin.name, plugin.short_name) == ("mine", "mine")
    assert type(load_plugin(f"{path}:Mine", {})) is type(plugin)


def test_a_module_on_the_path_holds_a_plugin(tmp_path, monkeypatch):
    (tmp_path / "my_plugin_module.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    assert load_plugin("my_plugin_module.Mine").name == "mine"
    assert load_plugin("my_plugin_module:Mine").name == "mine"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "gm-lss",
            "unknown plugin 'gm-lss' (did you mean 'gm-ls'? known: gm-generic, gm-ls, gm-s2, pq",
        ),
        ("wofs", "unknown plugin 'wofs' (known: gm-generic, gm-ls, gm-s2, pq"),
        ("", "no plugin is named (give plugin: one of gm-generic"),
        ("no.such.Module", "the plugin 'no.such.Module' can't be imported: ModuleNotFoundError"),
        ("odc.stats.plugins.wofs.StatsWofs", "(registered: gm-generic, gm-ls, gm-s2, pq"),
        (
            "odc_stats_gpu.plugins.GeomedianLandsatt",
            "has no class 'GeomedianLandsatt' (did you mean 'GeomedianLandsat'?",
        ),
        ("pathlib.Path", "the plugin 'pathlib.Path' is no StatsPlugin"),
        ("{tmp}/none.py:Mine", "none.py doesn't exist (write path/to/file.py:Class)"),
        ("{tmp}/mine.py:Yours", "has no class 'Yours' (known: Mine, Unfinished"),
        ("{tmp}/mine.py", "names no class (known: Mine, Unfinished"),
        ("{tmp}/mine.py:Unfinished", "doesn't define reduce"),
        ("{tmp}/mine.py:Other", "is no StatsPlugin"),
        (
            "{tmp}/broken.py:Mine",
            "can't be imported: ModuleNotFoundError: No module named 'tensorflow_of_tomorrow'",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_loaded_says_why(tmp_path, name, message):
    (tmp_path / "mine.py").write_text(PLUGIN)
    (tmp_path / "broken.py").write_text("import tensorflow_of_tomorrow\n" + PLUGIN)
    with pytest.raises(ConfigError) as caught:
        load_plugin(name.format(tmp=tmp_path))
    assert message in str(caught.value)


def test_a_broken_entry_point_is_listed_and_explained(tmp_path, monkeypatch):
    (tmp_path / "half_installed.py").write_text("raise OSError('libgone.so.3: cannot open')")
    monkeypatch.syspath_prepend(tmp_path)
    entry = EntryPoint("mangroves", "half_installed:Mangroves", _registry.GROUP)
    monkeypatch.setattr(_registry, "entry_points", lambda group: [entry])
    with pytest.raises(ConfigError) as caught:
        load_plugin("mangroves")
    assert "'mangroves', half_installed:Mangroves" in caught.value.message
    assert "OSError: libgone.so.3: cannot open" in caught.value.message
    with pytest.raises(ConfigError, match="mangroves"):
        load_plugin("nothing-like-it")
    assert "half_installed" not in sys.modules


def test_one_name_for_two_classes_is_refused(monkeypatch):
    entry = EntryPoint("pq", "somewhere:Else", _registry.GROUP)
    monkeypatch.setattr(_registry, "entry_points", lambda group: [entry])
    with pytest.raises(
        ConfigError,
        match=r"'pq' is registered for odc_stats_gpu\.plugins:PixelQuality and somewhere:Else",
    ):
        registered_plugins()
