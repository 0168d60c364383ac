"""docs/operating.md and the manifests say only commands and options that there are."""

from __future__ import annotations

import re
import shlex
import urllib.request
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from odc_stats_gpu.cli._app import app
from odc_stats_gpu.fleet import JobSpec, parse_job, render
from odc_stats_gpu.telemetry import metrics, start_metrics

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/operating.md").read_text()
ROOT_COMMAND = get_command(app)

PENDING: set[str] = set()
"""Belong to the queue's worker; skipped visibly until the command line has them."""


def commands():
    blocks = [b for _, b in re.findall(r"(?ms)^```(\w*)\n(.*?)^```$", PAGE)]
    found = [x for b in blocks for x in b.splitlines() if x.startswith("odc-stats-gpu ")]
    found += re.findall(r"`(odc-stats-gpu k8s [^`|]+)[`|]", PAGE)
    return found


def parse(arguments):
    """Let the command line read it, without doing anything."""
    command, args = ROOT_COMMAND, list(arguments)
    while hasattr(command, "commands"):
        name = args.pop(0)
        if name not in command.commands:
            if name in PENDING:
                pytest.skip(f"there is no {name} yet")
            pytest.fail(f"there is no command {name}")
        command = command.commands[name]
    known = {o for p in command.params for o in (*p.opts, *p.secondary_opts)}
    missing = {a.partition("=")[0] for a in args if a.startswith("--")} - known
    if missing and missing <= PENDING:
        pytest.skip(f"{command.name} has no {', '.join(sorted(missing))} yet")
    assert not missing
    command.make_context(command.name, args)


def test_the_page_walks_the_whole_way():
    names = [c.split()[1] for c in commands()]
    for name in ("save-tasks", "publish-tasks", "queue-status", "run", "redrive-queue", "k8s"):
        assert name in names


@pytest.mark.parametrize("line", commands())
def test_every_command_of_the_page_is_one(line):
    parse(shlex.split(line)[1:])


def test_a_wrong_option_would_be_found():
    with pytest.raises(AssertionError):
        parse(["verify", "x", "--loud"])


@pytest.mark.parametrize("idle", [None, 0])
def test_pods_start_run_with_options_that_it_has(idle):
    raw = yaml.safe_load((ROOT / "deploy/kubernetes/example/job.yaml").read_text())
    raw["config"] = yaml.safe_load((ROOT / "deploy/kubernetes/example/gm-ls.yaml").read_text())
    out = render(parse_job(raw | {"idle_timeout": idle}))
    (container,) = out["job.yaml"]["spec"]["template"]["spec"]["containers"]
    parse(container["args"])


def test_compose_starts_run_with_options_that_it_has():
    services = yaml.safe_load((ROOT / "docker/compose.yaml").read_text())["services"]
    parse(services["worker-1"]["command"])


def test_the_job_file_of_the_page_renders():
    (text,) = re.findall(r"(?ms)^```yaml\n(# job\.yaml\n.*?)^```", PAGE)
    raw = yaml.safe_load(text)
    raw["config"] = {"plugin": "gm-ls", "product": {"name": "x"}}
    assert render(parse_job(raw))["job.yaml"]["spec"]["parallelism"] == raw["replicas"]


def section(title):
    return PAGE.partition(f"### {title}\n")[2].partition("\n### ")[0]


def test_all_keys_of_the_job_file_are_told():
    told = set(re.findall(r"`(\w+)`", section("The job file")))
    assert set(JobSpec.model_fields) <= told


def test_all_metrics_and_their_values_are_told():
    with start_metrics(0, address="127.0.0.1") as endpoint:
        url = f"http://127.0.0.1:{endpoint.port}/metrics"
        text = urllib.request.urlopen(url).read().decode()
    exposed = set(re.findall(r"(?m)^# TYPE odc_stats_(\w+)", text))
    told = set(re.findall(r"`(\w+)`", section("Metrics")))
    assert exposed == {t for t in told if t not in {"odc_stats_", "other"}}
    for reason in metrics.REASONS:
        assert f"`{reason}`" in PAGE
    for label, value in re.findall(r'(status|event)="(\w+)"', text):
        assert re.search(rf"{label}: [^|]*\b{value}\b", section("Metrics"))


def test_files_linked_to_are_there():
    for link in re.findall(r"\]\((\.\.?/[^)#]+)\)", PAGE):
        assert (ROOT / "docs" / link).exists(), link
