"""Dashboards and alerts ask only for what a worker's /metrics really has."""

from __future__ import annotations

import importlib.util
import json
import re
import urllib.request
from pathlib import Path

import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from odc_stats_gpu.telemetry import metrics, sample_memory, start_metrics

DEPLOY = Path(__file__).parents[2] / "deploy"
FROM_THE_SCRAPE = {"job", "job_name", "pod", "instance", "namespace"}
RULES = yaml.safe_load((DEPLOY / "prometheus/rules.yaml").read_text())["groups"]


@pytest.fixture(scope="module")
def samples():
    """Sample name to the label sets that a worker shows after a tile, a failure and a look."""
    with start_metrics(0, address="127.0.0.1", samplers=[(60, sample_memory)]) as endpoint:
        metrics.task_started()
        metrics.task_finished("done", 3, stages={"read": 1}, bytes_read=5, peak_memory=7)
        metrics.queue_depth("q", visible=1, in_flight=2, delayed=0, dead=0, oldest_age=3)
        metrics.gpu_reading(
            "0", "L4", busy=0.5, memory_used=1, memory_total=2, watts=3, sm_clock_hz=4,
            memory_clock_hz=5, celsius=6,
        )  # fmt: skip
        url = f"http://127.0.0.1:{endpoint.port}/metrics"
        with urllib.request.urlopen(url) as answer:
            text = answer.read().decode()
    out: dict[str, list[dict[str, str]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            out.setdefault(sample.name, []).append(sample.labels)
    return out


def filled(text):
    """As Grafana sends it."""
    text = text.replace("$__range", "6h").replace("$price", "0.4").replace("${task:regex}", "")
    return re.sub(r"\$(job|pod)\b", "any", text)


def panels():
    for path in sorted((DEPLOY / "grafana").glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel["targets"]:
                yield pytest.param(panel, target, id=f"{path.stem}: {panel['title']}")


PANELS = list(panels())
PROMQL = [
    pytest.param(filled(p.values[1]["expr"]), id=p.id)
    for p in PANELS
    if p.values[0]["type"] != "logs"
]
PROMQL += [pytest.param(r["expr"], id=r["alert"]) for g in RULES for r in g["rules"]]


def selectors(node):
    """Every metric selected in an expression, whatever is done with it."""
    if isinstance(node, promql_parser.VectorSelector):
        yield node
        return
    for name in ("vector_selector", "expr", "lhs", "rhs"):
        child = getattr(node, name, None)
        if child is not None:
            yield from selectors(child)
    for child in getattr(node, "args", None) or ():
        yield from selectors(child)


def grouping(text):
    """Labels named in by, without, on and ignoring."""
    for found in re.findall(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)", text):
        yield from (x.strip() for x in found.split(",") if x.strip())


@pytest.mark.parametrize("text", PROMQL)
def test_query_is_promql_over_metrics_labels_and_values_that_exist(text, samples):
    found = list(selectors(promql_parser.parse(text)))
    assert len(found) == len(re.findall(r"\b(?:odc_stats|process)_\w+", text)) >= 1
    known = set(FROM_THE_SCRAPE)
    for selector in found:
        assert selector.name in samples, selector.name
        of_metric = samples[selector.name]
        labels = set().union(*of_metric)
        known |= labels
        for matcher in selector.matchers.matchers:
            assert matcher.name in labels | FROM_THE_SCRAPE, f"{selector.name}{{{matcher.name}}}"
            if matcher.name in FROM_THE_SCRAPE | {"device"}:  # device is `cpu` on other machines
                continue
            shown = {s[matcher.name] for s in of_metric}
            asked = set(matcher.value.split("|"))
            assert asked <= shown, f"{matcher.name}: {asked - shown}"
    assert set(grouping(text)) <= known


def test_a_query_for_nothing_would_be_found(samples):
    for text in ("rate(odc_stats_nothing[5m])", 'odc_stats_tiles_total{status="finished"}'):
        with pytest.raises(AssertionError):
            test_query_is_promql_over_metrics_labels_and_values_that_exist(text, samples)


@pytest.mark.parametrize(("panel", "target"), PANELS)
def test_legends_name_labels_that_the_query_keeps(panel, target, samples):
    names = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
    if not names:
        return
    text = filled(target["expr"])
    kept = set(grouping(text))
    if not kept:
        kept = set().union(*(set().union(*samples[s.name]) for s in selectors(
            promql_parser.parse(text))))  # fmt: skip
    assert names <= kept


@pytest.mark.parametrize("panel", [p.values[0] for p in PANELS if p.values[0]["type"] == "logs"])
def test_log_panels_filter_by_job_and_task(panel):
    (target,) = panel["targets"]
    assert re.match(r'\{job_name=~"\$job"[^}]*\} \| json \| task=~', target["expr"])
    assert panel["datasource"]["type"] == "loki"


@pytest.mark.parametrize("name", ["fleet", "pod"])
def test_json_is_what_the_code_writes(name):
    spec = importlib.util.spec_from_file_location("build", DEPLOY / "grafana/build.py")
    build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    written = (DEPLOY / f"grafana/{name}.json").read_text()
    assert json.loads(written) == build.DASHBOARDS[f"{name}.json"](), "run deploy/grafana/build.py"
    board = json.loads(written)
    boxes = [p["gridPos"] for p in board["panels"]]
    taken = {(x, y) for b in boxes for x in range(b["x"], b["x"] + b["w"])
             for y in range(b["y"], b["y"] + b["h"])}  # fmt: skip
    assert len(taken) == sum(b["w"] * b["h"] for b in boxes), "panels overlap"
    assert max(x for x, _ in taken) < 24
    used = set(re.findall(r"\$\{?(\w+)", written)) - {"__range"}
    assert used == {v["name"] for v in board["templating"]["list"]}


def test_the_fleet_is_seen_as_asked():
    titles = {p["title"] for p in json.loads((DEPLOY / "grafana/fleet.json").read_text())["panels"]}
    assert {
        "Queue", "Tiles per hour", "Time left", "Failures by reason", "Seconds per tile by stage",
        "GPU", "Cost per tile", "Log",
    } <= titles  # fmt: skip


def test_alerts_say_what_to_do():
    rules = [r for g in RULES for r in g["rules"]]
    assert len({r["alert"] for r in rules}) == len(rules)
    for rule in rules:
        assert rule["annotations"]["action"]
        assert rule["labels"]["severity"] in {"info", "warning", "critical"}
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        for label in re.findall(r"\$labels\.(\w+)", str(rule["annotations"])):
            assert label in rule["expr"] or label in FROM_THE_SCRAPE
