"""Files behind HTTP and S3: the same pixels, patience with hiccups, plain words about the rest."""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import boto3
import numpy as np
import pytest
import rasterio
from affine import Affine
from faultproxy import FaultProxy, refuse
from moto.server import ThreadedMotoServer

from odc_stats_gpu.errors import Cancelled, DataError
from odc_stats_gpu.ingest import _ranges as ranges_module
from odc_stats_gpu.ingest import close_readers
from odc_stats_gpu.ingest._patience import called_off_by
from odc_stats_gpu.ingest._reader import BandReader
from odc_stats_gpu.ingest._window import Window
from odc_stats_gpu.model import Grid, set_read_access

T = Affine(30, 0, 500000, 0, -30, 6_000_000)
GRID = Grid((300, 310), T)


class Site:
    """A server of one file that fails as often as it is told."""

    def __init__(self, data):
        self.data, self.requests, self.failures = data, Counter(), []
        self.ranges, self.etag = True, '"1"'
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self):
                self.answer(body=False)

            def do_GET(self):
                self.answer(body=True)

            def answer(self, *, body):
                site.requests[self.path] += 1
                status = 404 if "missing" in self.path else 200
                if status == 200 and site.failures:
                    status = site.failures.pop(0)
                if status == 0:  # hang up
                    self.close_connection = True
                    self.connection.close()
                    return
                if status != 200:
                    self.send_response(status)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                whole = site.data
                start, stop = 0, len(whole)
                asked = self.headers.get("Range") if site.ranges else None
                if site.etag != self.headers.get("If-Match", site.etag):
                    self.send_response(412)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                if asked:
                    a, _, b = asked.removeprefix("bytes=").partition("-")
                    start, stop = int(a), min(int(b) + 1 if b else stop, stop)
                self.send_response(206 if asked else 200)
                self.send_header("Accept-Ranges", "bytes")
                self.send_header("ETag", site.etag)
                self.send_header("Content-Length", str(max(stop - start, 0)))
                if asked:
                    self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(whole)}")
                self.end_headers()
                if body:
                    self.wfile.write(whole[start:stop])

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def pixels():
    return np.random.default_rng(1).integers(1, 4000, (300, 310)).astype("int16")


@pytest.fixture
def data(tmp_path, pixels):
    path = tmp_path / "a.tif"
    with rasterio.open(
        path, "w", driver="GTiff", height=300, width=310, count=1, dtype="int16", nodata=-999,
        crs="EPSG:32755", transform=T, tiled=True, blockxsize=64, blockysize=64, compress="deflate",
    ) as dst:  # fmt: skip
        dst.write(pixels, 1)
    return path.read_bytes()


@pytest.fixture
def site(data, monkeypatch):
    monkeypatch.setattr(ranges_module, "MAX_WAIT", 0.05)
    close_readers()
    site = Site(data)
    yield site
    close_readers()
    site.close()


def read(url, window):
    return BandReader(url, 1, GRID, "EPSG:32755").read(window, lambda: None)


WINDOW = Window(100, 280, 30, 200)


def test_http_gives_the_same_pixels(site, pixels):
    np.testing.assert_array_equal(read(f"{site.url}/ok.tif", WINDOW), pixels[WINDOW.slices])
    before = site.requests["/ok.tif"]
    read(f"{site.url}/ok.tif", WINDOW)
    assert site.requests["/ok.tif"] == before + 1 == 3  # the header is known


@pytest.mark.parametrize("failure", [503, 500, 429, 0])
def test_a_hiccup_is_sat_out(site, pixels, failure):
    name = f"{site.url}/hiccup{failure}.tif"
    site.failures = [failure, failure]
    np.testing.assert_array_equal(read(name, WINDOW), pixels[WINDOW.slices])
    close_readers()
    reader = BandReader(f"{site.url}/later{failure}.tif", 1, GRID, "EPSG:32755")
    site.failures = [failure, failure]
    np.testing.assert_array_equal(reader.read(WINDOW, lambda: None), pixels[WINDOW.slices])


def test_a_server_that_stays_down_is_named(site):
    site.failures = [503] * 1000
    with pytest.raises(DataError, match=rf"can't read {site.url}/down\.tif: "):
        read(f"{site.url}/down.tif", WINDOW)
    assert site.requests["/down.tif"] == ranges_module.ATTEMPTS


def test_a_missing_object_is_not_asked_for_twice(site):
    with pytest.raises(DataError, match=rf"no such file: {site.url}/missing\.tif .*restore"):
        read(f"{site.url}/missing.tif", WINDOW)
    assert site.requests["/missing.tif"] == 1


def test_a_damaged_object_is_named(site, data):
    broken = bytearray(data)
    broken[len(broken) // 2] ^= 255
    site.data = bytes(broken)
    with pytest.raises(DataError, match=rf"can't read {site.url}/bad\.tif: "):
        read(f"{site.url}/bad.tif", Window(0, 300, 0, 310))


def test_many_threads_read_one_file(site, pixels):
    """Each with a handle of its own: GDAL's are not for sharing."""
    from concurrent.futures import ThreadPoolExecutor

    windows = [Window(r, r + 40, c, c + 50) for r in range(0, 240, 40) for c in range(0, 250, 50)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda w: read(f"{site.url}/many.tif", w), windows))
    for window, got in zip(windows, found, strict=True):
        np.testing.assert_array_equal(got, pixels[window.slices])


def test_a_server_without_ranges_serves_as_well(site, pixels):
    site.ranges = False
    np.testing.assert_array_equal(read(f"{site.url}/plain.tif", WINDOW), pixels[WINDOW.slices])


def test_a_replaced_object_is_never_mixed_with_its_predecessor(site, pixels):
    reader = BandReader(f"{site.url}/new.tif", 1, GRID, "EPSG:32755")
    site.etag = '"2"'
    with pytest.raises(DataError, match=r"new\.tif was replaced while it was read"):
        reader.read(WINDOW, lambda: None)
    np.testing.assert_array_equal(read(f"{site.url}/new.tif", WINDOW), pixels[WINDOW.slices])


def test_an_odd_codec_goes_through_gdal(site, pixels, tmp_path):
    path = tmp_path / "odd.tif"
    with rasterio.open(
        path, "w", driver="GTiff", height=300, width=310, count=1, dtype="int16", crs="EPSG:32755",
        transform=T, tiled=True, blockxsize=64, blockysize=64, compress="lzma",
    ) as dst:  # fmt: skip
        dst.write(pixels, 1)
    site.data = path.read_bytes()
    np.testing.assert_array_equal(read(f"{site.url}/odd.tif", WINDOW), pixels[WINDOW.slices])


def test_neighbouring_blocks_come_in_one_request(site, pixels):
    whole = Window(0, 300, 0, 310)
    np.testing.assert_array_equal(read(f"{site.url}/few.tif", whole), pixels)
    assert site.requests["/few.tif"] == 2  # the header, and 25 blocks


@pytest.fixture
def scenes(monkeypatch):
    """A bucket behind a proxy."""
    server = ThreadedMotoServer("127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    proxy = FaultProxy(f"http://{host}:{port}")
    for name, value in {
        "AWS_ENDPOINT_URL": proxy.url, "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "ap-southeast-2",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(ranges_module, "MAX_WAIT", 0.05)
    close_readers()
    proxy.client = boto3.client("s3")
    with suppress(proxy.client.exceptions.BucketAlreadyOwnedByYou):  # moto keeps it meanwhile
        proxy.client.create_bucket(
            Bucket="scenes.of.2020",
            CreateBucketConfiguration={"LocationConstraint": "ap-southeast-2"},
        )
    yield proxy
    set_read_access()
    close_readers()
    proxy.client.close()
    with proxy:
        server.stop()


KEY = "x/a b+%20%41ü#1.tif"


def test_s3_by_the_endpoint_variable(scenes, data, pixels):
    scenes.client.put_object(Bucket="scenes.of.2020", Key=KEY, Body=data)
    np.testing.assert_array_equal(read(f"s3://scenes.of.2020/{KEY}", WINDOW), pixels[WINDOW.slices])
    with pytest.raises(DataError, match=r"no such file: s3://scenes\.of\.2020/x/none\.tif"):
        read("s3://scenes.of.2020/x/none.tif", WINDOW)
    with pytest.raises(DataError, match=r"can't read s3://no-such/x\.tif: no such bucket"):
        read("s3://no-such/x.tif", WINDOW)


@pytest.mark.parametrize("codec", ["deflate", "lzma"])
def test_how_s3_is_read_holds_for_both_readers(scenes, tmp_path, pixels, codec):
    """GDAL, which decodes lzma, asks with the same signature and payer as our own requests."""
    path = tmp_path / "b.tif"
    with rasterio.open(
        path, "w", driver="GTiff", height=300, width=310, count=1, dtype="int16", crs="EPSG:32755",
        transform=T, tiled=True, blockxsize=64, blockysize=64, compress=codec,
    ) as dst:  # fmt: skip
        dst.write(pixels, 1)
    seen = []

    def note(call, forward):
        headers = {k.lower(): v for k, v in call.headers.items()}
        seen.append(("authorization" in headers, headers.get("x-amz-request-payer")))
        return forward(call)

    scenes.add("GetObject|HeadObject", note)
    for number, (how, expected) in enumerate(
        [
            ({}, (True, None)),
            ({"requester_pays": True}, (True, "requester")),
            ({"unsigned": True}, (False, None)),
        ]
    ):
        close_readers()
        set_read_access(**how)
        key = f"{number}/{KEY}"
        scenes.client.put_object(
            Bucket="scenes.of.2020", Key=key, Body=path.read_bytes(), ACL="public-read"
        )
        seen.clear()
        got = read(f"s3://scenes.of.2020/{key}", WINDOW)
        np.testing.assert_array_equal(got, pixels[WINDOW.slices])
        assert set(seen) == {expected}


def test_a_bucket_that_refuses_our_signature_is_asked_without(scenes, data, pixels):
    scenes.client.put_object(Bucket="scenes.of.2020", Key="o.tif", Body=data, ACL="public-read")

    def only_unsigned(call, forward):
        signed = "authorization" in {k.lower() for k in call.headers}
        return refuse(403, "AccessDenied")(call, forward) if signed else forward(call)

    scenes.add("GetObject", only_unsigned)
    got = read("s3://scenes.of.2020/o.tif", WINDOW)
    np.testing.assert_array_equal(got, pixels[WINDOW.slices])
    assert scenes.calls["GetObject"] == 3  # the refused one, the header, the blocks
    close_readers()
    set_read_access(unsigned=False)
    with pytest.raises(DataError, match=r"access denied \(AccessDenied\).*s3:GetObject"):
        read("s3://scenes.of.2020/o.tif", WINDOW)


def test_a_pause_between_attempts_can_be_called_off(scenes, monkeypatch):
    monkeypatch.setattr("tenacity.wait_random_exponential.__call__", lambda *_: 3600)
    scenes.add("GetObject", refuse(503, "SlowDown"))

    def gone():
        raise Cancelled("told to stop")

    with pytest.raises(Cancelled), called_off_by(gone):
        read("s3://scenes.of.2020/o.tif", WINDOW)
