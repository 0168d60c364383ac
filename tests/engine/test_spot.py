"""The notice of a reclaim by the instance metadata service, version 2, and its absence."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from odc_stats_gpu.engine import CancelToken, spot_notice

NOTICE = json.dumps({"action": "terminate", "time": "2026-11-27T12:02:00Z"})


class Metadata:
    """Answers like 169.254.169.254: token by PUT, 404 until there is a notice."""

    def __init__(self):
        self.notice, self.key, self.asked = None, "key-1", []
        self.delay, self.silent = 0.0, False
        service = self

        class Handler(BaseHTTPRequestHandler):
            def _say(self, status, text=""):
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            def do_PUT(self):
                service.asked.append("token")
                time.sleep(service.delay)
                known = self.headers.get("X-aws-ec2-metadata-token-ttl-seconds")
                self._say(503 if service.silent else 200 if known else 400, service.key)

            def do_GET(self):
                service.asked.append(self.path)
                if self.headers.get("X-aws-ec2-metadata-token") != service.key:
                    self._say(401)
                elif service.notice is None:
                    self._say(404)
                else:
                    self._say(200, service.notice)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def imds(monkeypatch):
    service = Metadata()
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
    url = f"http://127.0.0.1:{service.server.server_port}"
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", url + "/")
    monkeypatch.setattr("odc_stats_gpu.engine._spot._EVERY", 0.05)
    yield service
    service.server.shutdown()
    service.server.server_close()


def until(condition, within=20):
    end = time.monotonic() + within
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_notice_is_heard_when_it_comes(imds):
    token = CancelToken()
    with spot_notice(token):
        until(lambda: len(imds.asked) > 4)
        assert not token.cancelled
        imds.notice = NOTICE
        assert token.event.wait(20)
    assert token.reason == "EC2 spot reclaim (terminate)"
    assert imds.asked.count("token") == 1
    assert set(imds.asked) == {"token", "/latest/meta-data/spot/instance-action"}


def test_an_expired_token_is_replaced(imds):
    token = CancelToken()
    with spot_notice(token):
        until(lambda: len(imds.asked) > 2)
        imds.key = "key-2"
        imds.notice = NOTICE
        assert token.event.wait(20)
    assert imds.asked.count("token") == 2


def test_a_service_that_fails_for_a_while_is_asked_on(imds):
    token = CancelToken()
    with spot_notice(token):
        until(lambda: len(imds.asked) > 2)
        imds.silent, imds.key = True, "key-2"
        until(lambda: imds.asked.count("token") > 8)
        imds.silent, imds.notice = False, NOTICE
        assert token.event.wait(20)


def test_a_machine_without_the_service_is_left_alone(imds):
    imds.silent = True
    with spot_notice(CancelToken()):
        until(lambda: not any(t.name == "spot notice" for t in threading.enumerate()))
    assert imds.asked == ["token"] * 3


@pytest.mark.parametrize("text", ["<html>sign in</html>", "[]", '{"action": "none"}', ""])
def test_what_is_no_notice_is_none(imds, text):
    token = CancelToken()
    imds.notice = text
    with spot_notice(token):
        until(lambda: len(imds.asked) > 3)
    assert not token.cancelled


def test_a_service_that_does_not_answer_delays_nothing(imds):
    imds.delay = 30
    began = time.monotonic()
    with spot_notice(CancelToken()):
        until(lambda: imds.asked)
    assert time.monotonic() - began < 10
    imds.delay = 0


@pytest.mark.parametrize("off", ["flag", "environment"])
def test_it_can_be_switched_off(imds, monkeypatch, off):
    imds.notice = NOTICE
    if off == "environment":
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with spot_notice(CancelToken(), enabled=off != "flag"):
        time.sleep(0.3)
    assert imds.asked == []


def test_no_proxy_is_asked(imds, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    token = CancelToken()
    imds.notice = NOTICE
    with spot_notice(token):
        assert token.event.wait(20)
