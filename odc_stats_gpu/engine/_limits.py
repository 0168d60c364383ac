"""How much of the machine is ours: control groups v1 and v2, affinity, physical memory."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from odc_stats_gpu.errors import ConfigError

_UNITS = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "t": 1000**4,
          "ki": 1024, "mi": 1024**2, "gi": 1024**3, "ti": 1024**4}  # fmt: skip
_UNLIMITED = 1 << 60  # cgroup v1 writes "no limit" as a number just below 2**63


def parse_bytes(text: str) -> int:
    """Bytes of `60Gi`, `8GB`, `1024Mi`, `1.5g`, `1073741824`; raises ConfigError."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([kmgt]?i?)b?\s*", text, re.IGNORECASE)
    unit = match[2].lower() if match else ""
    if match is None or unit not in _UNITS or float(match[1]) * _UNITS[unit] < 1:
        raise ConfigError(
            f"can't read the size {text!r}", "write a memory size like 60Gi, 8GB or 1024Mi"
        )
    return int(float(match[1]) * _UNITS[unit])


def show_bytes(count: float) -> str:
    """Bytes for people: 512 MiB, 3.2 GiB."""
    mib = count / 1024**2
    return f"{mib:.0f} MiB" if mib < 1024 else f"{mib / 1024:.1f} GiB"


@dataclass(frozen=True, slots=True)
class Limits:
    """What this process may use."""

    memory: int
    """Bytes."""
    memory_from: str
    """Which limit decided: --memory-limit, cgroup or physical memory."""
    cpus: int
    """At least 1."""


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """What may be taken of a GPU's memory."""

    bytes: int
    source: str
    """Who says so: `--device-memory`, `free on cuda:0 NVIDIA L4`."""
    context: int = 0
    """Bytes of these that CUDA will take before the first array."""


def read_limits(memory_limit: str = "", root: Path = Path("/")) -> Limits:
    """Smallest of the limit given, those of all enclosing control groups, and physical memory."""
    found = [(physical_memory(root), "physical memory")]
    group = cgroup_memory(root)
    if group is not None:
        found.append((group, "cgroup"))
    if memory_limit:
        found.append((parse_bytes(memory_limit), "--memory-limit"))
    memory, source = min(found, key=lambda f: f[0])
    return Limits(memory, source, cpu_count(root))


def physical_memory(root: Path = Path("/")) -> int:
    """Bytes of RAM."""
    with suppress(OSError):
        match = re.search(
            r"^MemTotal:\s+(\d+) kB", (root / "proc/meminfo").read_text(), re.MULTILINE
        )
        if match:
            return int(match[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def cgroup_memory(root: Path = Path("/")) -> int | None:
    """Smallest memory limit of this process's control group and its parents; None without one."""
    found = []
    for folder in _folders(root, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            value = _number(folder / name)
            if value is not None and 0 < value < _UNLIMITED:
                found.append(int(value))
    return min(found, default=None)


def cpu_count(root: Path = Path("/")) -> int:
    """CPUs by affinity and by the quotas of the control groups, rounded up, at least 1."""
    try:
        count = len(os.sched_getaffinity(0))
    except (AttributeError, OSError):
        count = os.cpu_count() or 1
    for folder in _folders(root, "cpu"):
        with suppress(OSError, ValueError, IndexError):
            quota, period = (folder / "cpu.max").read_text().split()[:2]
            if quota != "max" and float(period) > 0:
                count = min(count, math.ceil(float(quota) / float(period)))
        quota_us, period_us = (_number(folder / f"cpu.cfs_{n}_us") for n in ("quota", "period"))
        if quota_us is not None and quota_us > 0 and period_us:
            count = min(count, math.ceil(quota_us / period_us))
    return max(count, 1)


def _number(path: Path) -> float | None:
    try:
        return float(path.read_text())
    except (OSError, ValueError):  # absent, or "max"
        return None


def _folders(root: Path, controller: str) -> Iterator[Path]:
    """This process's group and all its parents, v2 and v1, as seen under the mounts.

    Inside a container the path of /proc/self/cgroup is often the host's, while the mount shows
    the container's group as its root: folders that don't exist are skipped and the mount itself
    is always looked at.
    """
    try:
        groups = (root / "proc/self/cgroup").read_text().splitlines()
        mounts = (root / "proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return
    paths = {}
    for line in groups:
        _, names, path = line.split(":", 2)
        for name in names.split(",") if names else [""]:
            paths[name] = path
    for line in mounts:
        left, _, right = line.partition(" - ")
        fields, kind = left.split(), right.split()
        if not kind or kind[0] not in ("cgroup", "cgroup2"):
            continue
        if kind[0] == "cgroup2":
            path = paths.get("", "")
        else:
            path = paths.get(controller, "") if controller in kind[2].split(",") else ""
        if not path:
            continue
        mount = root / fields[4].lstrip("/")
        inside = path.removeprefix(fields[3].rstrip("/")) if fields[3] != "/" else path
        parts = [p for p in inside.split("/") if p not in ("", "..")]
        for depth in range(len(parts), -1, -1):
            folder = mount.joinpath(*parts[:depth])
            if folder.is_dir():
                yield folder
