"""The operator's commands against a real SQS server: what they print, send and answer."""

from __future__ import annotations

import json
import urllib.request

import pytest

from odc_stats_gpu.cli import main
from odc_stats_gpu.cli._run_queue import _sample_queue
from odc_stats_gpu.demo import write_archive
from odc_stats_gpu.queue import queue_status
from odc_stats_gpu.tasks import Eo3Source, save_tasks
from odc_stats_gpu.telemetry import start_metrics


@pytest.fixture(scope="module")
def db(tmp_path_factory):
    folder = tmp_path_factory.mktemp("db")
    archive = write_archive(folder / "a", kind="landsat", tile_pixels=64, dates=6)
    save_tasks(Eo3Source(archive.folder), grid=archive.grid, output=folder / "x.db")
    return folder / "x.db"


@pytest.fixture
def rows(db):
    return db.with_suffix(".csv").read_text().count("\n") - 1


def name(url):
    return url.rsplit("/", 1)[-1]


def test_a_dry_run_prints_the_tasks_and_sends_nothing(sqs, queues, db, rows, capsys):
    assert main(["publish-tasks", str(db), name(queues[0]), "--dryrun"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == rows
    assert all(line.startswith("2021--P1Y/+") for line in lines)
    assert queue_status(queues[0]).visible == 0


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_local_database_is_published_only_when_allowed(sqs, queues, db, rows, scheme, capsys):
    address = f"{scheme}{db}"
    assert main(["publish-tasks", address, name(queues[0])]) == 2
    assert "--allow-local" in capsys.readouterr().err
    assert main(["publish-tasks", address, name(queues[0]), "--allow-local"]) == 0
    assert f"Published {rows} of {rows} tasks" in capsys.readouterr().out
    assert queue_status(queues[0]).visible == rows
    (got,) = sqs.receive_message(QueueUrl=queues[0])["Messages"]
    assert json.loads(got["Body"])["filedb"] == str(db)


def test_selectors_and_areas_narrow_a_publication(sqs, queues, db, tmp_path, capsys):
    assert main(["publish-tasks", str(db), name(queues[0]), ":2", "--dry-run"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    area = tmp_path / "a.geojson"
    far = [[[0, 0], [1, 0], [1, 1], [0, 0]]]
    area.write_text(json.dumps({"type": "Polygon", "coordinates": far}))
    options = ["--geojson-filter", str(area), "--dry-run"]
    assert main(["publish-tasks", str(db), name(queues[0]), *options]) == 0
    assert capsys.readouterr().out == ""


def test_what_is_no_file_is_taken_as_s3_with_a_line_saying_so(sqs, queues, capsys):
    assert main(["publish-tasks", "bucket/prefix/x.db", name(queues[0])]) != 0
    assert "taken as s3://bucket/prefix/x.db" in capsys.readouterr().err


@pytest.mark.parametrize("named", ["dead", "live"])
def test_redrive_finds_both_queues_from_either_name(sqs, queues, named, capsys):
    live, dead = queues
    for k in range(3):
        sqs.send_message(QueueUrl=dead, MessageBody=f"m{k}")
    given = name(dead if named == "dead" else live)
    assert main(["redrive-queue", given, "--dry-run", "--limit", "2"]) == 0
    assert "about 2 messages" in capsys.readouterr().out
    assert main(["redrive-queue", given]) == 0
    assert "Moved 3 messages" in capsys.readouterr().out
    assert queue_status(live).visible == 3


def test_status_is_readable_and_json(sqs, queues, capsys):
    assert main(["queue-status", name(queues[0])]) == 0
    assert "0 visible, 0 in flight, 0 dead" in capsys.readouterr().out
    assert main(["queue-status", name(queues[0]), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["dead"] == 0


def test_the_metrics_tell_how_the_queue_stands(sqs, queues):
    sqs.send_message(QueueUrl=queues[0], MessageBody="m")
    with start_metrics(0, address="127.0.0.1") as endpoint:
        _sample_queue(queues[0])
        text = urllib.request.urlopen(f"http://127.0.0.1:{endpoint.port}/metrics").read().decode()
    label = f'odc_stats_queue_messages{{queue="{name(queues[0])}",state='
    assert f'{label}"visible"}} 1.0' in text
    assert f'{label}"dead"}} 0.0' in text


def test_an_unknown_queue_is_one_line_and_exit_2(sqs, capsys):
    assert main(["queue-status", "nowhere"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_service_without_native_moves_says_so_in_one_line(sqs, queues, capsys):
    sqs.send_message(QueueUrl=queues[1], MessageBody="m")
    assert main(["redrive-queue", name(queues[1]), "--native"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "StartMessageMoveTask" in err
    assert "leave out --native" in err
    assert queue_status(queues[1]).visible == 1


def test_where_there_are_native_moves_they_are_used(sqs, queues, proxy, capsys):
    proxy.answers["StartMessageMoveTask"] = {"TaskHandle": "handle-1"}
    assert main(["redrive-queue", name(queues[1]), "--native"]) == 0
    assert "handle-1" in capsys.readouterr().out
    asked = proxy.bodies["StartMessageMoveTask"]
    assert asked["SourceArn"].endswith(name(queues[1]))
    assert asked["DestinationArn"].endswith(name(queues[0]))


def test_a_worker_without_a_queue_is_one_line_and_exit_2(sqs, tmp_path, capsys):
    options = ["--plugin", "pq", "--location", str(tmp_path), "--no-spot-notice"]
    assert main(["run", "--from-sqs", "nowhere", *options]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    url = f"{sqs.meta.endpoint_url}/123456789012/nowhere"
    assert main(["run", "--from-sqs", url, *options]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_lease_longer_than_sqs_allows_is_refused(sqs, queues, tmp_path, capsys):
    options = ["--config", "{plugin: pq, job_queue_max_lease: 50000}", "--location", str(tmp_path)]
    assert main(["run", "--from-sqs", name(queues[0]), *options]) == 2
    assert "job_queue_max_lease" in capsys.readouterr().err


def test_a_watcher_goes_on_while_the_queue_does_not_answer(sqs, queues, proxy, monkeypatch, capsys):
    looks = []

    def sleep(seconds):
        looks.append(seconds)
        proxy.refuse["GetQueueAttributes"] = (403, "AccessDenied")
        if len(looks) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("odc_stats_gpu.cli._queue.time.sleep", sleep)
    assert main(["queue-status", queues[0], "--watch", "7", "--json"]) == 3
    told = capsys.readouterr()
    assert looks == [7, 7, 7]
    assert json.loads(told.out.splitlines()[0])["visible"] == 0
    assert told.err.count("can't read the queue") == 2
