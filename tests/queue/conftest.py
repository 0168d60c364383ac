"""A real SQS over HTTP: moto server, fresh queues per test, and a proxy that can misbehave."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import boto3
import psutil
import pytest
import yaml
from moto.server import ThreadedMotoServer

from odc_stats_gpu.demo import write_archive
from odc_stats_gpu.queue import forget_clients
from odc_stats_gpu.tasks import Eo3Source, TaskDb, save_tasks


@pytest.fixture(scope="session")
def moto():
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


class Proxy:
    """Forwards to moto; `refuse` maps an SQS action to the error it answers instead.

    `delay` maps actions to seconds before they take effect, `*` is for all; `keys` are the access
    keys that calls were signed with; `answers` are given instead of moto's, `bodies` were asked.
    """

    def __init__(self, target: str) -> None:
        self.refuse: dict[str, tuple[int, str]] = {}
        self.fail_entries: set[str] = set()
        self.delay: dict[str, float] = {}
        self.keys: set[str] = set()
        self.answers: dict[str, dict] = {}
        self.bodies: dict[str, dict] = {}
        self.leave = threading.Event()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                action = self.headers.get("X-Amz-Target", "").rpartition(".")[2]
                status, answer = proxy.handle(target, action, body, dict(self.headers))
                self.send_response(status)
                self.send_header("Content-Type", "application/x-amz-json-1.0")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def handle(self, target, action, body, headers):
        self.keys.add(headers.get("Authorization", "").partition("Credential=")[2].split("/")[0])
        self.leave.wait(self.delay.get(action, self.delay.get("*", 0)))
        self.bodies[action] = json.loads(body or b"{}")
        if action in self.answers:
            return 200, json.dumps(self.answers[action]).encode()
        if action in self.refuse:
            status, code = self.refuse[action]
            return status, json.dumps({"__type": f"com.amazonaws.sqs#{code}"}).encode()
        dropped = []
        if action == "SendMessageBatch" and self.fail_entries:
            doc = json.loads(body)
            keep = []
            for entry in doc["Entries"]:
                hit = next((f for f in self.fail_entries if f in entry["MessageBody"]), None)
                (dropped if hit else keep).append(entry)
            if not keep:
                failed = [self._failure(e) for e in dropped]
                return 200, json.dumps({"Successful": [], "Failed": failed}).encode()
            body = json.dumps({**doc, "Entries": keep}).encode()
        headers = {k: v for k, v in headers.items() if k.lower() not in ("host", "content-length")}
        try:
            with urlopen(Request(target, data=body, headers=headers)) as answer:
                out = answer.read()
        except HTTPError as error:
            return error.code, error.read()
        if dropped:
            doc = json.loads(out)
            doc["Failed"] = [self._failure(e) for e in dropped]
            out = json.dumps(doc).encode()
        return 200, out

    @staticmethod
    def _failure(entry):
        return {"Id": entry["Id"], "SenderFault": False, "Code": "InternalError", "Message": "no"}


@pytest.fixture
def proxy(moto):
    proxy = Proxy(moto)
    yield proxy
    proxy.leave.set()
    proxy.server.shutdown()
    proxy.server.server_close()


@pytest.fixture
def sqs(proxy, monkeypatch):
    """Client and environment pointing at the proxy."""
    for name, value in {
        "AWS_ENDPOINT_URL": proxy.url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-west-2",
    }.items():
        monkeypatch.setenv(name, value)
    forget_clients()
    yield boto3.client("sqs")
    forget_clients()


@pytest.fixture
def queues(sqs, proxy):
    """URLs of a queue and of its dead-letter queue (2 receives)."""
    name = f"tasks-{uuid.uuid4().hex[:8]}"

    def local(url):
        return proxy.url + "/" + url.split("/", 3)[3]

    dead = local(sqs.create_queue(QueueName=f"{name}-dead")["QueueUrl"])
    arn = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]
    policy = json.dumps({"deadLetterTargetArn": arn["QueueArn"], "maxReceiveCount": 2})
    live = sqs.create_queue(QueueName=name, Attributes={"RedrivePolicy": policy})["QueueUrl"]
    return local(live), dead


CONFIG = {
    "plugin": "pq",
    "plugin_config": {"mask_band": "fmask", "filters": {"clear_0_1": [["dilation", 1]]}},
    "product": {"name": "pc", "short_name": "pc", "version": "1"},
    "renew_safety_margin": 3,
    "threads": 1,
    "memory_limit": "2Gi",
}


@pytest.fixture(scope="session")
def fleet_db(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fleet")
    archive = write_archive(folder / "a", kind="landsat", tile_pixels=48, dates=6)
    save_tasks(Eo3Source(archive.folder), grid=archive.grid, output=folder / "x.db")
    return folder / "x.db"


@pytest.fixture
def tiles(fleet_db):
    with TaskDb.open(fleet_db) as tasks:
        return tasks.indexes()[:4]


@pytest.fixture
def worker(queues, tmp_path):
    """Start a worker; whatever is left at the end is killed, and counted as a fault."""
    started = []

    def start(*options, fault="", idle=3, lease=6, queue=queues[0]):
        env = {**os.environ, "ODC_STATS_FAULT": fault, "PYTHONUNBUFFERED": "1"}
        command = [
            sys.executable, "-m", "odc_stats_gpu", "run", "--from-sqs", queue,
            "--config", yaml.safe_dump(CONFIG | {"job_queue_max_lease": lease}),
            "--location", str(tmp_path / "out"),
            "--idle-timeout", str(idle), "--log-format", "json", *options,
        ]  # fmt: skip
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(psutil.Popen(command, env=env, **pipes))
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        if not process.stdout.closed:
            process.communicate()
