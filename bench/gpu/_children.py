"""Child processes: none outlives what started it."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any


def end(child: subprocess.Popen[Any]) -> None:
    """The child, its process group, and descendants with a session of their own."""
    family = [child.pid] if child.poll() is None else []
    for pid in family:
        with suppress(OSError):
            for task in Path(f"/proc/{pid}/task").iterdir():
                family += map(int, (task / "children").read_text().split())
    for pid in family:
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    with suppress(OSError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
