"""Every command of docs/operating.md, run in the order of the page against a stand-in for AWS."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import boto3
import pytest
import yaml
from moto.server import ThreadedMotoServer

from odc_stats_gpu.cli import main
from odc_stats_gpu.demo import write_archive
from odc_stats_gpu.queue import forget_clients
from odc_stats_gpu.tasks import TaskDb

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/operating.md").read_text()
BLOCKS = [b for kind, b in re.findall(r"(?ms)^```(\w*)\n(.*?)^```$", PAGE) if not kind]
LINES = [x for b in BLOCKS for x in b.splitlines() if not x.startswith("{")]  # LogQL apart
GM_LS = {
    "plugin": "gm-ls",
    "plugin_config": {
        "bands": ["blue", "green", "red"], "mask_band": "fmask", "cloud_classes": ["cloud"],
    },
    "product": {"name": "ga_ls8c_nbart_gm_cyear_3", "version": "3.0.0"},
    "output_location": "s3://odc-stats-output/{product}/{version}",
    "job_queue_max_lease": 60,
    "memory_limit": "2Gi",
    "threads": 1,
}  # fmt: skip
DEAD_AFTER = 3


@pytest.fixture(scope="module")
def walk(tmp_path_factory):
    """A folder with scenes and configuration, queues and buckets; what has been run so far."""
    folder = tmp_path_factory.mktemp("runbook")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "ap-southeast-2",
            "AWS_EC2_METADATA_DISABLED": "true", "ODC_STATS_JOB": "gm-ls-2019",
        }.items():  # fmt: skip
            patch.setenv(name, value)
        patch.chdir(folder)
        forget_clients()
        yield Walk(folder)
        forget_clients()
    server.stop()


class Walk:
    def __init__(self, folder):
        self.folder = folder
        self.sqs, self.s3 = boto3.client("sqs"), boto3.client("s3")
        dead = self.sqs.create_queue(QueueName="gm-ls-deadletter")["QueueUrl"]
        arn = self.sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])
        policy = {
            "deadLetterTargetArn": arn["Attributes"]["QueueArn"], "maxReceiveCount": DEAD_AFTER,
        }  # fmt: skip
        live = self.sqs.create_queue(
            QueueName="gm-ls", Attributes={"RedrivePolicy": json.dumps(policy)}
        )
        self.live, self.dead = live["QueueUrl"], dead
        place = {"LocationConstraint": "ap-southeast-2"}
        for bucket in ("odc-stats-output", "odc-stats-test"):
            self.s3.create_bucket(Bucket=bucket, CreateBucketConfiguration=place)
        self.archive = write_archive(folder / "a", kind="landsat", tile_pixels=32, dates=4)
        (folder / "gm-ls.yaml").write_text(yaml.safe_dump(GM_LS))
        job = re.search(r"(?ms)^```yaml\n(# job\.yaml\n.*?)^```", PAGE)[1]
        (folder / "job.yaml").write_text(job)
        self.log = self.metrics = ""

    def run(self, line):
        """Run a line of the page; scenes, tile, port and patience are this folder's."""
        program, *words = shlex.split(line, comments=True)
        words = [self.here(w) for w in words]
        if program != "odc-stats-gpu":
            STAND_INS[program](self, words)
        elif words[0] == "save-tasks":
            assert main([*words, "--eo3", str(self.archive.folder)]) == 0
            with TaskDb.open(self.folder / "ga_ls8c_ard_3_all.db") as tasks:
                found = tasks.indexes()
            self.tile, self.tiles = str(found[0]), len(found)
        elif "--watch" in words:
            self.watch(words)
        elif any(w.startswith("--from-sqs") for w in words):
            self.work(words)
        else:
            if words[0] == "redrive-queue":
                self.sqs.send_message(QueueUrl=self.dead, MessageBody=self.body())
            assert main(words) == 0, line

    def here(self, word):
        word = word.replace("2015--P1Y/41/13", getattr(self, "tile", ""))
        if word == "au-30":
            return str(self.archive.grid)
        if word == "ga_ls8c_ard_3":
            return word
        return word.replace("/tmp/heartbeat", str(self.folder / "heartbeat"))

    def body(self):
        return json.dumps(
            {"filedb": "s3://odc-stats-output/tasks/ga_ls8c_ard_3_all.db", "tile": self.tile}
        )

    def start(self, words):
        command = [sys.executable, "-m", "odc_stats_gpu", *words]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def watch(self, words):
        process = self.start(words)
        assert "gm-ls" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        assert process.returncode in (0, 3)

    def work(self, words):
        """A worker until the queue is empty; its metrics are read while it idles."""
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            port = found.getsockname()[1]
        words = [re.sub("=9090$", f"={port}", w) for w in words]
        with (self.folder / "log").open("w") as log:
            command = [sys.executable, "-m", "odc_stats_gpu", *words, "--idle-timeout=20"]
            process = subprocess.Popen(command, stderr=log)
            until = time.monotonic() + 240
            while process.poll() is None and time.monotonic() < until:
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
                        self.metrics = answer.read().decode()
                except OSError:
                    pass
                done = re.search(r'tiles_total\{status="done"\} (\d+)', self.metrics)
                if done and int(done[1]) >= self.tiles and "queue_messages{" in self.metrics:
                    process.send_signal(signal.SIGTERM)
                    break
                time.sleep(0.3)
            assert process.wait(timeout=60) == 3  # interrupted, idle
        assert (self.folder / "heartbeat").exists()
        self.log = (self.folder / "log").read_text()


def aws(walk, words):
    assert words[:2] == ["s3", "cp"]
    bucket, _, key = words[3].removeprefix("s3://").partition("/")
    key += words[2] if key.endswith("/") else ""
    walk.s3.upload_file(str(walk.folder / words[2]), bucket, key)


def kubectl(walk, words):
    if words[:2] == ["apply", "-k"]:
        folder = walk.folder / words[2]
        index = yaml.safe_load((folder / "kustomization.yaml").read_text())
        assert all((folder / name).is_file() for name in index["resources"])
        if shutil.which("kubectl"):
            command = ["kubectl", "kustomize", str(folder)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            assert "kind: Job" in done.stdout
    else:
        assert words[0] == "get"
        for option in ("-n", "-l"):
            if option in words:
                value = words[words.index(option) + 1]
                manifests = "".join(
                    p.read_text() for p in (ROOT / "deploy/kubernetes").rglob("*.yaml")
                )
                assert value.replace("=", ": ") in manifests


STAND_INS = {"aws": aws, "kubectl": kubectl}


@pytest.fixture(scope="module")
def walked(walk):
    for line in LINES:
        walk.run(line)
    return walk


def test_every_command_runs_in_the_order_of_the_page(walked, capsys):
    assert len(LINES) >= 18
    names = {shlex.split(x)[1] for x in LINES if x.startswith("odc-stats-gpu")}
    assert names >= {
        "save-tasks", "run", "publish-tasks", "redrive-queue", "queue-status", "verify", "report",
    }  # fmt: skip
    listed = walked.s3.list_objects_v2(Bucket="odc-stats-output", Prefix="ga_ls8c_nbart_gm_cyear_3")
    items = [o["Key"] for o in listed["Contents"] if o["Key"].endswith(".stac-item.json")]
    assert len(items) == walked.tiles
    assert "error" not in capsys.readouterr().err


def test_lines_of_the_log_say_whose_they_are(walked):
    lines = [json.loads(x) for x in walked.log.splitlines() if x.startswith("{")]
    assert {x["job"] for x in lines} == {"gm-ls-2019"}
    assert all({"event", "level", "timestamp"} <= x.keys() for x in lines)
    done = [x for x in lines if x.get("task") and "seconds" in x and "message_id" in x]
    assert len({x["task"] for x in done}) == walked.tiles
    assert all(x["attempt"] == 1 for x in done)
    stages = [x for x in lines if x["event"] == "stage"]
    assert {"read", "commit"} <= {x["stage"] for x in stages}
    assert all({"job", "task", "message_id", "attempt", "seconds"} <= x.keys() for x in stages)
    assert {x["task"] for x in stages} == {x["task"] for x in done}


def test_dashboards_and_alerts_ask_for_what_this_worker_showed(walked):
    shown = set(re.findall(r"(?m)^(\w+)(?:\{|\s)", walked.metrics))
    shown |= set(re.findall(r"(?m)^# TYPE (\w+)", walked.metrics))  # labels appear when set
    texts = [p.read_text() for p in (ROOT / "deploy/grafana").glob("*.json")]
    texts.append((ROOT / "deploy/prometheus/rules.yaml").read_text())
    asked = set(re.findall(r"\b(?:odc_stats|process)_\w+", " ".join(texts)))
    assert asked
    assert {a for a in asked if a not in shown} == set()
    assert re.search(r'stage_seconds_total\{stage="\w+"\} [\d.e-]*[1-9]', walked.metrics)


def test_stand_ins_are_of_the_programs_that_the_page_names():
    assert {shlex.split(x)[0] for x in LINES} == {"odc-stats-gpu", *STAND_INS}
