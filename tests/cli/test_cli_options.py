"""What a user types: help, spellings, precedence, one-line errors. No pixel is read here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from odc_stats_gpu.cli._yaml import merge, read_mapping
from odc_stats_gpu.engine import RunRequest
from odc_stats_gpu.errors import ConfigError


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from odc_stats_gpu.cli import main; main(['run', '--help']);"
        "heavy = {'numpy', 'xarray', 'rasterio', 'numba', 'odc.geo', 'structlog',"
        " 'boto3', 'yaml', 'fsspec'} & set(sys.modules); sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--memory-limit" in done.stdout


def test_the_supervising_process_stays_light():
    code = (
        "import sys; import odc_stats_gpu.engine._worker, odc_stats_gpu.engine._run,"
        " odc_stats_gpu.engine._start, odc_stats_gpu.cli._run, odc_stats_gpu.telemetry;"
        "heavy = {'numpy', 'xarray', 'rasterio', 'numba', 'odc.geo'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("run", ["--threads", "--memory-limit", "--dryrun", "--dry-run", "--overwrite",
                 "--no-overwrite", "--heartbeat-filepath", "--dataset-filters", "--public",
                 "--no-public", "--apply_eodatasets3", "--apply-eodatasets3", "--location",
                 "--max-processing-time", "--from-sqs", "--config", "--plugin-config",
                 "--cog-config", "--plugin", "--resampling", "--resolution", "--block-size",
                 "--device", "--cluster", "--scheduler", "--log-format", "--debug"]),
        ("save-tasks", ["--input-products", "--grid", "--frequency", "--year", "--temporal-range",
                        "--env", "-E", "-z", "--overwrite", "--tiles", "--gqa",
                        "--usgs-collection-category", "--dataset-filter", "--ignore-time",
                        "--optional-products", "--config", "--eo3", "--product-definition"]),
        ("publish-tasks", ["--dryrun", "--dry-run", "--geojson-filter"]),
        ("redrive-queue", ["--limit", "-l", "--dryrun", "--dry-run"]),
        ("verify", ["--json"]),
        ("report", ["--out"]),
        ("doctor", ["--json"]),
        ("demo", ["--out", "--seed"]),
    ],
)  # fmt: skip
def test_both_dialects_are_spelled(here, command, options):
    code, out, _ = here(command, "--help")
    assert code == 0
    for option in options:
        assert option in out, option


def test_usage_errors_are_one_line_and_exit_2(here):
    for args in (["run", "--no-such"], ["run", "--threads", "many"], ["nothing"], ["verify"]):
        code, out, err = here(*args)
        assert code == 2, args
        assert out == ""
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        assert "--help" in err


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["run", "--threads", "many"], "should be a valid integer, not 'many' (see"),
        (["run", "--threads=many"], "not 'many' (see"),
        (["run", "--profile", "gdb"], "'--profile': 'gdb' is not one of 'nsys', 'ncu'"),
        (["queue-status", "q", "--interval", "0"], "--interval"),
    ],
)
def test_usage_errors_name_the_value(here, args, words):
    code, _, err = here(*args)
    assert code == 2
    assert words in err
    assert "Value error" not in err
    assert "unable to parse" not in err


@pytest.mark.parametrize("args", [[], ["k8s"]])
def test_a_group_alone_shows_its_help(here, args):
    code, _, err = here(*args)
    assert code == 2
    assert err.startswith("Usage: ")
    assert err.count("\n") > 5


@pytest.mark.parametrize(
    "command", [["publish-tasks", "x.db", "q"], ["redrive-queue", "q", "--limit", "0"]]
)
def test_queue_commands_refuse_in_one_line(here, command):
    code, _, err = here(*command)
    assert code == 2
    assert err.count("\n") == 1


def test_yaml_may_be_a_file_a_url_or_text(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("threads: 3\n---\nthreads: 4\n")
    assert read_mapping(str(path), "--config") == {"threads": 3}  # the first document
    assert read_mapping(path.as_uri(), "--config") == {"threads": 3}
    assert read_mapping("{threads: 5}", "--config") == {"threads": 5}
    assert read_mapping("threads: 5\nplugin: pq\n", "--config") == {"threads": 5, "plugin": "pq"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [("nofile.yaml", "no such file"), ("[1, 2]", "list"), ("{a: [", "no YAML"),
     ("file:///no/such.yaml", "can't read"), ("5", "int")],
)  # fmt: skip
def test_wrong_yaml_is_explained(text, reason):
    with pytest.raises(ConfigError, match=reason):
        read_mapping(text, "--config")


def test_the_command_line_wins_whenever_given():
    text = "{threads: 4, gqa: 1, overwrite: true, temporal-range: 2019--P1Y, plugin: pq}"
    given = {"threads": 0, "gqa": 0.0, "overwrite": False, "plugin": None, "temporal_range": None}
    assert merge(text, given) == {
        "threads": 0, "gqa": 0.0, "overwrite": False, "plugin": "pq", "temporal_range": "2019--P1Y",
    }  # fmt: skip


@pytest.fixture
def request_of(here, monkeypatch):
    """The request that `run` makes of its arguments."""

    def run(*args):
        caught = []
        monkeypatch.setattr("odc_stats_gpu.cli._run.plan_tiles", lambda r, _: caught.append(r) or 0)
        code, _, err = here("run", *args, "--dry-run")
        assert code == 0, err
        request: RunRequest = caught[0]
        return request

    return run


def test_plugin_config_merges_one_level_and_cog_config_replaces(request_of):
    config = "{plugin_config: {a: 1, b: {c: 2}}, cog_opts: {zlevel: 9, blocksize: 512}}"
    request = request_of(
        "x.db", "--config", config, "--plugin-config", "{b: {d: 3}}", "--resampling", "cubic",
        "--cog-config", "{compress: zstd}",
    )  # fmt: skip
    assert request.config["plugin_config"] == {"a": 1, "b": {"d": 3}, "resampling": "cubic"}
    assert request.config["cog_opts"] == {"compress": "zstd"}


def test_flags_can_be_turned_off(request_of):
    config = "{s3_acl: public-read, s3_public: true, overwrite: true, apply_eodatasets3: true}"
    request = request_of(
        "x.db", "--config", config, "--no-public", "--no-overwrite", "--no-apply-eodatasets3"
    )
    assert request.config["s3_acl"] == ""
    assert request.config["s3_public"] is False
    assert request.config["overwrite"] is False
    assert request.config["apply_eodatasets3"] is False
    assert request_of("x.db", "--public").config["s3_acl"] == "public-read"
    assert request_of("x.db", "--apply_eodatasets3").config["apply_eodatasets3"] is True


def test_selectors_may_look_like_options(request_of):
    request = request_of("x.db", "-10:", "2015--P1Y/41/13", "--threads=16")
    assert [s.strip() for s in request.selectors] == ["-10:", "2015--P1Y/41/13"]
    assert request.config["threads"] == 16


def test_the_database_may_come_from_the_configuration(request_of):
    request = request_of("2015--P1Y/41/13", "--config", "{filedb: /data/a.db}")
    assert request.filedb == "/data/a.db"
    assert request.selectors == ("2015--P1Y/41/13",)


WRONG = [
    (["--config", "{plugin: gm-ls, thread: 3}"], "did you mean 'threads'"),
    (["--plugin-config", "{bands: [nbart_red, purple]}", "--resampling", "bilinear"], "purple"),
    (["--plugin", "gm-lx"], "did you mean 'gm-ls'"),
    (["--resolution", "7"], "impossible resolution"),
    (["--memory-limit", "10Q"], "60Gi"),
    (["--memory-limit", "100Mi"], "needs at least"),
    (["--block-size", "x"], "256"),
    (["--device", "gpu"], "device"),
    (["--rmm-pool", "2"], "rmm_pool '2' (a fraction"),
    (["--cog-config", "{zlevel: 99}"], "zlevel = 99 (give a whole number"),
    (["--cog-config", "{overrides: {red: {zstd_level: high}}}"], "zstd_level = 'high'"),
    (["--cog-config", "{overrides: [red]}"], "overrides = ['red']"),
    (["--dataset-filters", "{"], "dataset filter"),
    (["--resampling", "magic"], "magic"),
    (["--threads", "2", "--location", "ftp://x/y"], "unknown scheme"),
]


@pytest.mark.parametrize(("args", "words"), WRONG, ids=[w for _, w in WRONG])
def test_wrong_configuration_is_one_line_with_remedy_and_exit_2(here, mini, tmp_path, args, words):
    if "--plugin-config" in args:
        args = ["--plugin", "gm-ls", *args]
    elif "--config" not in args:
        args = ["--config", mini.config, *args]
    where = [] if "--location" in args else ["--location", tmp_path / "out"]
    code, out, err = here("run", mini.db, *args, *where, "--cluster", "none")
    assert code == 2, err
    assert words in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert out == ""
    assert not (tmp_path / "out").exists()


def test_what_is_missing_is_named(here, mini, tmp_path):
    for args, words in (
        ([mini.db, "--config", mini.config], "location"),
        ([mini.db, "--location", tmp_path / "o"], "plugin"),
        (["--config", mini.config, "--location", tmp_path / "o"], "task database"),
        (["no.db", "--config", mini.config, "--location", tmp_path / "o"], "no.db"),
        ([mini.db, "99", "--config", mini.config, "--location", tmp_path / "o"], "99"),
        ([mini.db, "--config", mini.config, "--location", "/proc/no"], "/proc/no"),
    ):
        code, _, err = here("run", *args, "--cluster", "none")
        assert code == 2, err
        assert words in err
        assert err.count("\n") == 1


def test_a_file_that_is_no_database_is_wrong_use(here, mini, tmp_path):
    bad = tmp_path / "bad.db"
    bad.write_bytes(b"not a database" * 1000)
    code, _, err = here("run", bad, "--config", mini.config, "--location", tmp_path / "o",
                        "--cluster", "none")  # fmt: skip
    assert code == 2
    assert str(bad) in err
    assert err.count("\n") == 1


@pytest.fixture
def website(tmp_path):
    """A web server over a folder."""
    import functools
    import http.server
    import threading

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_args):
            """Say nothing."""

    handler = functools.partial(Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        yield tmp_path, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_configuration_and_database_may_be_on_the_web(here, mini, website, tmp_path):
    folder, url = website
    (folder / "c.yaml").write_text(Path(mini.config).read_text())
    (folder / "t.db").write_bytes(Path(mini.db).read_bytes())
    args = ["--config", f"{url}/c.yaml", "--location", tmp_path / "o", "--dry-run"]
    code, text, err = here("run", f"{url}/t.db", "0", *args)
    assert code == 0, err
    assert "(new)" in text
    code, _, err = here("run", f"{url}/none.db", "0", *args)
    assert code == 2
    assert "404" in err
    assert err.count("\n") == 1


def test_save_tasks_from_a_folder(here, mini, tmp_path):
    out = tmp_path / "mine.db"
    args = ["save-tasks", "--eo3", mini.folder, "--grid", "epsg:3577;30;64"]
    code, text, err = here(*args, "ga_ls8c_ard_3", out)
    assert code == 0, err
    assert "spatial tiles" in text
    assert out.exists()
    assert out.with_suffix(".csv").exists()
    code, _, err = here(*args, out)
    assert code == 2
    assert "--overwrite" in err
    assert here(*args, out, "--overwrite", "--config", "{frequency: monthly}")[0] == 0
    assert len(list(tmp_path.glob("mine-*.geojson"))) > 1
    code, text, _ = here(*args, "--year", "1999", tmp_path / "none.db")
    assert code == 1
    assert "found no datasets (check products" in text
    assert not (tmp_path / "none.db").exists()


@pytest.mark.parametrize(
    ("args", "words"),
    [(["--grid", "nowhere-30"], "nowhere-30"), (["--grid", "au-30", "--year", "x"], "year"),
     (["--grid", "au-30", "--frequency", "hourly"], "hourly"), ([], "grid"),
     (["--grid", "au-30", "nothing_like_it"], "missing product definition"),
     (["--grid", "au-30", "--tiles", "1-2"], "tiles"),
     (["--grid", "au-30", "--year", "2020", "--temporal-range", "2020--P1Y"], "--temporal-range")],
)  # fmt: skip
def test_save_tasks_explains_itself(here, mini, tmp_path, monkeypatch, args, words):
    monkeypatch.chdir(tmp_path)
    code, _, err = here("save-tasks", "--eo3", mini.folder, *args)
    assert code == 2, err
    assert words in err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_doctor_speaks_json(here, monkeypatch):
    monkeypatch.setattr("odc_stats_gpu.engine._doctor.datacube", lambda _env: _finding())
    code, out, _ = here("doctor", "--json", "--quick")
    assert code == 0
    found = {f["what"]: f for f in json.loads(out)}
    assert {"gpu", "cupy", "memory", "cpus", "disk", "gdal", "aws", "datacube"} <= set(found)
    assert all(f["ok"] or f["remedy"] for f in found.values())


def _finding():
    from odc_stats_gpu.engine import Finding

    return Finding("datacube", ok=True, found="not asked")
