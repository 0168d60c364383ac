"""Two workers at one tile: the first to finish has made it, and nothing is ever a mixture."""

from __future__ import annotations

import threading
from concurrent.futures import Future

import boto3
import pytest
from moto.server import ThreadedMotoServer

from odc_stats_gpu.errors import Cancelled, StoreError
from odc_stats_gpu.output import (
    ChangedError,
    OvertakenError,
    is_done,
    open_store,
    read_back,
    verify,
)
from odc_stats_gpu.output._publish import Publisher


@pytest.fixture(scope="module")
def endpoint():
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(params=["folder", "s3"])
def location(request, tmp_path, monkeypatch):
    if request.param == "folder":
        return str(tmp_path / "out")
    for name, value in {
        "AWS_ENDPOINT_URL": request.getfixturevalue("endpoint"),
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    bucket = f"b{abs(hash(request.node.name))}"
    boto3.client("s3").create_bucket(Bucket=bucket)
    return f"s3://{bucket}/p"


def test_a_condition_protects_what_somebody_else_wrote(location):
    store = open_store(location)
    first = store.put("t/a.tif", b"one", "image/tiff", expect=None)
    assert store.versions(["t/a.tif", "t/b.tif"]) == {"t/a.tif": first}
    with pytest.raises(ChangedError, match=r"a\.tif was written by somebody else"):
        store.put("t/a.tif", b"two", "image/tiff", expect=None)
    second = store.put("t/a.tif", b"three", "image/tiff", expect=first)
    with pytest.raises(ChangedError):
        store.put("t/a.tif", b"four", "image/tiff", expect=first)
    assert store.read("t/a.tif") == b"three"
    assert store.versions(["t/a.tif"])["t/a.tif"] == second
    store.delete("t/a.tif")
    with pytest.raises(ChangedError):
        store.put("t/a.tif", b"five", "image/tiff", expect=second)
    assert sorted(store.list()) == []


@pytest.mark.parametrize("size", [10, 20 << 20])
def test_the_same_content_again_is_no_conflict(location, size):
    """As when the answer to a put that succeeded was lost, and the client repeats it."""
    store, data = open_store(location), bytes(size)
    version = store.put("a.tif", iter([data]), "image/tiff", expect=None)
    assert store.put("a.tif", iter([data]), "image/tiff", expect=None) == version
    with pytest.raises(ChangedError):
        store.put("a.tif", iter([data[:-1], b"x"]), "image/tiff", expect=None)


def test_the_first_to_finish_has_made_the_tile(kit, location):
    store, task = open_store(location), kit.task()
    slow = kit.write(store, task, kit.pixels((96, 80)))
    kit.write(store, task, kit.pixels((96, 80))).commit()
    with pytest.raises(OvertakenError):
        slow.commit()
    read_back(task, store, assets=True)
    assert verify(location).ok


def test_other_pixels_never_get_under_an_item(kit, location):
    store, task = open_store(location), kit.task()
    slow = kit.write(store, task, kit.pixels((96, 80), seed=1), shared=True)
    calls = []

    def meanwhile():
        calls.append(1)
        if len(calls) == 1:
            kit.write(store, task, kit.pixels((96, 80)), shared=True).commit()

    with pytest.raises((OvertakenError, ChangedError)):
        slow.commit(meanwhile)
    assert verify(location).ok


def test_files_that_change_before_the_item_leave_the_tile_unfinished(kit, location):
    store, task = open_store(location), kit.task()
    writer = kit.write(store, task, kit.pixels((96, 80)), shared=True)
    calls = []

    def meanwhile():
        calls.append(1)
        if len(calls) == 2:
            store.put(task.path("_red.tif"), b"foreign", "image/tiff")

    with pytest.raises(ChangedError, match=r"red\.tif was written by somebody else"):
        writer.commit(meanwhile)
    assert not is_done(task, store)
    assert store.read(task.path("_red.tif")) == b"foreign"


def test_what_a_killed_attempt_left_is_replaced(kit, location):
    store, task = open_store(location), kit.task()
    store.put(task.path("_red.tif"), b"half a life", "image/tiff")
    store.put(task.path(".sha1"), b"x", "text/plain")
    kit.write(store, task, kit.pixels((96, 80)), shared=True).commit()
    assert verify(location).ok


def test_an_item_that_names_missing_files_is_not_vouched_for(kit, location):
    store, task = open_store(location), kit.task()
    kit.write(store, task, kit.pixels((96, 80))).commit()
    store.delete(task.path("_red.tif"))
    read_back(task, store)
    with pytest.raises(StoreError, match="which is missing"):
        read_back(task, store, assets=True)


def test_after_a_conflict_no_further_file_begins(kit, location):
    """Not even by the thread that met it, before anybody else could react."""
    store, task = open_store(location), kit.task()
    publisher = Publisher(task, store, ["_red.tif", "_blue.tif"])
    store.put(task.path("_red.tif"), b"theirs", "image/tiff")
    with pytest.raises(ChangedError):
        publisher.put(task.path("_red.tif"), b"ours")
    with pytest.raises(Cancelled):
        publisher.put(task.path("_blue.tif"), b"ours")
    assert isinstance(publisher.failure, ChangedError)
    assert sorted(store.list()) == [task.path("_red.tif")]


def test_what_is_told_is_what_went_wrong_first(kit, tmp_path, monkeypatch):
    """The other files are stopped because of it, and may be done with that sooner."""
    store, task = open_store(str(tmp_path / "out")), kit.task()
    put, failing = store.put, threading.Event()

    def broken(path, data, *more, **how):
        if path.endswith("_red.tif"):
            raise StoreError("no room")
        assert how["stop"].wait(20)
        return put(path, data, *more, **how)

    def late(future, exc, real=Future.set_exception):
        if isinstance(exc, StoreError):
            failing.wait(20)
        real(future, exc)
        failing.set()

    monkeypatch.setattr(store, "put", broken)
    monkeypatch.setattr(Future, "set_exception", late)
    with pytest.raises(StoreError, match="no room"):
        kit.write(store, task, kit.pixels((96, 80)), shared=True).commit()
