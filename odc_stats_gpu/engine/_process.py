"""A spawned Python process at the other end of a pipe: started early, stopped for certain."""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe
from typing import Any

_CODE = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[3]); "
    "from odc_stats_gpu.engine._worker_main import main; main(int(sys.argv[1]), int(sys.argv[2]))"
)


class WorkerProcess:
    """The process and its pipe. It dies with its parent, and takes its own children along."""

    def __init__(self) -> None:
        ours, theirs = Pipe(duplex=True)
        self.pipe: Connection[Any, Any] = ours
        self._process = subprocess.Popen(
            [sys.executable, "-c", _CODE, str(theirs.fileno()), str(os.getpid()),
             json.dumps(sys.path)],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=2,  # what a plugin prints must not mix with our own output
            start_new_session=True,  # Ctrl-C is for the parent; a kill reaches the whole group
        )  # fmt: skip
        theirs.close()
        atexit.register(self.stop, 0)

    @property
    def pid(self) -> int:
        """Process id, also that of its group."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    def end(self) -> str:
        """Wait for a process that is gone or going, and say how it ended."""
        self.stop(2)
        code = self._process.returncode
        if code >= 0:
            return f"exited with code {code}"
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        return f"was killed by {name}"

    def stop(self, grace: float) -> bool:
        """Ask (SIGTERM), wait `grace` seconds, kill the group. True when asking was enough."""
        polite = True
        if grace and self.alive:
            self._signal(signal.SIGTERM)
            polite = self.wait(grace)
        if self.alive:
            polite = False
        self._signal(signal.SIGKILL)  # also for what the worker may have started itself
        self._process.wait()
        self.pipe.close()
        atexit.unregister(self.stop)
        return polite

    def wait(self, seconds: float) -> bool:
        """Whether it ended by itself in that time."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(max(seconds, 0))
            return True
        return False

    def leave(self, seconds: float = 3) -> None:
        """End an idle process: it sees the pipe close."""
        with suppress(OSError):
            self.pipe.send(("exit",))
        until = time.monotonic() + seconds
        while self.alive and time.monotonic() < until:
            self.wait(0.02)
        self.stop(1)

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)
