"""S3 that fails in the middle: nothing is half-published, nothing is left, the message says why."""

from __future__ import annotations

import threading
import time

import boto3
import pytest
from botocore.exceptions import ClientError
from faultproxy import FaultProxy, broken, lost, refuse
from moto.server import ThreadedMotoServer

from odc_stats_gpu.errors import Cancelled, ConfigError, StoreError
from odc_stats_gpu.model import set_read_access
from odc_stats_gpu.output import ChangedError, is_done, open_store, verify

BIG = 20 << 20  # three parts


@pytest.fixture(scope="module")
def server():
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    yield f"http://{host}:{port}"
    moto.stop()


@pytest.fixture
def s3(server, monkeypatch, request):
    """A client that goes straight to moto, with a bucket of its own; `.name` is the bucket."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("odc_stats_gpu.output._s3_calls.MAX_WAIT", 0.02)
    client = boto3.client("s3", endpoint_url=server)
    client.name = f"b{abs(hash(request.node.name))}"
    client.create_bucket(Bucket=client.name)
    yield client
    client.close()
    set_read_access()


@pytest.fixture
def proxy(server, s3, monkeypatch):
    with FaultProxy(server) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        yield proxy


def keys(s3):
    return [e["Key"] for e in s3.list_objects_v2(Bucket=s3.name).get("Contents", ())]


def uploads(s3):
    return s3.list_multipart_uploads(Bucket=s3.name).get("Uploads", [])


@pytest.mark.parametrize(
    ("action", "fault"),
    [
        ("PutObject", refuse(503, "SlowDown")),
        ("PutObject", broken),
        ("PutObject", lost),
        ("HeadObject", refuse(500, "InternalError")),
        ("ListObjectsV2", refuse(503, "SlowDown")),
    ],
)
def test_a_tile_is_made_through_hiccups(kit, s3, proxy, action, fault):
    proxy.add(action, fault, times=5)
    location = f"s3://{s3.name}/p"
    store, task = open_store(location), kit.task()
    assert not is_done(task, store)
    kit.write(store, task, kit.pixels((96, 80)), shared=True).commit()
    assert verify(location).ok


@pytest.mark.parametrize("action", ["UploadPart", "CompleteMultipartUpload"])
@pytest.mark.parametrize("fault", [refuse(503, "SlowDown"), broken, lost])
def test_a_large_object_survives_hiccups(s3, proxy, action, fault):
    proxy.add(action, fault, times=2)
    store, data = open_store(f"s3://{s3.name}/p"), bytes(BIG)
    version = store.put("t/a.tif", iter([data]), "image/tiff", expect=None)
    assert store.read("t/a.tif") == data
    assert store.etag("t/a.tif") == version
    assert uploads(s3) == []


def test_a_service_that_stays_down_leaves_nothing(s3, proxy):
    proxy.add("UploadPart", refuse(503, "SlowDown"))
    with pytest.raises(StoreError, match=r"can't write s3://.*/p/a\.tif: SlowDown, 8 times"):
        open_store(f"s3://{s3.name}/p").put("a.tif", iter([bytes(BIG)]), "image/tiff")
    assert keys(s3) == []
    assert uploads(s3) == []


def test_patience_ends_when_it_is_called_off(s3, proxy, monkeypatch):
    monkeypatch.setattr("odc_stats_gpu.output._s3_calls.MAX_WAIT", 3600)
    monkeypatch.setattr("tenacity.wait_random_exponential.__call__", lambda *_: 3600)
    proxy.add("UploadPart", refuse(503, "SlowDown"))
    stop = threading.Event()
    threading.Timer(1, stop.set).start()
    started = time.monotonic()
    with pytest.raises(Cancelled):
        open_store(f"s3://{s3.name}/p").put("a.tif", iter([bytes(BIG)]), "x/y", stop=stop)
    assert time.monotonic() - started < 60
    assert uploads(s3) == []


def test_the_first_refused_file_is_the_last_one(kit, s3, proxy):
    """412 on one asset: somebody else is there, so no more is put, and above all no item."""
    proxy.add("PutObject", refuse(412, "PreconditionFailed"), key=r"_blue\.tif")
    store, task = open_store(f"s3://{s3.name}/p"), kit.task()
    with pytest.raises(ChangedError, match=r"blue\.tif was written by somebody else"):
        kit.write(store, task, kit.pixels((96, 80)), shared=True).commit()
    assert not is_done(task, store)
    assert not any(key.endswith((".sha1", ".jpg")) for key in keys(s3))


def test_a_forbidden_write_names_key_and_right_and_leaves_nothing(kit, s3, proxy):
    proxy.add("PutObject", refuse(403, "AccessDenied"), key=r"_sdev\.tif")
    store, task = open_store(f"s3://{s3.name}/p", acl="public-read"), kit.task()
    with pytest.raises(StoreError) as error:
        kit.write(store, task, kit.pixels((96, 80))).commit()
    for text in ("_sdev.tif: access denied", "s3:PutObject", "s3:PutObjectAcl"):
        assert text in str(error.value)
    assert keys(s3) == []
    assert proxy.calls["PutObject"] <= 7  # and no second attempt at what is forbidden


def test_a_forbidden_look_tells_of_the_right_to_list(s3, proxy):
    proxy.add("HeadObject", refuse(403, "AccessDenied"))
    with pytest.raises(StoreError, match=r"look at s3://.*/p/x: access denied.*s3:ListBucket"):
        open_store(f"s3://{s3.name}/p").exists("x")
    assert proxy.calls["HeadObject"] == 1


def test_an_absent_bucket_is_no_absent_object(s3, proxy):
    with pytest.raises(StoreError, match="no bucket 'nowhere-at-all'"):
        open_store("s3://nowhere-at-all/p").exists("x")
    with pytest.raises(ConfigError, match="no bucket 'nowhere-at-all'"):
        open_store("s3://nowhere-at-all/p").check_writable()


@pytest.mark.parametrize("size", [10, BIG])
def test_a_service_without_conditions_gets_one_warning(s3, proxy, monkeypatch, size):
    said = []
    monkeypatch.setattr("odc_stats_gpu.output._s3.log", lambda text, **_: said.append(text))

    def without(call, forward):
        conditions = {"if-none-match", "if-match"} & {k.lower() for k in call.headers}
        if not conditions:
            return forward(call)
        return refuse(501, "NotImplemented")(call, forward)

    proxy.add("PutObject|CompleteMultipartUpload", without)
    store = open_store(f"s3://{s3.name}/p")
    store.put("a.tif", iter([bytes(size)]), "image/tiff", expect=None)
    store.put("b.tif", iter([bytes(size)]), "image/tiff", expect=None)
    assert len(said) == 1
    assert "conditional" in said[0]
    with pytest.raises(ChangedError):  # a look beforehand takes the condition's place
        store.put("a.tif", b"other", "image/tiff", expect=None)


def test_the_next_attempt_aborts_what_a_killed_one_began(kit, s3, proxy):
    task, store = kit.task(), open_store(f"s3://{s3.name}/p")
    for key in (task.path("_red.tif"), "x99/other.tif"):
        s3.create_multipart_upload(Bucket=s3.name, Key=f"p/{key}")
    kit.write(store, task, kit.pixels((96, 80))).commit()
    assert [u["Key"] for u in uploads(s3)] == ["p/x99/other.tif"]


def test_an_upload_that_somebody_aborted_is_somebody_elses_tile(s3, proxy):
    proxy.add("CompleteMultipartUpload", refuse(404, "NoSuchUpload"))
    with pytest.raises(ChangedError):
        open_store(f"s3://{s3.name}/p").put("a.tif", iter([bytes(BIG)]), "x/y", expect=None)
    assert keys(s3) == []


def recorded(proxy, action):
    """Headers of the requests from now on, by the proxy."""
    seen = []

    def note(call, forward):
        seen.append({k.lower(): v for k, v in call.headers.items()})
        return forward(call)

    proxy.add(action, note)
    return seen


def test_unsigned_reads_and_signed_writes(s3, proxy):
    s3.put_object(Bucket=s3.name, Key="p/x", Body=b"1", ACL="public-read")
    set_read_access(unsigned=True)
    seen = recorded(proxy, "GetObject|PutObject")
    assert open_store(f"s3://{s3.name}/p", reading=True).read("x") == b"1"
    open_store(f"s3://{s3.name}/p").put("y", b"2", "text/plain")
    assert ["authorization" in headers for headers in seen] == [False, True]


def test_the_reader_pays_when_asked_to(s3, proxy, monkeypatch):
    s3.put_object(Bucket=s3.name, Key="p/x", Body=b"1")
    seen = recorded(proxy, "GetObject")
    open_store(f"s3://{s3.name}/p", reading=True).read("x")
    set_read_access(requester_pays=True)
    open_store(f"s3://{s3.name}/p", reading=True).read("x")
    monkeypatch.setenv("AWS_REQUEST_PAYER", "requester")
    set_read_access()
    open_store(f"s3://{s3.name}/p", reading=True).read("x")
    set_read_access(requester_pays=False)
    open_store(f"s3://{s3.name}/p", reading=True).read("x")
    paid = [headers.get("x-amz-request-payer") for headers in seen]
    assert paid == [None, "requester", "requester", None]
    with pytest.raises(ConfigError, match="exclude each other"):
        set_read_access(unsigned=True, requester_pays=True)


def test_a_public_bucket_that_refuses_our_signature_is_read_without(s3, proxy):
    s3.put_object(Bucket=s3.name, Key="p/x", Body=b"1", ACL="public-read")

    def only_unsigned(call, forward):
        signed = "authorization" in {k.lower() for k in call.headers}
        return refuse(403, "AccessDenied")(call, forward) if signed else forward(call)

    proxy.add("GetObject", only_unsigned)
    store = open_store(f"s3://{s3.name}/p", reading=True)
    assert [store.read("x") for _ in range(3)] == [b"1"] * 3
    assert proxy.calls["GetObject"] == 4
    set_read_access(unsigned=False)
    with pytest.raises(StoreError, match="access denied"):
        open_store(f"s3://{s3.name}/p", reading=True).read("x")
    with pytest.raises(ClientError):
        boto3.client("s3", endpoint_url=proxy.url).get_object(Bucket=s3.name, Key="p/x")


def test_a_check_aborts_what_a_worker_killed_in_its_check_began(s3, proxy):
    s3.create_multipart_upload(Bucket=s3.name, Key="p/.write-test")
    store = open_store(f"s3://{s3.name}/p")
    store.check_writable()
    assert uploads(s3) == []
    proxy.add("AbortMultipartUpload", refuse(404, "NoSuchUpload"), times=1)  # another was faster
    store.check_writable()
    assert uploads(s3) == []
    proxy.add("ListMultipartUploads", refuse(403, "AccessDenied"))
    store.check_writable()
    assert uploads(s3) == []
