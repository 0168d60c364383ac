"""`run --profile`: the printed command line, and what runs under a stand-in for the profiler."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

from odc_stats_gpu.cli._profile import _without
from odc_stats_gpu.engine import profiled

STANDIN = """\
#!{python}
# takes its own options off, runs the rest and writes a report, as the real one does
import json, os, subprocess, sys
tool, rest = os.path.basename(sys.argv[0]), sys.argv[1:]
if rest[0] == "profile":
    rest = rest[1:]
own = []
while rest[0].startswith("-"):
    own.append(rest.pop(0))
out = next(o.partition("=")[2] for o in own if o.startswith(("--output=", "--export=")))
code = subprocess.call(rest)
nvtx = os.environ.get("ODC_STATS_NVTX")
with open(f"{{out}}.{{tool}}-rep", "w") as f:
    json.dump({{"own": own, "command": rest, "nvtx": nvtx, "code": code}}, f)
sys.exit(code)
"""


@pytest.fixture
def tools(tmp_path):
    """PATH with both stand-ins first."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in ("nsys", "ncu"):
        (folder / tool).write_text(STANDIN.format(python=sys.executable))
        (folder / tool).chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def words(text):
    """Variables and arguments of a printed command line."""
    parts = shlex.split(text)
    added = [p for p in parts if "=" in p and p.partition("=")[0].isupper()]
    return dict(p.split("=", 1) for p in added), parts[len(added) :]


def test_nsys_traces_cuda_and_ranges_of_the_command_and_its_children():
    run = profiled("nsys", ["odc", "run", "a b.db"], "out/tile")
    added, parts = words(run.line)
    assert added == {"ODC_STATS_NVTX": "1"}
    assert parts[:2] == ["nsys", "profile"]
    assert parts[-3:] == ["odc", "run", "a b.db"]
    assert set(parts[2:-3]) == {
        "--trace=cuda,nvtx,osrt", "--sample=process-tree", "--force-overwrite=true",
        "--output=out/tile",
    }  # fmt: skip
    assert run.report == Path("out/tile.nsys-rep")
    assert tuple(parts) == run.command


def test_ncu_profiles_our_kernels_in_every_process_with_source_lines():
    run = profiled("ncu", ["odc", "run", "t.db"], "tile.ncu-rep")
    added, parts = words(run.line)
    assert added == {"ODC_STATS_NVTX": "1", "ODC_STATS_LINEINFO": "1"}
    assert parts[0] == "ncu"
    assert {"--target-processes=all", "--set=full", "--nvtx", "--import-source=yes",
            "--kernel-name=regex:odc_stats_gpu", "--kernel-name-base=mangled",
            "--export=tile"} < set(parts)  # fmt: skip
    assert any(p.startswith("--launch-count=") for p in parts)
    assert run.report == Path("tile.ncu-rep")
    assert profiled("ncu", ["x"]).report == Path("odc-stats-gpu.ncu-rep")


def test_every_kernel_of_ours_has_the_name_that_ncu_looks_for():
    import sass

    from odc_stats_gpu.kernels.counts.cuda import KERNELS
    from odc_stats_gpu.kernels.geomedian._cuda_kernel import geomad_kernel

    for _, function, types in KERNELS:
        ptx = sass.compile_ptx(function, types, (9, 0), fastmath=False)
        entry = ptx.partition(".entry ")[2].partition("(")[0]
        assert "odc_stats_gpu" in entry
    assert geomad_kernel(6, 4, "int16", on_chip=True).__module__.startswith("odc_stats_gpu.")


@pytest.mark.parametrize(
    "given",
    [["--profile", "nsys", "--profile-output", "x"], ["--profile=nsys", "--profile-output=x"],
     ["--dry-run", "--profile", "ncu"], ["--dryrun", "--profile=ncu"]],
)  # fmt: skip
def test_the_profiled_command_is_this_one_without_the_profile(given):
    ours = ["t.db", "0:1", "--config", "c.yaml", "--threads=2"]
    assert _without([*ours[:2], *given, *ours[2:]]) == ours


def test_a_dry_run_prints_the_command_line_and_does_nothing(here, mini, tmp_path):
    code, out, err = here(
        "run", mini.db, "0", "--config", mini.config, "--location", tmp_path / "o",
        "--profile", "nsys", "--dry-run", "--profile-output", tmp_path / "p",
    )  # fmt: skip
    assert (code, err) == (0, "")
    added, parts = words(out)
    assert out.count("\n") == 1
    assert added == {"ODC_STATS_NVTX": "1"}
    inner = parts[parts.index(sys.executable) :]
    assert inner == [
        sys.executable, "-m", "odc_stats_gpu", "run", "--cluster=worker", mini.db, "0",
        "--config", mini.config, "--location", str(tmp_path / "o"),
    ]  # fmt: skip
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("config", "options", "added"),
    [("", [], ["--cluster=worker"]), ("{cluster: none}", [], []),
     ("", ["--cluster", "dask-cuda"], [])],
    ids=["nothing", "yaml", "option"],
)  # fmt: skip
def test_a_cluster_that_is_named_stays(here, config, options, added):
    given = [*(["--config", config] if config else []), *options]
    code, out, _ = here("run", "t.db", *given, "--profile", "ncu", "--dry-run")
    assert code == 0
    _, parts = words(out)
    tail = parts[parts.index("run") + 1 :]
    assert tail == [*added, "--max-processing-time=0", "t.db", *given]


def test_misuse_is_one_line(here, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))  # nothing on it
    for options, text in (
        (["--profile", "nsys"], "nsys is not installed (install Nsight Systems"),
        (["--profile", "ncu"], "ncu is not installed (install Nsight Compute"),
        (["--profile", "nsys", "--scheduler", "tcp://h:8786"], "leave out --scheduler"),
        (["--profile-output", "x"], "--profile-output without --profile"),
        (["--profile", "vtune"], "vtune"),
    ):
        code, out, err = here("run", "t.db", *options)
        assert code == 2, options
        assert text in err, options
        assert err.count("\n") == 1
        assert out.count("\n") == ("not installed" in text)  # the command line comes first


def test_a_report_needs_its_folder(here, monkeypatch, tools, tmp_path):
    monkeypatch.setenv("PATH", tools)
    where = tmp_path / "nowhere" / "p"
    code, _, err = here("run", "t.db", "--profile", "nsys", "--profile-output", where)
    assert code == 2
    assert str(where.parent) in err


def test_a_tile_is_really_made_under_the_profiler(finish, mini, tools, tmp_path):
    import json

    out, report = tmp_path / "o", tmp_path / "tile.nsys-rep"
    code, text, err = finish(
        "run", mini.db, "0", "--config", mini.config, "--location", out, "--device", "cpu",
        "--profile", "nsys", "--profile-output", report, PATH=tools,
    )  # fmt: skip
    assert code == 0, err
    assert "T:1, OK:1, S:0, E:0" in text
    assert len(list(out.rglob("*.stac-item.json"))) == 1
    seen = json.loads(report.read_text())
    assert seen["nvtx"] == "1"
    lines = text.splitlines()
    assert words(lines[0])[1][2:] == [*seen["own"], *seen["command"]]  # printed, then run
    assert lines[-1] == f"wrote {report}"


def test_the_exit_code_is_that_of_the_command(finish, tools, tmp_path):
    code, _, err = finish(
        "run", tmp_path / "no.db", "--plugin", "pq", "--location", tmp_path, "--profile", "ncu",
        "--profile-output", tmp_path / "p", PATH=tools,
    )  # fmt: skip
    assert code == 2
    assert "no.db" in err


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_a_signal_ends_everything(command, mini, tools, tmp_path, number):
    mark, out = tmp_path / "mark", tmp_path / "o"
    process = command(
        "run", mini.db, "0", "--config", mini.config, "--location", out, "--device", "cpu",
        "--profile", "nsys", "--profile-output", tmp_path / "p", PATH=tools,
        ODC_STATS_FAULT=f"block_reduced:sleep4:once={mark}",
    )  # fmt: skip
    until = time.monotonic() + 120
    while not mark.exists():
        assert time.monotonic() < until
        time.sleep(0.05)
    below = psutil.Process(process.pid).children(recursive=True)
    assert len(below) >= 3  # the profiler, the command, its worker
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 3, err
    _, alive = psutil.wait_procs(below, timeout=30)
    assert not alive
    assert [p for p in out.rglob("*") if p.is_file()] == []


def test_the_page_shows_these_command_lines_and_knows_every_range_and_fact():
    from odc_stats_gpu.telemetry._metric_set import STAGES

    page = (Path(__file__).parents[2] / "docs/profiling.md").read_text()
    for tool in ("nsys", "ncu"):
        run = profiled(tool, ["python"], "tile" if tool == "nsys" else "")
        for word in run.command:
            assert word in page, word
        for name in run.environment:
            assert f"{name}=1 " in page
    for stage in STAGES:
        assert f"`{stage}`" in page, stage
    for fact in ("busy_mean", "busy_max", "memory_peak_mib", "watts_mean", "joules", "sm_mhz_mean"):
        assert f"`{fact}`" in page
        assert f'"{fact}"' in page


@pytest.mark.parametrize(
    ("env", "lines"),
    [
        ({}, True),
        pytest.param({"ODC_STATS_LINEINFO": "0"}, False, marks=pytest.mark.slow),
        pytest.param({"NUMBA_ENABLE_CUDASIM": "1"}, False, marks=pytest.mark.slow),
    ],
    ids=["with", "without", "simulator"],
)
def test_kernels_have_line_numbers_when_asked(env, lines):
    import subprocess

    code = (
        "from odc_stats_gpu.kernels.counts import cuda\n"
        "from odc_stats_gpu.kernels.geomedian.cuda import compiled\n"
        "from odc_stats_gpu.kernels._cuda_launch import kernel\n"
        "found = [kernel(cuda.KERNELS[0][1]), compiled(3, 1, 'int16', True)]\n"
        "print({bool(getattr(k, 'targetoptions', {}).get('lineinfo')) for k in found})"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"ODC_STATS_LINEINFO": "1"} | env,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert run.stdout.strip() == f"{{{lines}}}"
