"""What travels between the supervising process and the computing one: small, picklable, light."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from odc_stats_gpu.errors import Cancelled

if TYPE_CHECKING:
    from odc_stats_gpu.engine._limits import DeviceMemory
    from odc_stats_gpu.model import Task

Status = Literal["done", "skipped", "failed"]


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What the command line asked for, not yet validated."""

    config: Mapping[str, Any]
    """The merged configuration, keys as in the YAML file."""
    filedb: str = ""
    selectors: tuple[str, ...] = ()
    started: float = 0.0
    """Epoch seconds at which the command's process started."""
    log_level: str = "info"
    queue: bool = False
    """Tasks come from a queue: each message names its own database."""
    device_memory: DeviceMemory | None = None
    """What each worker would find on its GPU: for a dry run."""


@dataclass(frozen=True, slots=True)
class TaskJob:
    """One tile to make, by name; the process that makes it reads the task from the database."""

    tile: str
    """As in a queue message: 2019--P1Y/03/04."""
    filedb: str
    """Path of the task database."""
    task: Task | None = field(default=None, repr=False)
    """The task itself, for processes that can't see the database."""
    guarded: bool = False
    """Others may be at the same tile: whoever supervises is asked before anything is published."""


@dataclass(frozen=True, slots=True)
class TaskResult:
    """How one tile ended."""

    index: str
    """The tile's name: 2019--P1Y/03/04."""
    status: Status
    uri: str = ""
    """Address of the STAC item."""
    error: str = ""
    """One line, empty unless failed."""
    seconds: float = 0.0
    """Wall time."""
    stages: Mapping[str, float] = field(default_factory=dict)
    """Seconds of work by stage, summed over threads."""
    peak_memory: int = 0
    """Bytes resident at the highest, of the process that made the tile."""
    gpu: Mapping[str, float] = field(default_factory=dict)
    """What it asked of its GPU, as NVML tells (see `GpuWatch.facts`); empty without one."""
    trace: str = field(default="", repr=False)
    """Traceback of an unexpected failure, shown with --debug."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A validated request: what will be done."""

    jobs: tuple[TaskJob, ...]
    device: str = "cpu"
    location: str = ""
    threads: int = 1
    memory_limit: int = 0
    config: Mapping[str, Any] = field(default_factory=dict)
    """The configuration without secrets and defaults, for the log."""


@dataclass(slots=True)
class RunSummary:
    """Counts of a run and the tasks that failed."""

    total: int = 0
    done: int = 0
    skipped: int = 0
    failed: list[TaskResult] = field(default_factory=list)
    interrupted: bool = False
    seconds: float = 0.0

    def add(self, result: TaskResult) -> None:
        """Count one more."""
        self.total += 1
        if result.status == "done":
            self.done += 1
        elif result.status == "skipped":
            self.skipped += 1
        else:
            self.failed.append(result)

    @property
    def line(self) -> str:
        """As the incumbent ends its log."""
        return f"T:{self.total}, OK:{self.done}, S:{self.skipped}, E:{len(self.failed)}"

    @property
    def exit_code(self) -> int:
        """0 done, 1 some tasks failed, 3 interrupted."""
        return 3 if self.interrupted else 1 if self.failed else 0


class CancelToken:
    """A flag that any thread may set and every step of the work looks at."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._reason = ""
        self.lost = False
        """Whether the tile was lost rather than given up."""
        self.interrupts = False
        """Whether a signal handler should also raise Cancelled: work is done in the main thread."""

    def cancel(self, reason: str, *, lost: bool = False) -> None:
        """Ask the work to stop; the first reason given stays.

        `lost`: somebody else may have the tile by now, its files are no longer ours to touch.
        """
        if not self._event.is_set():
            self._reason, self.lost = reason, lost
            self._event.set()

    @property
    def cancelled(self) -> bool:
        """Whether somebody asked."""
        return self._event.is_set()

    @property
    def reason(self) -> str:
        """Why."""
        return self._reason

    @property
    def event(self) -> threading.Event:
        """To wait for."""
        return self._event

    def check(self) -> None:
        """Raise Cancelled when asked to stop."""
        if self._event.is_set():
            raise Cancelled(self._reason)


Guard = Callable[[], None]
"""Raises Cancelled when the work on a tile must stop and publish nothing."""
OnProgress = Callable[[str, int, int], None]
"""Called with the tile's name, blocks done, blocks in all."""
