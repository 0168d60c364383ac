"""The tour shows every command, stops at the first that fails and can be taken again."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from odc_stats_gpu.demo import _tour, run_demo
from odc_stats_gpu.demo._steps import Step, perform
from odc_stats_gpu.errors import ConfigError
from odc_stats_gpu.model import parse_config


def test_a_step_is_echoed_run_and_logged(tmp_path):
    text = io.StringIO()
    console = Console(file=text, width=60)
    step = Step("version", "Which version is it?", ("run", "--help"))
    outcome = perform(step, tmp_path / "log", console)
    assert outcome.code == 0
    assert outcome.seconds > 0
    assert "$ odc-stats-gpu run --help" in text.getvalue()
    assert "--location" in (tmp_path / "log").read_text()


def test_a_failed_step_shows_all_it_said(tmp_path):
    text = io.StringIO()
    where = tmp_path / ("deep" * 30) / "missing.db"
    args = ("run", str(where), "--plugin", "gm-ls", "--location", str(tmp_path))
    outcome = perform(Step("x", "why", args), tmp_path / "log", Console(file=text))
    assert outcome.code == 2
    assert str(where) in text.getvalue().split("$ odc-stats-gpu", 1)[1].split("\n", 1)[1]
    assert "exit code 2" in text.getvalue()


def test_the_tour_ends_with_the_code_of_the_step_that_failed(tmp_path, monkeypatch, capsys):
    ran = []

    def plan(out, archives, threads, device):
        ran.append((len(archives), threads, device))
        return [Step("bad", "Fails", ("run", "nowhere.db")), Step("never", "Not run", ("doctor",))]

    monkeypatch.setattr(_tour, "_plan", plan)
    monkeypatch.setattr(_tour, "_DATES", {"landsat": 2, "sentinel2": 2})
    monkeypatch.setattr(_tour, "_report", lambda *_: pytest.fail("no report of half a job"))
    code = run_demo(tmp_path / "d", tile_pixels=24, threads=1, device="cpu", progress=False)
    assert code == 2
    assert ran == [(2, 1, "cpu")]
    said = capsys.readouterr().out
    assert "nowhere.db" in said
    assert "doctor" not in said


def test_the_demo_takes_nobodys_folder(tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "mine").write_text("precious")
    with pytest.raises(ConfigError, match="didn't make"):
        run_demo(tmp_path, tile_pixels=24)
    assert (tmp_path / "results" / "mine").read_text() == "precious"
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="can't write"):
        run_demo(tmp_path / "file", tile_pixels=24)


def test_the_configurations_are_valid_and_the_old_readmes_bands_are_kept():
    import yaml

    from odc_stats_gpu.plugins import load_plugin

    found = {}
    for path in sorted(_tour._CONFIGS.glob("*.yaml")):
        config = parse_config(yaml.safe_load(path.read_text()), path.name)
        found[path.stem] = load_plugin(config.plugin, config.plugin_config)
    assert set(found) == {name for names in _tour._PRODUCTS.values() for name, _ in names}


@pytest.mark.slow
def test_the_whole_tour_twice(tmp_path, capsys):
    out = tmp_path / "demo"
    assert run_demo(out, tile_pixels=96, threads=2, device="cpu") == 0
    first = capsys.readouterr().out
    assert str(out / "report.html") in first.replace("\n", "")
    for command in ("save-tasks", "run", "verify"):
        assert f"$ odc-stats-gpu {command} " in first
    items = sorted(out.glob("results/*/*/*/*/*.stac-item.json"))
    assert len(items) == 4
    page = (out / "report.html").read_text()
    assert "<img" in page
    stamp = next(out.rglob("*_nbart_red.tif")).stat().st_mtime_ns
    assert run_demo(out, tile_pixels=96, threads=2, device="cpu") == 0
    assert next(out.rglob("*_nbart_red.tif")).stat().st_mtime_ns == stamp
