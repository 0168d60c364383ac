"""A profiler that only listens: every NVTX range that processes push and pop, without a GPU.

`recorder.c` is loaded by NVTX itself, the way Nsight's own libraries are.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

SOURCE = Path(__file__).with_name("recorder.c")


@dataclass
class Range:
    """One range that was pushed and popped in one thread."""

    process: int
    thread: int
    domain: str
    category: str
    colour: int
    name: str
    start: int
    """Nanoseconds."""
    end: int = 0
    inside: tuple[str, ...] = field(default=())
    """Names of the ranges around it, outermost first."""

    @property
    def seconds(self) -> float:
        """How long it was open."""
        return (self.end - self.start) / 1e9


def build(folder: Path) -> Path:
    """Compile the library into `folder`; raises RuntimeError with the compiler's words."""
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise RuntimeError("no C compiler: apt-get install gcc")
    target = folder / "libnvtxrecorder.so"
    run = subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-Wall", "-Werror", str(SOURCE), "-o", str(target)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if run.returncode:
        raise RuntimeError(run.stderr)
    return target


def environment(library: Path, record: Path) -> dict[str, str]:
    """Variables for a process that records its ranges, and its children's, in a folder."""
    record.mkdir(exist_ok=True)
    return {"NVTX_INJECTION64_PATH": str(library), "NVTX_RECORD": str(record)}


def ranges(record: Path, *, killed: bool = False) -> list[Range]:
    """All ranges in order of their ends; raises ValueError for one that isn't well nested.

    `killed`: ranges may be open at the end of a process.
    """
    found: list[Range] = []
    for path in sorted(record.glob("*.txt")):
        open_in: dict[int, list[Range]] = {}
        for line in path.read_text().splitlines():
            thread, time, what, domain, *rest = line.split("\t")
            stack = open_in.setdefault(int(thread), [])
            if what == "push":
                category, colour, name = rest
                stack.append(Range(
                    int(path.stem), int(thread), domain, category, int(colour, 16), name, int(time),
                    inside=tuple(r.name for r in stack),
                ))  # fmt: skip
                continue
            if not stack or stack[-1].domain != domain:
                raise ValueError(f"{path.name}, thread {thread}: a pop without its push")
            stack[-1].end = int(time)
            found.append(stack.pop())
        left = [r.name for stack in open_in.values() for r in stack]
        if left and not killed:
            raise ValueError(f"{path.name}: never popped: {left}")
    return found
