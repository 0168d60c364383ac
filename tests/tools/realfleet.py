"""A fleet for tests: queues on moto, real worker processes behind a faulty proxy, and the judge."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import psutil
import yaml
from faultproxy import FaultProxy

from odc_stats_gpu.model import TileIndex
from odc_stats_gpu.output import verify
from odc_stats_gpu.queue import QueueStatus, publish, queue_status

CONFIG: dict[str, Any] = {
    "plugin": "pq",
    "plugin_config": {"mask_band": "fmask", "filters": {"clear_0_1": [["dilation", 1]]}},
    "product": {"name": "pc", "short_name": "pc", "version": "1"},
    "job_queue_max_lease": 6,
    "renew_safety_margin": 3,
    "threads": 1,
    "memory_limit": "2Gi",
}


def seconds_to_leave() -> float:
    """Ten, after a signal and after the last task; more where too many want the same cores."""
    crowded = os.getloadavg()[0] > 2 * (os.cpu_count() or 1)
    return 30 if crowded else 10


def until(what: Callable[[], Any], seconds: float, every: float = 0.1) -> Any:
    """Wait for a true value; the last value when time is up."""
    end = time.monotonic() + seconds
    while not (value := what()) and time.monotonic() < end:
        time.sleep(every)
    return value


@dataclass(eq=False)
class Worker:
    """One `run --from-sqs` process, and what it said."""

    process: psutil.Popen
    log: Path
    out: Path
    signalled: float = 0.0
    """Monotonic time of the SIGTERM."""

    @property
    def family(self) -> list[psutil.Process]:
        """The process and its children, as far as they live."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return [self.process, *self.process.children(recursive=True)]
        return []

    @property
    def children(self) -> list[psutil.Process]:
        return self.family[1:]

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def terminate(self) -> None:
        self.signalled = time.monotonic()
        self.process.send_signal(signal.SIGTERM)

    def pause(self) -> None:
        for process in self.family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()

    def resume(self) -> None:
        for process in self.family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()

    def leave(self, seconds: float) -> int:
        """Exit code; raises psutil.TimeoutExpired."""
        return int(self.process.wait(seconds))

    def lines(self) -> list[dict[str, Any]]:
        """Every log line; a worker may have died within the last."""
        found = []
        for line in self.log.read_text(errors="replace").splitlines():
            with contextlib.suppress(ValueError):
                found.append(json.loads(line))
        return [line for line in found if isinstance(line, dict)]

    def said(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.lines() if line.get("event") == event]

    @property
    def told(self) -> Counter[str]:
        """How many tiles it says were done, skipped, failed."""
        names = ("done", "skipped", "failed")
        return Counter({n: len(self.said(f"task {n}")) for n in names})

    @property
    def counted(self) -> Counter[str]:
        """The same by its last line."""
        found = re.search(r"T:(\d+), OK:(\d+), S:(\d+), E:(\d+)", self.out.read_text())
        if not found:
            raise AssertionError(f"no summary: {self.log.read_text()[-3000:]}")
        total, done, skipped, failed = map(int, found.groups())
        assert total == done + skipped + failed
        return Counter({"done": done, "skipped": skipped, "failed": failed})


@dataclass
class Fleet:
    """Queue, dead-letter queue, output location and workers of one test."""

    proxy: FaultProxy
    folder: Path
    filedb: str
    location: str
    receives: int = 3
    config: Mapping[str, Any] = field(default_factory=dict)
    workers: list[Worker] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.id = f"storm-{uuid.uuid4().hex[:8]}"
        self.sqs, self.s3 = boto3.client("sqs"), boto3.client("s3")
        self.dead = self.sqs.create_queue(QueueName=f"{self.id}-dead")["QueueUrl"]
        arn = self.sqs.get_queue_attributes(QueueUrl=self.dead, AttributeNames=["QueueArn"])
        policy = {"deadLetterTargetArn": arn["Attributes"]["QueueArn"],
                  "maxReceiveCount": self.receives}  # fmt: skip
        self.queue = self.sqs.create_queue(
            QueueName=self.id, Attributes={"RedrivePolicy": json.dumps(policy)}
        )["QueueUrl"]
        self.scratch = self.folder / "scratch"
        self.scratch.mkdir(parents=True)
        (self.folder / "c.yaml").write_text(yaml.safe_dump(CONFIG | dict(self.config)))
        if self.location.startswith("s3://"):
            self.s3.create_bucket(Bucket=self.bucket)

    @property
    def bucket(self) -> str:
        return self.location.removeprefix("s3://").partition("/")[0]

    def publish(self, tiles: Iterable[TileIndex]) -> None:
        wanted = list(tiles)
        assert publish(self.filedb, self.queue, wanted).sent == len(wanted)

    def start(
        self, *options: str, fault: str = "", idle: float = 3,
        env: Mapping[str, str] | None = None, log: str = "",
    ) -> Worker:  # fmt: skip
        """One more worker; `log` is where its stderr goes instead of a file of its own."""
        number = len(self.workers)
        lines, out = Path(log or self.folder / f"{number}.log"), self.folder / f"{number}.out"
        environment = {
            **os.environ, "AWS_ENDPOINT_URL": self.proxy.url, "ODC_STATS_FAULT": fault,
            "ODC_STATS_JOB": self.id, "TMPDIR": str(self.scratch), **(env or {}),
        }  # fmt: skip
        command = [
            sys.executable, "-m", "odc_stats_gpu", "run", "--from-sqs", self.id,
            "--config", str(self.folder / "c.yaml"), "--location", self.location,
            "--idle-timeout", str(idle), "--log-format", "json", *options,
        ]  # fmt: skip
        with lines.open("w") as err, out.open("w") as text:
            process = psutil.Popen(
                command, env=environment, stdout=text, stderr=err, stdin=subprocess.DEVNULL
            )
        self.workers.append(Worker(process, lines, out))
        return self.workers[-1]

    @property
    def processes(self) -> list[psutil.Process]:
        """Whatever runs on behalf of this fleet, whoever its parent is by now."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                ours = process.environ().get("ODC_STATS_JOB") == self.id
                if ours and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def end(self) -> None:
        """Leave nothing, whatever the test came to."""
        for process in self.processes:
            with contextlib.suppress(psutil.Error):
                process.kill()
        for worker in self.workers:
            worker.process.wait(10)

    @property
    def status(self) -> QueueStatus:
        return queue_status(self.queue)

    @property
    def empty(self) -> bool:
        now = self.status
        return (now.visible, now.in_flight, now.delayed) == (0, 0, 0)

    def dead_bodies(self) -> dict[str, str]:
        """Messages in the dead-letter queue by their ids; they stay there."""
        found: dict[str, str] = {}
        handles = []
        while messages := self.sqs.receive_message(
            QueueUrl=self.dead, MaxNumberOfMessages=10, VisibilityTimeout=30
        ).get("Messages"):
            for message in messages:
                found[message["MessageId"]] = message["Body"]
                handles.append(message["ReceiptHandle"])
        for handle in handles:
            self.sqs.change_message_visibility(
                QueueUrl=self.dead, ReceiptHandle=handle, VisibilityTimeout=0
            )
        return found

    def dead_messages(self) -> dict[str, TileIndex]:
        """Their tiles."""
        bodies = self.dead_bodies().items()
        return {k: TileIndex.parse(json.loads(body)["tile_idx"]) for k, body in bodies}

    def dead_tiles(self) -> list[TileIndex]:
        """Tiles that are in the dead-letter queue, once or more often."""
        return sorted(set(self.dead_messages().values()))

    def finish(self, *options: str, within: float = 120, idle: float = 9) -> Worker:
        """Let one more worker, undisturbed, do what is left; it must leave by itself with 0."""
        self.proxy.clear()
        worker = self.start(*options, idle=idle)
        code = worker.leave(within)
        assert code == 0, worker.log.read_text()[-3000:]
        assert worker.told == worker.counted
        return worker

    def content(self) -> dict[str, bytes]:
        """Every published file: those in the making have hidden names."""
        if not self.location.startswith("s3://"):
            root = Path(self.location.removeprefix("file://"))
            files = (p for p in sorted(root.rglob("*")) if p.is_file() and p.suffix != ".part")
            return {str(p): p.read_bytes() for p in files}
        keys = [
            entry["Key"]
            for page in self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket)
            for entry in page.get("Contents", ())
        ]
        return {k: self.s3.get_object(Bucket=self.bucket, Key=k)["Body"].read() for k in keys}

    def finished(self) -> list[TileIndex]:
        """Tiles that have an item."""
        shape = re.compile(r"_x(-?\d+)y(-?\d+)_([^_]+--P\w+)\.stac-item\.json$")
        names = (shape.search(path) for path in self.content())
        return sorted(TileIndex(n[3], int(n[1]), int(n[2])) for n in names if n is not None)

    def judge(self, good: Iterable[TileIndex], dead: Iterable[TileIndex] = ()) -> None:
        """Every good tile is done with verified files, the others are dead, and nothing remains.

        What failed attempts have put of a dead tile waits for the next one, without an item.
        """
        assert until(lambda: not self.processes, seconds_to_leave()), self.processes
        assert self.empty, self.status
        assert self.dead_tiles() == sorted(dead)
        report = verify(self.location)
        assert report.ok, str(report)
        assert self.finished() == sorted(good)
        unfinished = [f"_x{t.x}y{t.y}_{t.period}" for t in {*dead} - {*good}]
        left = [f.path for f in report.findings if f.check == "leftover"]
        assert not [path for path in left if not any(name in path for name in unfinished)]
        if self.location.startswith("s3://"):
            assert not self.s3.list_multipart_uploads(Bucket=self.bucket).get("Uploads")
        assert not [p for p in self.scratch.rglob("*") if p.is_file()]
