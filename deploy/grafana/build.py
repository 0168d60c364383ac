"""Writes the dashboards: `python deploy/grafana/build.py`. The JSON beside it is never edited."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PROMETHEUS = {"type": "prometheus", "uid": "${prometheus}"}
LOKI = {"type": "loki", "uid": "${loki}"}
JOB = 'job_name=~"$job"'
POD = f'{JOB}, pod=~"$pod"'


def query(text: str, legend: str = "", *, instant: bool = False) -> dict[str, Any]:
    return {"expr": text, "legendFormat": legend, "instant": instant, "range": not instant}


def panel(kind: str, title: str, *queries: dict[str, Any], says: str, unit: str = "short",
          width: int = 8, height: int = 7, **more: Any) -> dict[str, Any]:  # fmt: skip
    """`says` is the text behind the panel's (i)."""
    source = LOKI if kind == "logs" else PROMETHEUS
    targets = [q | {"refId": chr(65 + k), "datasource": source} for k, q in enumerate(queries)]
    custom = {"fillOpacity": 10, "stacking": {"mode": "normal" if more.pop("stack", 0) else "none"}}
    return {
        "type": kind, "title": title, "description": says, "datasource": source,
        "targets": targets, "gridPos": {"w": width, "h": height},
        "fieldConfig": {"defaults": {"unit": unit, "min": 0, **more.pop("defaults", {}),
                                     "custom": custom if kind == "timeseries" else {}},
                        "overrides": []},
        "options": more.pop("options", {}),
    }  # fmt: skip


def stat(title: str, text: str, *, says: str, unit: str = "short", red: float | None = None,
         width: int = 4) -> dict[str, Any]:  # fmt: skip
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if red is not None:
        steps.append({"color": "red", "value": red})
    defaults = {"thresholds": {"mode": "absolute", "steps": steps}, "noValue": "-"}
    return panel("stat", title, query(text, instant=True), says=says, unit=unit, width=width,
                 height=4, defaults=defaults)  # fmt: skip


def lines(title: str, *queries: dict[str, Any], says: str, unit: str = "short", width: int = 8,
          **more: Any) -> dict[str, Any]:  # fmt: skip
    return panel("timeseries", title, *queries, says=says, unit=unit, width=width, **more)


def logs(title: str, selector: str) -> dict[str, Any]:
    text = (
        selector + ' | json | task=~".*${task:regex}.*" '
        '| line_format "{{.level}} {{.event}} task={{.task}} message={{.message_id}} '
        'attempt={{.attempt}} stage={{.stage}} seconds={{.seconds}} {{.error}}"'
    )
    return panel("logs", title, query(text), says="By job; write a tile into `task` above.",
                 width=24, height=10,
                 options={"showTime": True, "sortOrder": "Descending", "enableLogDetails": True})  # fmt: skip


def variables(*, pod: bool) -> list[dict[str, Any]]:
    def source(kind: str) -> dict[str, Any]:
        return {"name": kind, "type": "datasource", "query": kind, "label": kind.title()}

    def values(name: str, text: str, **more: Any) -> dict[str, Any]:
        return {"name": name, "type": "query", "datasource": PROMETHEUS, "refresh": 2, "sort": 1,
                "query": {"query": text, "refId": name}, **more}  # fmt: skip

    out = [source("prometheus"), source("loki"),
           values("job", "label_values(odc_stats_build_info, job_name)",
                  includeAll=not pod, multi=not pod, allValue=".+")]  # fmt: skip
    if pod:
        out.append(values("pod", 'label_values(odc_stats_build_info{job_name=~"$job"}, pod)'))
    else:
        out.append(
            {"name": "price", "type": "textbox", "query": "0.40", "label": "price per worker hour",
             "current": {"text": "0.40", "value": "0.40"}}
        )  # fmt: skip
    empty = {"text": "", "value": ""}
    return [*out, {"name": "task", "type": "textbox", "query": "", "label": "task",
                   "current": empty}]  # fmt: skip


def dashboard(uid: str, title: str, panels: list[dict[str, Any]], *, pod: bool) -> dict[str, Any]:
    x = y = tallest = 0
    for number, item in enumerate(panels, 1):
        size = item["gridPos"]
        if x + size["w"] > 24:
            x, y, tallest = 0, y + tallest, 0
        item["gridPos"], item["id"] = {"x": x, "y": y, **size}, number
        x, tallest = x + size["w"], max(tallest, size["h"])
    return {
        "uid": uid, "title": title, "tags": ["odc-stats-gpu"], "schemaVersion": 39, "version": 1,
        "editable": False, "refresh": "30s", "time": {"from": "now-6h", "to": "now"},
        "timezone": "browser", "templating": {"list": variables(pod=pod)},
        "annotations": {"list": []}, "panels": panels,
    }  # fmt: skip


DONE = f'odc_stats_tiles_total{{{JOB}, status="done"}}'
ENDED = f'odc_stats_tiles_total{{{JOB}, status=~"done|skipped"}}'
WAITING = f'max(odc_stats_queue_messages{{{JOB}, state="visible"}})'
FLYING = f'max(odc_stats_queue_messages{{{JOB}, state="in_flight"}})'
WORKERS = f"count(odc_stats_build_info{{{JOB}}})"


def fleet() -> dict[str, Any]:
    return dashboard("odc-stats-fleet", "odc-stats-gpu: fleet", [
        stat("Waiting", WAITING, says="Messages that no worker has, as SQS says approximately."),
        stat("In flight", FLYING, says="Messages under lease: about the number of workers."),
        stat("Dead", f'max(odc_stats_queue_messages{{{JOB}, state="dead"}})', red=1,
             says="Tiles that failed three times: find out why, then redrive-queue."),
        stat("Workers", WORKERS, says="Pods that answer."),
        stat("Tiles per hour", f"sum(rate({DONE}[30m])) * 3600", says="Over half an hour."),
        stat("Time left", f"({WAITING} + {FLYING}) / (sum(rate({ENDED}[30m])) > 0)", unit="s",
             says="What waits or flies, at the rate of the last half hour."),
        stat("Cost per tile", f"$price * {WORKERS} / (sum(rate({DONE}[30m])) * 3600 > 0)",
             unit="currencyUSD", says="Workers times price per hour, by tiles per hour."),
        stat("Failed", f"sum(increase(odc_stats_failures_total{{{JOB}}}[$__range]))", red=1,
             says="Attempts that failed in the time shown; each is tried three times."),
        stat("Skipped", f'sum(increase(odc_stats_tiles_total{{{JOB}, status="skipped"}}[$__range]))',
             says="Tiles that were there already."),
        stat("Leases lost", f'sum(increase(odc_stats_lease_events_total{{{JOB}, event="lost"}}[$__range]))',
             red=1, says="Work thrown away because SQS gave the message to somebody else."),
        stat("Oldest message", f"max(odc_stats_queue_oldest_age_seconds{{{JOB}}})", unit="s",
             says="From CloudWatch; empty where it may not be read."),
        stat("GPU busy", f"avg(odc_stats_gpu_busy_ratio{{{JOB}}})", unit="percentunit",
             says="Share of time with a kernel running, mean of all GPUs."),
        lines("Queue", query(f"max by (queue, state) (odc_stats_queue_messages{{{JOB}}})", "{{state}}"),
              says="Visible falls, in flight stays at the number of workers, dead stays at 0."),
        lines("Tiles per hour", query(f"sum by (status) (rate(odc_stats_tiles_total{{{JOB}}}[15m])) * 3600",
              "{{status}}"), says="By how they ended.", stack=True),
        panel("bargauge", "Failures by reason",
              query(f"sum by (reason) (increase(odc_stats_failures_total{{{JOB}}}[$__range])) > 0", "{{reason}}",
                    instant=True), says="In the time shown.",
              options={"orientation": "horizontal", "displayMode": "basic"}),
        lines("Seconds per tile by stage",
              query(f"sum by (stage) (rate(odc_stats_stage_seconds_total{{{JOB}}}[30m])) / "
                    f"ignoring (stage) group_left () (sum(rate({DONE}[30m])) > 0)", "{{stage}}"),
              says="Summed over threads: more than the wall time where stages overlap.", unit="s", stack=True),
        lines("Wall time of a tile",
              *(query(f'histogram_quantile({q}, sum by (le) (rate(odc_stats_task_seconds_bucket{{{JOB}, '
                      f'status="done"}}[30m])))', name) for q, name in ((0.5, "median"), (0.95, "95 %"))),
              says="Tiles made, skipped ones left out.", unit="s"),
        lines("Leases", query(f"sum by (event) (increase(odc_stats_lease_events_total{{{JOB}}}[5m]))", "{{event}}"),
              says="handed_back is Spot at work; lost and malformed want a look."),
        lines("GPU", query(f"avg(odc_stats_gpu_busy_ratio{{{JOB}}})", "busy"),
              query(f"sum(odc_stats_gpu_memory_used_bytes{{{JOB}}}) / sum(odc_stats_gpu_memory_total_bytes{{{JOB}}})",
                    "memory"), says="Means of all GPUs.", unit="percentunit"),
        lines("Bytes", query(f"sum(rate(odc_stats_read_bytes_total{{{JOB}}}[5m]))", "read"),
              query(f"sum(rate(odc_stats_written_bytes_total{{{JOB}}}[5m]))", "written"),
              says="Scenes read, tiles written.", unit="Bps"),
        lines("Versions", query(f"count by (version, device) (odc_stats_build_info{{{JOB}}})",
              "{{version}} {{device}}"), says="A worker on the CPU in a GPU fleet shows here."),
        logs("Log", '{job_name=~"$job"}'),
    ], pod=False)  # fmt: skip


def pod() -> dict[str, Any]:
    return dashboard("odc-stats-pod", "odc-stats-gpu: one worker", [
        stat("In hand", f"sum(odc_stats_tasks_in_flight{{{POD}}})", says="Tiles being worked on."),
        stat("Done", f'sum(odc_stats_tiles_total{{{POD}, status="done"}})', says="Since its start."),
        stat("Failed", f'sum(odc_stats_tiles_total{{{POD}, status="failed"}})', red=1, says="Since its start."),
        stat("Since the last tile", f"time() - max(odc_stats_last_task_timestamp_seconds{{{POD}}} > 0)", unit="s",
             says="Since a tile last ended here."),
        stat("Up", f"time() - max(process_start_time_seconds{{{POD}}})", unit="s", says="Age of the process."),
        stat("GPU busy", f"avg(odc_stats_gpu_busy_ratio{{{POD}}})", unit="percentunit", says="Now."),
        lines("Threads at work by stage", query(f"sum by (stage) (rate(odc_stats_stage_seconds_total{{{POD}}}[5m]))",
              "{{stage}}"), says="Seconds of work per second; known when a tile ends.", stack=True, width=12),
        lines("Memory", query(f"sum(odc_stats_memory_bytes{{{POD}}})", "resident"),
              query(f"max(odc_stats_peak_memory_bytes{{{POD}}})", "peak of the last tile"),
              says="Of the worker and its processes.", unit="bytes", width=12),
        lines("Blocks", query(f"sum(rate(odc_stats_blocks_total{{{POD}}}[5m])) * 60", "per minute"),
              says="Stands still when a read hangs.", width=12),
        lines("Bytes", query(f"sum(rate(odc_stats_read_bytes_total{{{POD}}}[5m]))", "read"),
              query(f"sum(rate(odc_stats_written_bytes_total{{{POD}}}[5m]))", "written"),
              says="Scenes read, tiles written.", unit="Bps", width=12),
        lines("GPU", query(f"odc_stats_gpu_busy_ratio{{{POD}}}", "busy {{gpu}} {{name}}"),
              query(f"odc_stats_gpu_memory_used_bytes{{{POD}}} / odc_stats_gpu_memory_total_bytes{{{POD}}}",
                    "memory {{gpu}}"), says="From NVML.", unit="percentunit", width=6),
        lines("GPU power", query(f"odc_stats_gpu_power_watts{{{POD}}}", "{{gpu}} {{name}}"),
              says="Low while busy: waiting for memory.", unit="watt", width=6),
        lines("GPU clocks", query(f"odc_stats_gpu_clock_hertz{{{POD}}}", "{{gpu}} {{domain}}"),
              says="They fall when it is too hot.", unit="hertz", width=6),
        lines("GPU heat", query(f"odc_stats_gpu_temperature_celsius{{{POD}}}", "{{gpu}} {{name}}"),
              says="Of the chip.", unit="celsius", width=6),
        lines("Leases", query(f"sum by (event) (increase(odc_stats_lease_events_total{{{POD}}}[5m]))", "{{event}}"),
              says="Renewals come at half the lease.", width=12),
        lines("CPU of the supervisor", query(f"rate(process_cpu_seconds_total{{{POD}}}[5m])", "cores"),
              says="The process that holds the lease; the tile is made in a child.", width=12),
        logs("Log", '{job_name=~"$job", pod=~"$pod"}'),
    ], pod=True)  # fmt: skip


DASHBOARDS = {"fleet.json": fleet, "pod.json": pod}

if __name__ == "__main__":
    for name, build in DASHBOARDS.items():
        (HERE / name).write_text(json.dumps(build(), indent=1) + "\n")
