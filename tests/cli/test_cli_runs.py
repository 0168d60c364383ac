"""`run` as a user sees it: tiles made, faults survived, signals obeyed, nothing left behind."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import signal
import time
from pathlib import Path

import psutil
import pytest

from odc_stats_gpu.tasks import Eo3Source, save_tasks

LINE = re.compile(
    r"^(\S+/\S+/2021--P1Y) days=(\d{3}) ds=(\d{4}) (file:///\S+\.stac-item\.json) "
    r"\((new|skip|recompute)\)$"
)


def digests(folder):
    """What the pixels of a location are."""
    return {
        p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*.tif"))
    }


def items(folder):
    return sorted(p.parent.parent.name for p in Path(folder).rglob("*.stac-item.json"))


def leftovers(folder):
    """Temporary files: hidden or unfinished."""
    return [p for p in Path(folder).rglob("*") if p.name.startswith(".") or ".part" in p.name]


def descendants(process):
    with_children = psutil.Process(process.pid)
    return with_children.children(recursive=True)


def assert_gone(processes):
    _, alive = psutil.wait_procs(processes, timeout=5)
    assert not alive


@pytest.fixture(scope="module")
def made(mini, tmp_path_factory):
    """Both tiles by the default executor, once."""
    import subprocess
    import sys

    out = tmp_path_factory.mktemp("made")
    done = subprocess.run(
        [sys.executable, "-m", "odc_stats_gpu", "run", mini.db, "--config", mini.config,
         "--location", str(out)],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    return done, out


def test_the_readme_configuration_makes_tiles(made, mini):
    done, out = made
    assert done.returncode == 0, done.stderr
    assert "T:2, OK:2, S:0, E:0" in done.stdout.splitlines()
    assert len(items(out)) == 2
    bands = ["blue", "red", "green", "nir", "swir1", "swir2", "sdev", "edev", "bcdev", "count"]
    names = {p.stem.rpartition("_")[2] for p in out.rglob("*.tif")}
    assert names == {*bands, "rgba"}
    assert leftovers(out) == []


def test_the_log_says_when_the_first_pixel_was_read(made):
    done, _ = made
    match = re.search(r"first_read seconds=([\d.]+)", done.stderr)
    assert match
    assert 0 < float(match[1]) < 60
    assert "stages=" in done.stderr
    assert done.stderr.count("first_read") == 1


def test_the_dry_run_says_what_would_be_done(here, mini, made, tmp_path):
    _, out = made
    new = tmp_path / "new"
    for location, flags, word in ((new, [], "new"), (out, [], "skip"),
                                  (out, ["--overwrite"], "recompute")):  # fmt: skip
        code, text, _ = here(
            "run", mini.db, "--config", mini.config, "--location", location, "--dryrun", *flags
        )
        assert code == 0
        lines = [x for x in text.splitlines() if not x.startswith(" ")]
        found = [LINE.match(x) for x in lines]
        assert all(found), lines
        assert [m[5] for m in found] == [word] * 2
        assert all(str(location) in m[4] for m in found)
        assert len(text.splitlines()) > 2 * len(lines)  # the plan, indented below each
        assert "predicted memory" in text
    assert not new.exists()
    uris = {Path(m[4].removeprefix("file://")) for m in found}
    assert uris == set(out.rglob("*.stac-item.json"))


def test_finished_tiles_are_skipped_and_order_is_as_given(here, mini, made):
    _, out = made
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*.tif")}
    code, text, err = here(
        "run", mini.db, mini.tiles[1], "0", "--config", mini.config, "--location", out,
        "--cluster", "none",
    )  # fmt: skip
    assert code == 0
    assert "T:2, OK:0, S:2, E:0" in text
    assert err.index(mini.tiles[1]) < err.index(mini.tiles[0])
    assert before == {p: p.stat().st_mtime_ns for p in out.rglob("*.tif")}


@pytest.mark.parametrize(
    "args", [["--block-size", "20"], ["--block-size", "64x17", "--threads", "1"]]
)
def test_blocks_and_threads_don_t_show_in_the_result(here, mini, made, tmp_path, args):
    _, out = made
    code, _, err = here(
        "run", mini.db, "0", "--config", mini.config, "--location", tmp_path, "--cluster", "none",
        *args,
    )  # fmt: skip
    assert code == 0, err
    mine = digests(tmp_path)
    assert mine == {name: d for name, d in digests(out).items() if name in mine}
    assert len(mine) == 11


def test_a_killed_worker_costs_one_tile(finish, mini, tmp_path):
    code, _, err = finish(
        "run", mini.db, "--config", mini.config, "--location", tmp_path / "o", "--log-format",
        "json", ODC_STATS_FAULT=f"asset_written:kill:once={tmp_path / 'mark'}",
    )  # fmt: skip
    assert code == 1
    assert "T:2, OK:1, S:0, E:1" in err
    log = [json.loads(line) for line in err.splitlines()]
    failed = [x for x in log if x["event"] == "task failed"]
    assert [x["tile"] for x in failed] == [mini.tiles[0]]
    assert "SIGKILL" in failed[0]["error"]
    assert len(items(tmp_path / "o")) == 1
    assert len(list((tmp_path / "o").rglob("*.tif"))) == 11  # of the other tile
    assert leftovers(tmp_path / "o") == []


def test_the_time_limit_stops_a_tile_for_real(finish, mini, tmp_path):
    begin = time.monotonic()
    code, _, err = finish(
        "run", mini.db, "--config", mini.config, "--location", tmp_path / "o",
        "--max-processing-time", "6",
        ODC_STATS_FAULT=f"before_assets:stop:once={tmp_path / 'mark'}",
    )  # fmt: skip
    assert code == 1
    assert time.monotonic() - begin < 60
    assert re.search(rf"failed: {mini.tiles[0]}: stopped after max_processing_time = 6 s", err)
    assert len(items(tmp_path / "o")) == 1


@pytest.mark.parametrize(
    ("number", "extra"),
    [(signal.SIGTERM, []), (signal.SIGINT, []), (signal.SIGTERM, ["--cluster", "none"])],
)
def test_signals_stop_cleanly(command, mini, tmp_path, number, extra):
    out, mark = tmp_path / "o", tmp_path / "mark"
    process = command(
        "run", mini.db, "--config", mini.config, "--location", out, *extra,
        ODC_STATS_FAULT=f"block_reduced:sleep4:once={mark}",
    )  # fmt: skip
    wait_for(mark)
    children = descendants(process)
    assert bool(children) == (not extra)
    begin = time.monotonic()
    process.send_signal(number)
    text, err = process.communicate(timeout=30)
    assert time.monotonic() - begin < 10
    assert process.returncode == 3, err
    assert "T:0, OK:0, S:0, E:0" in text
    assert signal.Signals(number).name in err
    assert "Traceback" not in err
    assert_gone(children)
    assert items(out) == []
    assert leftovers(out) == []


def test_the_worker_dies_with_its_parent(command, mini, tmp_path):
    mark = tmp_path / "mark"
    process = command(
        "run", mini.db, "--config", mini.config, "--location", tmp_path / "o",
        ODC_STATS_FAULT=f"block_read:stop:once={mark}",
    )  # fmt: skip
    wait_for(mark)
    children = descendants(process)
    assert children
    process.kill()
    process.communicate(timeout=30)
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive


def test_a_damaged_scene_fails_its_tile_by_name(here, mini, tmp_path):
    folder = tmp_path / "archive"
    shutil.copytree(mini.folder, folder)
    db = str(tmp_path / "damaged.db")
    period, x, y = mini.tiles[0].split("/")
    save_tasks(
        Eo3Source(folder), grid="epsg:3577;30;64", output=db,
        tiles=((int(x), int(x) + 2), (int(y), int(y) + 1)),
    )  # fmt: skip
    victim = min(folder.rglob("*red*.tif"))
    victim.write_bytes(victim.read_bytes()[:600])
    code, text, err = here(
        "run", db, "--config", mini.config, "--location", tmp_path / "o", "--cluster", "none"
    )
    assert code == 1
    summary = re.search(r"T:2, OK:(\d), S:0, E:(\d)", text)
    assert summary
    assert int(summary[2]) >= 1
    assert len(items(tmp_path / "o")) == int(summary[1])
    assert victim.name in err
    assert f"failed: {period}/" in err
    victim.unlink()
    code, _, err = here(
        "run", db, "--config", mini.config, "--location", tmp_path / "o", "--cluster", "none"
    )
    assert code == 1
    assert victim.name in err


def test_dask_runs_the_same_tile(finish, mini, made, tmp_path):
    _, out = made
    code, text, err = finish(
        "run", mini.db, "0", "--config", mini.config, "--location", tmp_path, "--cluster", "dask"
    )
    assert code == 0, err
    assert "T:1, OK:1, S:0, E:0" in text
    mine = digests(tmp_path)
    assert mine == {name: d for name, d in digests(out).items() if name in mine}


def wait_for(path, seconds=60):
    until = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_verify_and_report(here, made, tmp_path):
    _, out = made
    code, text, err = here("verify", out)
    assert code == 0, text + err
    code, text, _ = here("verify", out, "--json")
    assert json.loads(text)["ok"] is True
    damaged = tmp_path / "damaged"
    shutil.copytree(out, damaged)
    victim = min(damaged.rglob("*_red.tif"))
    victim.write_bytes(victim.read_bytes()[:-1] + b"x")
    code, text, _ = here("verify", damaged)
    assert code == 1
    assert victim.name in text
    page = tmp_path / "page.html"
    assert here("report", out, "--out", page)[0] == 0
    assert "<img" in page.read_text()
