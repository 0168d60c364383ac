"""Named steps in the life of a tile at which a test can kill, stop, fail or delay the process.

`ODC_STATS_FAULT="before_item:kill"` acts at every passage, `"block_read:fail:2"` at the second one
only, several are joined by commas. `once=PATH` after the action acts only while PATH doesn't exist
and creates it first, so that a restarted worker passes: `"block_read:kill:once=/tmp/x"`; with the
action `hold` the process waits there until that file is not empty.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path

FAULT_POINTS = (
    "tasks_batch",
    "tasks_commit",
    "message_received",
    "task_start",
    "task_planned",
    "device_memory",
    "block_read",
    "block_reduced",
    "block_put",
    "before_assets",
    "item_withdrawn",
    "upload_begun",
    "part_uploaded",
    "file_written",
    "file_named",
    "asset_written",
    "before_item",
    "item_written",
    "task_done",
    "before_acknowledge",
    "message_deleted",
    "before_release",
    "copy_sent",
    "redrive_received",
    "redrive_copied",
    "redrive_deleted",
)
"""In the order of a tile's life: its database, its message, its files, the end of the message."""
_LOOK = 0.05
_passed: Counter[str] = Counter()
_lock = threading.Lock()


class InjectedFault(RuntimeError):  # noqa: N818 - the name of the thing
    """Raised by the action `fail`."""


def fault_point(name: str) -> None:
    """Do what ODC_STATS_FAULT says of this step; nothing when the variable is unset."""
    spec = os.environ.get("ODC_STATS_FAULT")
    if not spec:
        return
    with _lock:
        _passed[name] += 1
        count = _passed[name]
    for part in spec.split(","):
        step, action, *when = part.strip().split(":")
        if step != name or any(w.isdigit() and count != int(w) for w in when):
            continue
        mark = next((Path(w.removeprefix("once=")) for w in when if w.startswith("once=")), None)
        if mark is not None:
            if mark.exists():
                continue
            mark.touch()
        _act(name, action, mark)


def _act(name: str, action: str, mark: Path | None) -> None:
    if action == "kill":
        sys.stderr.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif action == "stop":
        time.sleep(3600)
    elif action == "hold" and mark is not None:
        while not mark.stat().st_size:
            time.sleep(_LOOK)
    elif action.startswith("sleep"):
        time.sleep(float(action.removeprefix("sleep") or 1))
    elif action == "full":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    elif action == "oom":
        raise MemoryError(f"out of memory, injected at {name}")
    elif action == "fail":
        raise InjectedFault(f"fault injected at {name}")
    else:
        raise ValueError(f"ODC_STATS_FAULT: unknown action {action!r}")
