"""A whole tile in S3: written, proved and shown from there."""

from __future__ import annotations

import boto3
import pytest
from moto.server import ThreadedMotoServer

from odc_stats_gpu.output import is_done, item_uri, open_store, verify, write_report


@pytest.fixture
def bucket(monkeypatch):
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    client = boto3.client("s3")
    client.create_bucket(Bucket="tiles")
    yield client
    client.close()
    server.stop()


def test_a_tile_in_s3(kit, tmp_path, bucket):
    task, store = kit.task(), open_store("s3://tiles/year")
    store.check_writable()
    assert not is_done(task, store)
    kit.write(store, task, kit.pixels((96, 80))).commit()
    assert is_done(task, store)
    assert item_uri(task, store) == (
        "s3://tiles/year/x41/y13/2015--P1Y/ga_gm_x41y13_2015--P1Y.stac-item.json"
    )
    types = {
        key.rpartition(".")[2]: bucket.head_object(Bucket="tiles", Key="year/" + key)["ContentType"]
        for key in store.list()
    }
    assert types == {
        "tif": "image/tiff; application=geotiff; profile=cloud-optimized",
        "json": "application/json", "jpg": "image/jpeg", "sha1": "text/plain",
    }  # fmt: skip
    report = verify("s3://tiles/year")
    assert report.ok
    assert report.findings == ()
    html = write_report("s3://tiles/year", tmp_path / "r.html").read_text()
    assert "s3://tiles/year/x41/y13" in html

    key = "year/" + task.path("_red.tif")
    bucket.delete_object(Bucket="tiles", Key=key)
    (error, *_) = verify("s3://tiles/year").errors
    assert "missing" in error.message
