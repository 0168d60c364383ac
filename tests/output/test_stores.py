"""Stores: whole files or none, and absence told apart from refusal."""

from __future__ import annotations

import http.server
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from odc_stats_gpu.errors import ConfigError, StoreError
from odc_stats_gpu.output import open_store


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in Path(folder).rglob("*") if p.is_file())


@pytest.fixture(scope="module")
def s3_server():
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def aws(s3_server, monkeypatch):
    for name, value in {
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    import boto3

    client = boto3.client("s3")
    client.create_bucket(Bucket="maps")
    yield client
    for entry in client.list_objects_v2(Bucket="maps").get("Contents", ()):
        client.delete_object(Bucket="maps", Key=entry["Key"])
    client.delete_bucket(Bucket="maps")
    client.close()


@pytest.fixture(params=["file", "path", "s3"])
def store(request, tmp_path):
    if request.param == "s3":
        request.getfixturevalue("aws")
        return open_store("s3://maps/some/prefix/", acl="public-read")
    if request.param == "file":
        return open_store(f"file://{tmp_path}/out/")
    return open_store(str(tmp_path / "out"))


def test_what_is_put_can_be_seen_read_replaced_and_deleted(store, tmp_path):
    store.check_writable()
    assert list(store.list()) == []
    assert not store.exists("a/b.tif")
    source = tmp_path / "source.bin"
    source.write_bytes(b"from a file")
    store.put("a/b.tif", b"first", "image/tiff")
    store.put("a/b.tif", iter([b"sec", b"", b"ond"]), "image/tiff")
    store.put("a/c.sha1", source, "text/plain")
    assert store.exists("a/b.tif")
    assert store.read("a/b.tif") == b"second"
    assert store.read("a/c.sha1") == b"from a file"
    assert list(store.list()) == ["a/b.tif", "a/c.sha1"]
    assert list(store.list("a/b")) == ["a/b.tif"]
    assert list(store.list("z")) == []
    assert store.uri("a/b.tif") == f"{store.location}/a/b.tif"
    assert not store.location.endswith("/")
    store.delete("a/b.tif")
    store.delete("a/b.tif")
    assert not store.exists("a/b.tif")
    with pytest.raises(StoreError, match=r"a/b\.tif"):
        store.read("a/b.tif")


def test_local_addresses(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert open_store("out").location == f"file://{tmp_path}/out"
    assert open_store(f"file://localhost{tmp_path}/x/").location == f"file://{tmp_path}/x"
    assert open_store("s3://bucket").uri("a") == "s3://bucket/a"


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("", "no output location"),
        ("gs://bucket/x", "'gs'"),
        ("file://out/x", "no absolute path"),
        ("s3:///x", "no bucket"),
    ],
)
def test_a_malformed_location_is_a_config_error_with_a_remedy(location, message):
    with pytest.raises(ConfigError, match=message) as error:
        open_store(location)
    assert error.value.remedy


def test_unwritable_locations_are_config_errors(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigError, match="choose another --location"):
        open_store(str(tmp_path / "file" / "below")).check_writable()
    with pytest.raises(ConfigError, match="choose another --location"):
        open_store(str(tmp_path / "file")).check_writable()
    with pytest.raises(ConfigError):
        open_store("/proc/nowhere").check_writable()


def test_an_unreadable_disk_is_never_absence(tmp_path, monkeypatch):
    def broken(self, **kw):
        raise OSError(5, "Input/output error")

    store = open_store(str(tmp_path))
    monkeypatch.setattr(Path, "stat", broken)
    with pytest.raises(StoreError, match="Input/output error"):
        store.exists("x")


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    store = open_store(str(tmp_path))
    store.put("a/b.tif", b"old", "image/tiff")

    def full():
        yield b"x" * 100
        raise OSError(28, "No space left on device")

    with pytest.raises(StoreError, match="free some space"):
        store.put("a/b.tif", full(), "image/tiff")
    assert files(tmp_path) == ["a/b.tif"]
    assert store.read("a/b.tif") == b"old"


DYING = """
import os, signal, sys
from odc_stats_gpu.output import open_store

def chunks():
    yield b"half"
    os.kill(os.getpid(), signal.SIGKILL)

open_store(sys.argv[1]).put("x41/tile_red.tif", chunks(), "image/tiff")
"""


def test_the_next_attempt_removes_temporaries_of_a_killed_process_only(tmp_path):
    store = open_store(str(tmp_path))
    subprocess.run([sys.executable, "-c", DYING, str(tmp_path)], check=False)
    (left,) = files(tmp_path)
    assert Path(left).name.startswith(".tile_red.tif.")
    assert left.endswith(".part")
    assert not store.exists("x41/tile_red.tif")

    seen = []

    def chunks():
        yield b"new"
        store.sweep("x41/tile")  # a neighbour begins the same tile while we write
        seen.extend(files(tmp_path))

    store.put("x41/tile_green.tif", chunks(), "image/tiff")
    assert [Path(p).name[:15] for p in seen] == [".tile_green.tif"]
    assert files(tmp_path) == ["x41/tile_green.tif"]


def test_a_temporary_of_another_machine_stays_until_it_is_old(tmp_path):
    store = open_store(str(tmp_path))
    part = tmp_path / ".tile_red.tif.other-host.12.34.abcdef01.part"
    part.write_bytes(b"")
    store.sweep("tile")
    assert part.exists()
    os.utime(part, (time.time() - 7200,) * 2)
    store.sweep("tile")
    assert not part.exists()


def test_objects_carry_type_checksum_and_acl(aws):
    store = open_store("s3://maps/p", acl="public-read")
    store.put("a.tif", b"pixels", "image/tiff")
    big = os.urandom(1 << 20)
    store.put("big.tif", (big for _ in range(18)), "image/tiff")
    head = aws.head_object(Bucket="maps", Key="p/a.tif", ChecksumMode="ENABLED")
    assert head["ContentType"] == "image/tiff"
    assert head["ChecksumSHA256"]
    grants = aws.get_object_acl(Bucket="maps", Key="p/a.tif")["Grants"]
    assert any("AllUsers" in g["Grantee"].get("URI", "") for g in grants)
    assert aws.head_object(Bucket="maps", Key="p/big.tif")["ETag"].endswith('-3"')  # three parts
    assert store.read("big.tif") == big * 18
    assert not aws.list_multipart_uploads(Bucket="maps").get("Uploads")


def test_a_failed_multipart_upload_leaves_nothing(aws):
    def chunks():
        yield b"x" * (20 << 20)
        raise OSError(5, "Input/output error")

    store = open_store("s3://maps/p")
    with pytest.raises(OSError, match="Input/output"):
        store.put("big.tif", chunks(), "image/tiff")
    assert list(store.list()) == []
    assert not aws.list_multipart_uploads(Bucket="maps").get("Uploads")


def test_a_missing_bucket_is_a_config_error(aws):
    with pytest.raises(ConfigError, match="no bucket 'nowhere'"):
        open_store("s3://nowhere/p").check_writable()


@pytest.fixture
def refusing(monkeypatch):
    """A service that answers every request with one status."""
    state = {"status": 403, "count": 0}

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self):
            state["count"] += 1
            length = int(self.headers.get("Content-Length") or 0)
            self.rfile.read(length)
            body = (
                b""
                if self.command == "HEAD"
                else b"<Error><Code>%s</Code></Error>"
                % ({403: b"AccessDenied", 404: b"NoSuchKey"}.get(state["status"], b"SlowDown"))
            )
            self.send_response(state["status"])
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    for verb in ("GET", "HEAD", "PUT", "POST", "DELETE"):
        setattr(Handler, f"do_{verb}", Handler.answer)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    monkeypatch.setattr("odc_stats_gpu.output._s3_calls.MAX_WAIT", 0.01)
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("status", [403, 500, 503])
def test_a_refusal_is_never_absence(refusing, status):
    refusing["status"] = status
    store = open_store("s3://maps/p")
    with pytest.raises(StoreError, match="s3://maps/p/x"):
        store.exists("x")
    with pytest.raises(StoreError):
        store.read("x")
    with pytest.raises(StoreError):
        store.put("x", b"1", "image/tiff")
    with pytest.raises(ConfigError if status == 403 else StoreError):
        store.check_writable()
    assert refusing["count"] == 4 if status == 403 else refusing["count"] >= 16  # retried
    refusing["status"] = 404
    assert not store.exists("x")


def test_without_credentials_the_remedy_says_so(monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(ConfigError, match="configure AWS credentials"):
        open_store("s3://maps/p").check_writable()
    (tmp_path / "config").write_text("[default]\ncredential_process = /bin/false\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    with pytest.raises(StoreError, match="configure AWS credentials"):  # they may come yet
        open_store("s3://maps/p").check_writable()
