"""The file that says "alive" to probes that look at its age."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path


def beat(path: Path) -> None:
    """Write the time (UTC), atomically: a reader sees the old one or the new; raises OSError."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        part.write_text(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}\n")
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise
