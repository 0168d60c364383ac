"""Task databases that lie elsewhere: copied once per version, whole or not at all."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from odc_stats_gpu.demo import write_archive
from odc_stats_gpu.engine import TaskJob, local_database, process_task
from odc_stats_gpu.engine._session import session_for
from odc_stats_gpu.errors import ConfigError, StoreError
from odc_stats_gpu.ingest import plan_tile
from odc_stats_gpu.model import parse_config
from odc_stats_gpu.tasks import Eo3Source, TaskDb, save_tasks


@pytest.fixture(autouse=True)
def scratch(tmp_path, monkeypatch):
    """Copies of this test alone."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    (tmp_path / "scratch").mkdir()
    yield tmp_path / "scratch"
    tempfile.tempdir = None


@pytest.fixture(scope="module")
def moto():
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest.fixture
def s3(moto, monkeypatch):
    for name, value in {
        "AWS_ENDPOINT_URL": moto,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-west-2",
    }.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    with suppress(client.exceptions.BucketAlreadyOwnedByYou):
        client.create_bucket(
            Bucket="dbs", CreateBucketConfiguration={"LocationConstraint": "us-west-2"}
        )
    return client


class Web:
    """One file over HTTP, and a record of who asked how."""

    def __init__(self):
        self.data, self.etag, self.methods, self.cut = b"one", '"1"', [], False
        self.head_is_known = True
        web = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                web.methods.append(self.command)
                if self.command == "HEAD" and not web.head_is_known:
                    self.send_error(405)
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(web.data) + 5 * web.cut))
                if web.etag:
                    self.send_header("ETag", web.etag)
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(web.data)

            do_HEAD = do_GET  # noqa: N815 - the standard library's name

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/x.db"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def web():
    web = Web()
    yield web
    web.server.shutdown()
    web.server.server_close()


def test_an_unchanged_file_is_fetched_once_and_a_replaced_one_again(web):
    first = local_database(web.url)
    assert Path(first).read_bytes() == b"one"
    assert local_database(web.url) == first
    assert web.methods.count("GET") == 1
    web.data, web.etag = b"two", '"2"'
    second = local_database(web.url)
    assert Path(second).read_bytes() == b"two"
    assert web.methods.count("GET") == 2
    assert Path(first).read_bytes() == b"one"  # somebody may be about to open it


def test_a_server_without_etag_or_head_is_read_each_time(web):
    web.head_is_known = False
    first = local_database(web.url)
    web.data = b"two"
    assert Path(local_database(web.url)).read_bytes() == b"two"
    assert Path(first).read_bytes() == b"one"


def test_a_download_that_breaks_off_leaves_nothing(web, scratch):
    web.cut = True
    with pytest.raises(StoreError, match="broke off"):
        local_database(web.url)
    assert [p for p in scratch.rglob("*") if p.is_file()] == []


def test_files_of_one_name_at_two_addresses_do_not_mix(s3):
    s3.put_object(Bucket="dbs", Key="a/x.db", Body=b"a")
    s3.put_object(Bucket="dbs", Key="b/x.db", Body=b"b")
    a, b = local_database("s3://dbs/a/x.db"), local_database("s3://dbs/b/x.db")
    assert (Path(a).read_bytes(), Path(b).read_bytes()) == (b"a", b"b")


@pytest.mark.parametrize("address", ["s3://dbs/none.db", "s3://dbs", "s3://"])
def test_what_is_not_there_is_named(s3, address):
    with pytest.raises(ConfigError, match="s3://"):
        local_database(address)


def test_what_nobody_used_for_long_makes_room(s3, scratch):
    def age(path):
        os.utime(path, (time.time() - 7200, time.time() - 7200))

    s3.put_object(Bucket="dbs", Key="x.db", Body=b"one")
    old = local_database("s3://dbs/x.db")
    age(old)
    s3.put_object(Bucket="dbs", Key="x.db", Body=b"two")
    current = local_database("s3://dbs/x.db")
    left = [p for p in scratch.rglob("*") if p.is_file()]
    assert left == [Path(current)]


def test_many_large_ones_make_room_for_new_ones(s3, scratch, monkeypatch):
    monkeypatch.setattr("odc_stats_gpu.engine._fetch._ROOM", 25)
    for k in range(4):
        s3.put_object(Bucket="dbs", Key=f"{k}.db", Body=b"0123456789")
        path = local_database(f"s3://dbs/{k}.db")
        os.utime(path, (time.time() - 9000 + k, time.time() - 9000 + k))
    assert len(list(scratch.rglob("*.db"))) == 2


def test_a_full_disk_is_named(s3, monkeypatch):
    s3.put_object(Bucket="dbs", Key="x.db", Body=b"one")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("odc_stats_gpu.output._s3.S3Store.download", full)
    with pytest.raises(StoreError, match=r"s3://dbs/x\.db.*No space left"):
        local_database("s3://dbs/x.db")


@pytest.fixture(scope="module")
def databases(tmp_path_factory):
    """Two of them: in the second the first tile is gone."""
    folder = tmp_path_factory.mktemp("dbs")
    archive = write_archive(folder / "a", kind="landsat", tile_pixels=48, dates=3)
    source = Eo3Source(archive.folder)
    save_tasks(source, grid=archive.grid, output=folder / "one.db")
    with TaskDb.open(folder / "one.db") as db:
        first, *_, last = db.indexes()
    save_tasks(
        source, grid=archive.grid, output=folder / "two.db",
        tiles=((last.x, last.x + 1), (last.y, last.y + 1)),
    )  # fmt: skip
    return folder, first, last


def config(folder):
    return parse_config({
        "plugin": "pq",
        "plugin_config": {"mask_band": "fmask", "filters": {"clear_0_1": [["dilation", 1]]}},
        "product": {"name": "pc", "short_name": "pc", "version": "1"},
        "output_location": str(folder), "threads": 1, "memory_limit": "2Gi",
    })  # fmt: skip


def make(tile, filedb, folder, **options):
    job = TaskJob(str(tile), filedb, **options)
    result = process_task(job, config(folder), confirm=lambda: None)
    return result.error or result.status


def test_a_process_sees_that_a_database_was_replaced(s3, databases, tmp_path):
    folder, first, last = databases
    out = tmp_path / "out"
    s3.upload_file(str(folder / "one.db"), "dbs", "fleet.db")
    assert make(first, "s3://dbs/fleet.db", out, guarded=True) == "done"
    s3.upload_file(str(folder / "two.db"), "dbs", "fleet.db")
    gone = make(first, "s3://dbs/fleet.db", out, guarded=True)
    assert "has no tile" in gone
    assert make(last, "s3://dbs/fleet.db", out, guarded=True) == "done"
    s3.delete_object(Bucket="dbs", Key="fleet.db")
    assert "no such task database" in make(last, "s3://dbs/fleet.db", out, guarded=True)


def test_a_local_database_that_was_replaced_is_read_anew(databases, tmp_path):
    folder, first, _ = databases
    path = tmp_path / "x.db"
    path.write_bytes((folder / "one.db").read_bytes())
    assert make(first, str(path), tmp_path / "out", guarded=True) == "done"
    new = tmp_path / "new.db"
    new.write_bytes((folder / "two.db").read_bytes())
    new.replace(path)
    assert "has no tile" in make(first, str(path), tmp_path / "out", guarded=True)
    path.write_bytes(b"LMDB it is not")
    assert "not a task database" in make(first, str(path), tmp_path / "out", guarded=True)
    path.write_bytes((folder / "one.db").read_bytes()[:20_000])
    assert "cut short" in make(first, str(path), tmp_path / "out", guarded=True)


def test_a_run_keeps_to_the_database_of_its_start(databases, tmp_path):
    folder, first, _ = databases
    path = tmp_path / "x.db"
    path.write_bytes((folder / "one.db").read_bytes())
    assert make(first, str(path), tmp_path / "out") == "done"
    new = tmp_path / "new.db"
    new.write_bytes((folder / "two.db").read_bytes())
    new.replace(path)
    assert make(first, str(path), tmp_path / "out") == "skipped"


def test_a_plan_made_ahead_serves_the_same_task_only(databases, tmp_path, monkeypatch):
    folder, first, last = databases
    path, out, planned = str(folder / "one.db"), tmp_path / "out", []

    def plan(task, *arguments, **options):
        planned.append(str(task.index))
        return plan_tile(task, *arguments, **options)

    monkeypatch.setattr("odc_stats_gpu.engine._session.plan_tile", plan)
    session = session_for(config(out))
    session.plan_ahead(TaskJob(str(first), path, guarded=True))
    assert make(last, path, out, guarded=True) == "done"
    session.plan_ahead(TaskJob(str(first), path, guarded=True))
    assert make(first, path, out, guarded=True) == "done"
    assert planned == [str(first), str(last), str(first)]


def test_no_signature_of_an_address_is_told():
    with pytest.raises(StoreError, match=r"x\.db: ") as error:
        local_database("http://127.0.0.1:9/x.db?X-Amz-Signature=secret")
    assert "secret" not in str(error.value)
