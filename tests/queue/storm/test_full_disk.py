"""A disk is full: the tile fails by name and comes back later; the worker and its lease live on."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from realfleet import until

from odc_stats_gpu.tasks import TaskDb


@pytest.fixture
def tiles(db):
    with TaskDb.open(db) as tasks:
        return tasks.indexes()[20:22]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own of 8 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if done.returncode:
        pytest.skip(f"may not mount: {done.stderr.decode()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder, leave):
    """Take all space but so many bytes; returns the file that takes it."""
    filler = folder / "filler"
    filler.write_bytes(bytes(shutil.disk_usage(folder).free - leave))
    return filler


@pytest.mark.slow
@pytest.mark.parametrize("room", [0, 12 << 10])
def test_the_output_is_full_for_a_while(fleet, tiles, small_disk, room):
    one = fleet(where=str(small_disk / "out"))
    (small_disk / "out").mkdir()
    filler = fill(small_disk, room)
    one.publish(tiles[:1])
    worker = one.start(idle=9)
    assert until(lambda: worker.said("task failed"), 60)
    assert not list(small_disk.rglob("*.part"))
    assert not list(small_disk.rglob("*.stac-item.json"))
    filler.unlink()
    assert worker.leave(90) == 0, worker.log.read_text()
    failed = worker.said("task failed")
    assert all("No space left on device" in line["error"] for line in failed)
    assert all("free some space" in line["error"] for line in failed)
    assert worker.told == worker.counted
    one.judge(tiles[:1])


def test_one_file_finds_no_room(fleet, tiles):
    one = fleet()
    one.publish(tiles)
    worker = one.start(fault="file_written:full:2", idle=9)
    assert worker.leave(90) == 0
    assert worker.counted == {"done": 2, "failed": 1, "skipped": 0}
    assert "No space left on device" in worker.said("task failed")[0]["error"]
    one.judge(tiles)


@pytest.mark.slow
def test_a_full_disk_under_the_log_costs_no_tile(fleet, tiles):
    one = fleet()
    one.publish(tiles)
    assert one.start(log="/dev/full", idle=1).leave(90) == 0
    one.judge(tiles)


@pytest.mark.slow
def test_a_full_scratch_folder_is_named(fleet, tiles, small_disk, db):
    """The copy of a database on S3 doesn't fit."""
    one = fleet(s3=True)
    one.s3.put_object(Bucket=one.bucket, Key="x.db", Body=db.read_bytes())
    one.filedb = f"s3://{one.bucket}/x.db"
    filler = fill(small_disk, 64 << 10)
    one.publish(tiles[:1])
    worker = one.start(env={"TMPDIR": str(small_disk)}, idle=9)
    assert until(lambda: worker.said("task failed"), 60), worker.log.read_text()
    assert [p.name for p in small_disk.rglob("*") if p.is_file()] == ["filler"]
    filler.unlink()
    assert worker.leave(90) == 0, worker.log.read_text()
    error = worker.said("task failed")[0]["error"]
    assert "No space left on device" in error
    assert str(small_disk) in error
    one.judge(tiles[:1])
