"""Commit: the item comes last, and a failed attempt leaves nothing that looks done."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from odc_stats_gpu.errors import Cancelled, StoreError
from odc_stats_gpu.model import OutputBand
from odc_stats_gpu.output import is_done, item_uri, open_store, verify, writer_bytes
from odc_stats_gpu.telemetry import InjectedFault, recording


def files(folder):
    return sorted(p.name for p in Path(folder).rglob("*") if p.is_file())


def test_names_folders_and_the_sha1_file_are_the_incumbents(kit, tmp_path):
    task = kit.task(maturity="final")
    store = open_store(str(tmp_path))
    cog = {"overrides": {"rgba": {"compress": "DEFLATE"}}}
    with recording() as times:
        written = kit.write(store, task, kit.pixels((96, 80)), cog=cog).commit()
    folder = tmp_path / "x41" / "y13" / "2015--P1Y"
    stem = "ga_gm_x41y13_2015--P1Y_final"
    assert written.uri == item_uri(task, store) == f"file://{folder}/{stem}.stac-item.json"
    names = [f"{stem}_{b}.tif" for b in ("red", "green", "blue", "sdev", "count", "rgba")]
    names = [f"{stem}.stac-item.json", *names, f"{stem}_thumbnail.jpg"]
    lines = (folder / f"{stem}.sha1").read_text().splitlines()
    assert lines == [f"{hashlib.sha1((folder / n).read_bytes()).hexdigest()}  {n}" for n in names]
    assert files(tmp_path) == sorted([*names, f"{stem}.sha1"])
    assert sorted(Path(f).name for f in written.files) == files(tmp_path)
    assert written.files[-1].endswith(".stac-item.json")
    assert written.bytes == sum(p.stat().st_size for p in folder.iterdir())
    assert {"encode", "write"} <= set(times.seconds())


class Watching:
    """A store that keeps a list of what happens to it."""

    def __init__(self, inner):
        self.inner, self.log = inner, []

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def put(self, path, data, content_type, *, expect, stop=None):
        version = self.inner.put(path, data, content_type, expect=expect)
        self.log.append(("put", path.rpartition("_")[2].rpartition("2015--P1Y")[2], content_type))
        return version

    def delete(self, path):
        self.inner.delete(path)
        self.log.append(("delete", path.rpartition("/")[2], ""))


def test_the_checks_come_before_the_first_asset_and_before_the_item(kit, tmp_path):
    store = Watching(open_store(str(tmp_path)))
    writer = kit.write(store, kit.task(), kit.pixels((96, 80)), threads=1)
    writer.commit(lambda: store.log.append(("check", "", "")))
    kinds = [entry[0] for entry in store.log]
    assert kinds == ["check", *["put"] * 7, "check", "put"]
    puts = [entry[1:] for entry in store.log if entry[0] == "put"]
    assert ("red.tif", "image/tiff; application=geotiff; profile=cloud-optimized") in puts[:-3]
    assert puts[-3:] == [
        ("thumbnail.jpg", "image/jpeg"), (".sha1", "text/plain"),
        (".stac-item.json", "application/json"),
    ]  # fmt: skip


def test_a_tile_that_is_made_again_is_not_done_while_its_assets_change(kit, tmp_path):
    store, task, ds = open_store(str(tmp_path)), kit.task(), kit.pixels((96, 80))
    kit.write(store, task, ds).commit()
    writer = kit.write(store, task, kit.pixels((96, 80), seed=1))
    assert is_done(task, store)
    calls = []

    def check():
        calls.append(is_done(task, store))

    writer.commit(check)
    assert calls == [True, False]
    assert is_done(task, store)
    assert verify(str(tmp_path)).ok


@pytest.mark.parametrize("when", [0, 1])
def test_a_lost_lease_publishes_no_item(kit, tmp_path, when):
    store, task = open_store(str(tmp_path)), kit.task()
    calls = []

    def check():
        calls.append(1)
        if len(calls) > when:
            raise Cancelled("lease lost")

    with pytest.raises(Cancelled):
        kit.write(store, task, kit.pixels((96, 80))).commit(check)
    assert not is_done(task, store)
    # the worker that has the lease now may be writing the same assets: they are not touched
    assert [f for f in files(tmp_path) if f.endswith((".json", ".part"))] == []
    assert bool(files(tmp_path)) == bool(when)


@pytest.mark.parametrize("step", ["before_assets", "asset_written:fail:3", "before_item"])
def test_a_failed_commit_takes_everything_back(kit, tmp_path, monkeypatch, step):
    store, task = open_store(str(tmp_path)), kit.task()
    name, _, rest = step.partition(":")
    monkeypatch.setattr("odc_stats_gpu.telemetry._faults._passed", Counter())
    monkeypatch.setenv("ODC_STATS_FAULT", f"{name}:{rest or 'fail'}")
    with pytest.raises(InjectedFault):
        kit.write(store, task, kit.pixels((96, 80))).commit()
    assert files(tmp_path) == []


def test_a_disk_that_fills_up_leaves_nothing(kit, tmp_path, monkeypatch):
    """Every write after the second file fails as a full disk does."""
    store, task = open_store(str(tmp_path)), kit.task()
    real, count = os.fsync, []

    def full(fd):
        count.append(fd)
        if len(count) > 5:
            raise OSError(28, "No space left on device")
        real(fd)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match=r"No space left.*free some space"):
        kit.write(store, task, kit.pixels((96, 80))).commit()
    assert files(tmp_path) == []


@pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="mounts a tmpfs")
def test_a_really_full_disk_leaves_nothing(kit, tmp_path):
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(tmp_path)],
        check=False, capture_output=True,
    )  # fmt: skip
    if mounted.returncode:
        pytest.skip("may not mount")
    try:
        with pytest.raises(StoreError, match="No space left"):
            kit.write(
                open_store(str(tmp_path)), kit.task((300, 300)), kit.pixels((300, 300))
            ).commit()
        assert files(tmp_path) == []
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_full_scratch_folder_is_a_store_error(kit, tmp_path, monkeypatch):
    monkeypatch.setattr("odc_stats_gpu.output._spool.IN_MEMORY", 10)
    missing = tmp_path / "gone"
    with pytest.raises(StoreError, match="scratch folder"):
        kit.write(
            open_store(str(tmp_path / "out")), kit.task(), kit.pixels((96, 80)), scratch=missing
        ).commit()
    assert files(tmp_path) == []


def test_big_tiles_go_through_scratch_files_that_have_no_name(kit, tmp_path, monkeypatch):
    ds, task = kit.pixels((517, 300)), kit.task((517, 300))
    cog = {"overrides": {"rgba": {"compress": "DEFLATE"}, "red": {"overview_resampling": "mode"}}}
    results = []
    for name, limit in (("memory", 1 << 30), ("scratch", 1000)):
        for module in ("_spool", "_gdal"):
            monkeypatch.setattr(f"odc_stats_gpu.output.{module}.IN_MEMORY", limit)
        scratch = tmp_path / f"scratch-{name}"
        scratch.mkdir()
        store = open_store(str(tmp_path / name))
        writer = kit.write(store, task, ds, cog=cog, scratch=scratch)
        assert files(scratch) == []
        writer.commit()
        assert list(scratch.iterdir()) == []
        results.append({p.name: p.read_bytes() for p in (tmp_path / name).rglob("*.tif")})
    assert results[0] == results[1]


KILLED = """
import sys
sys.path.insert(0, sys.argv[2])
import conftest
from odc_stats_gpu.output import open_store
task = conftest.make_task()
conftest.write_tile(open_store(sys.argv[1]), task, conftest.make_pixels((96, 80))).commit()
"""


def test_kill_9_between_two_files_leaves_no_item_and_the_next_attempt_a_clean_tile(kit, tmp_path):
    run = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path), str(Path(__file__).parent)],
        env={**os.environ, "ODC_STATS_FAULT": "asset_written:kill:3"},
        check=False, capture_output=True,
    )  # fmt: skip
    assert run.returncode == -9, run.stderr.decode()
    store, task = open_store(str(tmp_path)), kit.task()
    assert not is_done(task, store)
    assert len(files(tmp_path)) >= 3
    report = verify(str(tmp_path))
    assert not report.ok
    assert {f.check for f in report.warnings} == {"leftover"}
    kit.write(store, task, kit.pixels((96, 80))).commit()
    report = verify(str(tmp_path))
    assert report.ok, str(report)
    assert report.findings == ()


def test_abort_ends_the_threads(kit, tmp_path):
    import threading

    before = threading.active_count()
    writer = kit.write(open_store(str(tmp_path)), kit.task(), kit.pixels((96, 80)))
    writer.abort()
    writer.abort()
    assert threading.active_count() == before
    assert files(tmp_path) == []


def test_the_memory_estimate_grows_with_the_block_not_with_the_tile(kit):
    bands = [OutputBand(f"b{i}", "int16", -999) for i in range(14)]
    whole = 9600 * 9600 * 14 * 2
    some = writer_bytes((9600, 9600), bands, (800, 9600))
    assert some < whole / 2
    assert writer_bytes((9600, 9600), bands, (3200, 9600)) > some
    assert writer_bytes((100, 100), bands, (100, 100)) < 2 << 20


def test_the_item_is_the_same_apart_from_the_time(kit, tmp_path):
    docs = []
    for i in range(2):
        store = open_store(str(tmp_path))
        kit.write(store, kit.task(), kit.pixels((96, 80)), size=40 + 50 * i).commit()
        doc = json.loads(store.read(kit.task().path(".stac-item.json")))
        doc["properties"].pop("odc:processing_datetime")
        docs.append(json.dumps(doc))
    assert docs[0] == docs[1]
