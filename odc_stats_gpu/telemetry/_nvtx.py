"""NVTX ranges: tiles, blocks and stages by name, on the timeline of a profiler.

Only where a profiler listens (or ODC_STATS_NVTX=1 says so): elsewhere NVIDIA's `nvtx` package isn't
even imported, and a range costs a comparison. NVTX makes no CUDA context. A range is popped by the
thread that pushed it, so every thread has a row of its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Literal

from odc_stats_gpu.telemetry._log import log

DOMAIN = "odc-stats-gpu"
SWITCH = "ODC_STATS_NVTX"
"""1: ranges wherever `nvtx` is installed; 0: none; unset: when a profiler is attached."""
_ATTACHED = ("NVTX_INJECTION64_PATH", "NSYS_PROFILING_SESSION_ID", "CUDA_INJECTION64_PATH")
"""What Nsight Systems and Nsight Compute leave in the environment of what they start."""
_OFF = ("0", "no", "false", "off")

Kind = Literal["tile", "block", "stage"]
_INPUT, _DEVICE, _COMPUTE, _OUTPUT = 0xFF4E79A7, 0xFFB07AA1, 0xFF59A14F, 0xFFF28E2B
PLAIN: dict[Kind, int] = {"tile": 0xFF3F3F3F, "block": 0xFFD8C27A, "stage": 0xFF9C9C9C}
COLOURS = {
    "read": _INPUT, "decode": _INPUT,
    "upload": _DEVICE, "fetch": _DEVICE,
    "mask": _COMPUTE, "fuse": _COMPUTE, "warp": _COMPUTE, "reduce": _COMPUTE,
    "encode": _OUTPUT, "write": _OUTPUT, "commit": _OUTPUT,
}  # fmt: skip
"""ARGB by stage: reading is blue, crossing the bus purple, computing green, writing orange."""


class Ranges:
    """Pushes and pops ranges in our domain; attributes are made once per name."""

    def __init__(self, domain: Any) -> None:
        self._domain = domain
        self._categories = {kind: domain.get_category_id(kind) for kind in PLAIN}
        self._attributes: dict[str, Any] = {}

    def push(self, name: str, kind: Kind = "stage") -> None:
        """Open a range in the calling thread."""
        attributes = self._attributes.get(name)
        if attributes is None:
            attributes = self._attributes[name] = self._domain.get_event_attributes(
                message=name,
                color=COLOURS.get(name, PLAIN[kind]),
                category=self._categories[kind],
            )
        self._domain.push_range(attributes)

    def pop(self) -> None:
        """Close the innermost range of the calling thread."""
        self._domain.pop_range()


@cache
def open_ranges() -> Ranges | None:
    """Where ranges go; None when nobody looks, or `nvtx` isn't installed (one line says so)."""
    switch = os.environ.get(SWITCH, "").strip().lower()
    if switch in _OFF or not (switch or any(os.environ.get(name) for name in _ATTACHED)):
        return None
    try:
        import nvtx
    except ImportError:
        log("no NVTX ranges: nvtx is not installed: pip install nvtx", level="warning")
        return None
    return Ranges(nvtx.get_domain(DOMAIN))


@contextmanager
def span(name: str, kind: Kind) -> Iterator[None]:
    """A range around the work on a tile, or on a block in one of the threads it goes through."""
    ranges = open_ranges()
    if ranges is None:
        yield
        return
    ranges.push(name, kind)
    try:
        yield
    finally:
        ranges.pop()
