"""The house rules that a reader relies on: who may import whom, how large files get."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "odc_stats_gpu"
EVERYWHERE = {"errors", "telemetry"}
MAY_IMPORT = {
    "errors": set(),
    "telemetry": {"model"},
    "model": set(),
    "kernels": set(),
    "tasks": {"model"},
    "ingest": {"model", "kernels"},
    "plugins": {"model", "kernels"},
    "output": {"model"},
    "queue": {"model", "tasks"},
    "engine": {"model", "kernels", "tasks", "ingest", "plugins", "output", "queue"},
    "demo": {"model", "tasks", "ingest", "plugins", "output", "engine"},
    "fleet": {"model"},
    "cli": {"model", "tasks", "plugins", "output", "queue", "engine", "demo", "fleet"},
}
CUPY_ROOMS = {"engine/_device.py", "kernels/_cuda_launch.py"}


def modules():
    rooms = [PACKAGE / room for room in sorted(MAY_IMPORT)]
    return [
        p
        for r in rooms
        for p in (sorted(r.rglob("*.py")) if r.is_dir() else [r.with_suffix(".py")])
    ]


def imported(path: Path):
    """Dotted names of everything a module imports, lazily or not, ours only; others by top name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                base = path.relative_to(PACKAGE).with_suffix("").parts[: -node.level]
                module = ".".join(("odc_stats_gpu", *base, *([module] if module else [])))
            if module == "odc_stats_gpu":
                yield from (f"odc_stats_gpu.{a.name}" for a in node.names)
            else:
                yield module


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path):
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    allowed = MAY_IMPORT[room] | {room}
    if room != "kernels":
        allowed |= EVERYWHERE
    for name in imported(path):
        parts = name.split(".")
        if parts[0] != "odc_stats_gpu":
            rel = str(path.relative_to(PACKAGE))
            if parts[0] in {"cupy", "cupyx"}:
                assert rel in CUPY_ROOMS or path.name == "cuda.py", f"{rel} imports {name}"
            continue
        if len(parts) == 1 or parts[1] == "__version__":
            continue
        assert parts[1] in allowed, f"{room} may not import {name}"
        private = [p for p in parts[2:] if p.startswith("_")]
        assert not private or parts[1] == room, f"{room} reaches into {name}"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_file_is_a_room_not_a_hall(path):
    assert len(path.read_text().splitlines()) <= 400
    assert path.stem.strip("_") not in {"utils", "util", "helpers", "common", "misc", "manager"}


def test_the_links_are_links():
    for name in ("kernels", "cli"):
        link = PACKAGE / name
        assert link.is_symlink() or link.is_dir()
        assert (link / "__init__.py").samefile(PACKAGE.parent / name / "__init__.py")
