"""The record of a run: one JSON file, and the same for people as Markdown."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SCHEMA = "odc-stats-gpu/gpu-record/1"
"""Raised when a key changes its meaning or goes; new keys may come without."""
NO_CLAIM = (
    "**Simulated: the kernels ran as Python. This record shows that everything is in place; "
    "it says nothing of speed.**"
)


def name_of(record: dict[str, Any]) -> str:
    """File name of a record without its ending: device and time."""
    device = (record["parts"].get("machine", {}).get("result") or {}).get("device") or "unknown"
    device = "simulated" if record["simulated"] else device
    slug = re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")
    return f"{slug}-{re.sub('[^0-9]', '', record['made'])[:12]}"


def write(record: dict[str, Any], out: Path, name: str) -> tuple[Path, Path]:
    """Write both files, complete each time; return their paths."""
    found = out / f"{name}.json", out / f"{name}.md"
    for path, text in zip(
        found, (json.dumps(record, indent=1) + "\n", markdown(record)), strict=True
    ):
        part = path.with_name(f".{path.name}.part")
        part.write_text(text)
        part.replace(path)
    return found


def markdown(record: dict[str, Any]) -> str:
    """The record as Markdown."""
    return "\n".join(_lines(record)) + "\n"


def _lines(record: dict[str, Any]) -> Iterator[str]:
    parts = record["parts"]
    device = (parts.get("machine", {}).get("result") or {}).get("device") or "unknown device"
    yield f"# odc-stats-gpu on {device}"
    yield ""
    if record["simulated"]:
        yield NO_CLAIM
        yield ""
    yield f"{record['made']}, commit {record['commit'] or 'unknown'}, schema {record['schema']}."
    yield ""
    yield "| part | result | seconds |"
    yield "|---|---|---|"
    for part in parts.values():
        error = f": {_cell(part['error'])}" if part.get("error") else ""
        yield f"| {part['title']} | {part['status']}{error} | {part['seconds']} |"
    sections = {
        "machine": _machine, "tests": _tests, "ceilings": _ceilings, "kernels": _kernels,
        "cpu": _cpu, "tiles": _tiles, "sanitizer": _tests, "profile": _profile,
    }  # fmt: skip
    for name, lines in sections.items():
        if result := parts.get(name, {}).get("result"):
            yield ""
            yield f"## {parts[name]['title']}"
            yield from lines(result)


def _cell(text: Any) -> str:
    return " ".join(str(text).replace("|", "/").split())[:300]


def _machine(found: dict[str, Any]) -> Iterator[str]:
    for key, value in found.items():
        if key == "versions":
            yield f"- versions: {', '.join(f'{k} {v}' for k, v in value.items())}"
        elif key.endswith("_bytes") and value is not None:
            yield f"- {key.removesuffix('_bytes').replace('_', ' ')}: {value / 2**30:.2f} GiB"
        else:
            yield f"- {key.replace('_', ' ')}: {value}"


def _tests(found: dict[str, Any]) -> Iterator[str]:
    yield "| file | passed | failed | skipped | seconds | why skipped |"
    yield "|---|---|---|---|---|---|"
    for f in found["files"]:
        why = "; ".join((*([f["error"]] if "error" in f else []), *f.get("skips", [])))
        yield (
            f"| {f['file']} | {f['passed']} | {f['failed']} | {f['skipped']} |"
            f" {f.get('seconds', '')} | {_cell(why)} |"
        )
    for name, why in found["left_out"].items():
        yield f"| {name} | | | | | left out: {why} |"
    for f in found["files"]:
        for number, text in enumerate(f.get("failures", ())):
            yield f"{'' if number else chr(10)}- {_cell(text)}"


def _ceilings(found: dict[str, Any]) -> Iterator[str]:
    yield "| copy, read + written | triad | float32 FMA |"
    yield "|---|---|---|"
    rates = (
        ("copy_bytes_per_second", 1e9, "GB/s"), ("triad_bytes_per_second", 1e9, "GB/s"),
        ("fma_per_second", 1e12, "T/s"),
    )  # fmt: skip
    cells = (f"{found[k] / unit:.2f} {name}" if found.get(k) else "-" for k, unit, name in rates)
    yield f"| {' | '.join(cells)} |"


def _kernels(found: dict[str, Any]) -> Iterator[str]:
    yield (
        "Shares are floor over time: bytes at the copy's rate, instructions at the FMA's. "
        "The first call makes the data and compiles."
    )
    yield ""
    yield (
        "| kernel | ms | Mpixel/s | ns/pixel | bytes moved | GB/s | of the bandwidth floor "
        "| of the instruction floor | CPU agrees | first call, s | note |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|---|"
    for c in found["cases"]:
        cells = [
            _number(c.get("seconds", {}).get("median"), 1e3, ".3f"),
            _number(c.get("pixels_per_second"), 1e-6, ".1f"),
            _number(c.get("nanoseconds_per_pixel"), 1, ".3f"),
            _number(c.get("bytes"), 1, ".3g"),
            _number(c.get("bytes_per_second"), 1e-9, ".0f"),
            _number(c.get("share_of_bandwidth_floor"), 100, ".0f", " %"),
            _number(c.get("share_of_instruction_floor"), 100, ".0f", " %"),
            "yes" if c.get("agrees_with_cpu") else "no",
            _number(c.get("first_seconds"), 1, ".1f"),
            _cell(c.get("error") or c.get("note", "")),
        ]
        yield f"| {c['name']} | {' | '.join(cells)} |"


def _number(value: float | None, factor: float, form: str, unit: str = "") -> str:
    return "-" if value is None else f"{value * factor:{form}}{unit}"


def _cpu(found: dict[str, Any]) -> Iterator[str]:
    yield f"{found['threads']} threads; the incumbent's kernel: {found['incumbent'] or 'not here'}."
    yield ""
    yield "| bands x dates | one thread, ns/pixel | all threads | the incumbent, all threads |"
    yield "|---|---|---|---|"
    for entry in found["stacks"]:
        keys = ("one_thread_ns", "all_threads_ns", "incumbent_all_threads_ns")
        cells = [_number(entry.get(key), 1, ".1f") for key in keys]
        cells[2] = _cell(entry.get("incumbent_error", cells[2]))
        yield f"| {entry['bands']} x {entry['dates']} | {' | '.join(cells)} |"


def _tiles(found: dict[str, Any]) -> Iterator[str]:
    archive = found["archive"]
    yield (
        f"{archive['tile_pixels']} pixels square, {archive['dates']} dates, "
        f"{archive['bands']} bands, made-up archive; the first tile compiles the kernels."
    )
    for device in ("cpu", "cuda"):
        yield ""
        yield f"**{device}**"
        yield ""
        for key, value in (found.get(device) or {}).items():
            text = json.dumps(value) if isinstance(value, dict | list) else _short(value)
            yield f"- {key.replace('_', ' ')}: {text}"
    yield ""
    yield "| band | largest difference to the CPU | share of pixels beyond the contract |"
    yield "|---|---|---|"
    for band, entry in found.get("agreement", {}).items():
        yield f"| {band} | {entry['largest_difference']:.4g} | {entry['share_beyond']:.2g} |"


def _profile(found: dict[str, Any]) -> Iterator[str]:
    yield f"Report: {found['report']}"
    yield ""
    yield "| share of GPU time, % | instances | kernel |"
    yield "|---|---|---|"
    for row in found.get("kernels", ()):
        yield f"| {row['share']} | {row['instances']} | {_cell(row['name'])} |"


def _short(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)
