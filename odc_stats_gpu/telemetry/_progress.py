"""Progress of a run: a live display on a terminal, log lines elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any, Self

from odc_stats_gpu.telemetry._log import Level, configure_logging


class RunProgress:
    """Tiles and blocks done, rate and time left, for as long as it is entered.

    Without a terminal on stderr nothing is drawn: the log says when a tile is finished.
    """

    def __init__(self, log_format: str, level: Level) -> None:
        self._format, self._level = log_format, level
        self.total: int | None = None
        """Tiles to make, when that is known."""
        self._bar: Any = None
        self._tiles: Any = None
        self._blocks: dict[str, Any] = {}
        self._block_count = 0
        self._started = time.monotonic()

    def __enter__(self) -> Self:
        if not sys.stderr.isatty() or self._format != "console":
            return self
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"), TimeElapsedColumn(), TimeRemainingColumn(),
            console=console, transient=True,
        )  # fmt: skip
        self._bar.start()
        self._tiles = self._bar.add_task("tiles", total=self.total, rate="")
        configure_logging(
            self._format,
            self._level,
            write=lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True),
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
            configure_logging(self._format, self._level)

    def block(self, tile: str, done: int, total: int) -> None:
        """A block of a tile is finished."""
        if self._bar is None:
            return
        if tile not in self._blocks:
            self._blocks[tile] = self._bar.add_task(f"  {tile} blocks", total=total, rate="")
        self._block_count += 1
        rate = self._block_count / max(time.monotonic() - self._started, 1e-6)
        self._bar.update(self._blocks[tile], completed=done, rate=f"{rate:.1f} blocks/s")

    def tile(self, tile: str) -> None:
        """A tile is finished, whatever came of it."""
        if self._bar is None:
            return
        if tile in self._blocks:
            self._bar.remove_task(self._blocks.pop(tile))
        self._bar.advance(self._tiles)
