"""One function to say something, and where it goes: a terminal, JSON lines, or another process."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Literal, TextIO

Level = Literal["debug", "info", "warning", "error"]
Sink = Callable[[str, Level, dict[str, Any]], None]
LEVELS: dict[str, int] = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def _plain(event: str, level: Level, fields: dict[str, Any]) -> None:
    """Before anything is set up: warnings and errors to stderr."""
    if LEVELS[level] >= LEVELS["warning"]:
        print(event, *(f"{k}={v}" for k, v in fields.items()), file=sys.stderr)  # noqa: T201


_sink: Sink = _plain
_bound: dict[str, Any] = (
    {"job": os.environ["ODC_STATS_JOB"]} if "ODC_STATS_JOB" in os.environ else {}
)


def log(event: str, *, level: Level = "info", **fields: Any) -> None:
    """Say what happened; `fields` are the facts that a machine may look for.

    Never raises: a full disk or a broken pipe under the log costs lines, not tiles.
    """
    with suppress(OSError):
        _sink(event, level, _bound | fields)


@contextmanager
def bind_log(**fields: Any) -> Iterator[None]:
    """Add these fields to every line of this process while entered, whatever thread says it.

    The queue worker binds `task`, `message_id` and `attempt`; `job` is bound from the start when
    ODC_STATS_JOB is set. A worker computes one tile at a time, hence one set per process.
    """
    global _bound  # noqa: PLW0603 - see above
    before, _bound = _bound, _bound | fields
    try:
        yield
    finally:
        _bound = before


def set_sink(sink: Sink) -> None:
    """Send everything that `log` says there."""
    global _sink  # noqa: PLW0603 - one per process, like the standard library's root logger
    _sink = sink


def configure_logging(
    log_format: str = "console",
    level: Level = "info",
    stream: TextIO | None = None,
    write: Callable[[str], None] | None = None,
) -> None:
    """Set up structlog: lines for people (`console`) or for Loki (`json`), on stderr.

    `write` takes finished lines instead of the stream, e.g. above a progress bar.
    """
    import structlog

    out = stream or sys.stderr
    renderer: Any
    if log_format == "json":
        renderer = structlog.processors.JSONRenderer(default=str)
    else:
        renderer = structlog.dev.ConsoleRenderer(
            colors=write is None and out.isatty(), pad_event_to=0, sort_keys=False
        )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=(lambda *_: _Lines(write)) if write else structlog.PrintLoggerFactory(out),
        cache_logger_on_first_use=False,
    )
    logger = structlog.get_logger()
    set_sink(lambda event, lvl, fields: getattr(logger, lvl)(event, **fields))


class _Lines:
    """A structlog logger that hands finished lines to a function."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write

    def msg(self, line: str) -> None:
        self._write(line)

    debug = info = warning = error = critical = fatal = log = msg


class _Forward(logging.Handler):
    """Records of the standard library's loggers, one line each, into `log`."""

    def emit(self, record: logging.LogRecord) -> None:
        level: Level = "error" if record.levelno >= logging.ERROR else "warning"
        log(" ".join(record.getMessage().split()), level=level, logger=record.name)


def capture_library_messages() -> None:
    """Warnings of libraries (logging and `warnings`) become log lines of ours."""
    root = logging.getLogger()
    if not any(isinstance(h, _Forward) for h in root.handlers):
        root.addHandler(_Forward(logging.WARNING))

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        log(" ".join(str(message).split()), level="warning", category=category.__name__)

    warnings.showwarning = show
