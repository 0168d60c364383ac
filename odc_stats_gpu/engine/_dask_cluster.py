"""Dask workers: those that we start, watch and end, and those of a cluster that others run."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from odc_stats_gpu.engine._dask_worker import DaskMessages, last_words
from odc_stats_gpu.engine._ending import end, living
from odc_stats_gpu.engine._job import CancelToken
from odc_stats_gpu.engine._scratch import Scratch
from odc_stats_gpu.errors import ConfigError
from odc_stats_gpu.telemetry import log

_LOOK = 0.05
_CONNECT = "10s"
_GRACE = 4.0
"""Seconds between SIGTERM and SIGKILL: enough to remove temporary files."""
_CLOSE = 3.0
_SETTINGS = {
    "distributed.scheduler.allowed-failures": 0,  # we repeat a tile, Dask does not
    "distributed.scheduler.worker-ttl": None,  # a C call that keeps Python's lock is no death
    # Its profiler and its callback of the garbage collector deadlock with a thread that starts:
    # sys._current_frames() holds CPython's lock of the thread list (seen with 3.11).
    "distributed.worker.profile.enabled": False,
}
_LOGGERS = ("distributed", "tornado", "tornado.application", "asyncio")


class Workers(Protocol):
    """A Dask cluster as the executor sees it."""

    client: Any

    def alive(self) -> Mapping[str, str]:
        """Address by name of every worker that can take work; a restarted one keeps its name."""

    def coming(self) -> bool:
        """Whether a worker that is not alive may be soon."""

    def stop(self, address: str) -> None:
        """End whatever that worker does, for certain; another process takes its place."""

    def retire(self) -> None:
        """Workers that end from now on are not replaced."""

    def close(self) -> None:
        """Let go of the cluster; one that is ours leaves nothing behind."""


class ForeignWorkers:
    """A cluster that somebody else runs: `--scheduler tcp://host:8786`."""

    def __init__(self, address: str) -> None:
        """Raises ConfigError when nobody answers there."""
        from distributed import Client

        self._talk = _Talk()
        try:
            self.client = Client(address, timeout=_CONNECT)
        except (OSError, TimeoutError, ValueError) as exc:
            self._talk.close()
            raise ConfigError(
                f"no Dask scheduler at {address}: {' '.join(str(exc).split())}",
                "check the address, for example tcp://host:8786",
            ) from None

    def wait(self, token: CancelToken, timeout: float) -> None:
        """Until there is a worker; raises ConfigError when none comes, Cancelled."""
        until = time.monotonic() + timeout
        while not self.alive():
            token.check()
            if time.monotonic() > until:
                raise ConfigError(
                    f"the Dask scheduler has no worker after {timeout:g} s", "start some"
                )
            time.sleep(_LOOK)

    def alive(self) -> Mapping[str, str]:
        """Every worker, named by its address."""
        scheduler = self.client.scheduler  # with a limit: it may be gone
        known = self.client.sync(scheduler.ncores, workers=None, callback_timeout=_CLOSE)
        return {address: address for address in known}

    def coming(self) -> bool:
        """Others may start one at any time."""
        return True

    def stop(self, address: str) -> None:
        """Ask the worker's nanny to restart it; a worker without one can't be stopped."""
        answer = self.client.restart_workers([address], timeout=_GRACE, raise_for_error=False)
        if answer.get(address) != "OK":
            log("worker can't be restarted", level="warning", worker=address, answer=str(answer))

    def retire(self) -> None:
        """Not ours to say."""

    def close(self) -> None:
        """Leave the cluster."""
        with contextlib.suppress(Exception):  # a cluster that is gone has no more to say
            self.client.close(timeout=_CLOSE)
        self._talk.close()


class OwnWorkers:
    """A LocalCluster or LocalCUDACluster of ours; `build` makes it from the scratch folder."""

    def __init__(
        self,
        build: Callable[[str], Any],
        count: int,
        *,
        token: CancelToken,
        timeout: float,
        remedy: str,
    ) -> None:
        """Start and wait until all `count` workers are there.

        Raises ConfigError when one is missing after `timeout` seconds, Cancelled when told to stop.
        """
        from distributed import Client

        self._scratch, self._talk = Scratch(), _Talk()
        self._cluster: Any = None
        self.client: Any = None
        until = time.monotonic() + timeout
        try:
            self._start(build, until, token, remedy)
            self.client = Client(self._cluster)
            while len(self.alive()) < count:
                token.check()
                late = time.monotonic() > until
                if late or len(self.alive()) + self._given_up() >= count > len(self.alive()):
                    within = f" within {timeout:g} s" if late else ""
                    raise ConfigError(
                        f"{len(self.alive())} of {count} workers came{within}{self._reason()}",
                        remedy,
                    )
                time.sleep(_LOOK)
        except BaseException:
            self.close()
            raise

    def _start(
        self, build: Callable[[str], Any], until: float, token: CancelToken, remedy: str
    ) -> None:
        """Build in a thread: a driver that hangs must not keep us from hearing signals."""
        failed: list[BaseException] = []

        def work() -> None:
            import dask

            settings = {**_SETTINGS, "temporary-directory": self._scratch.folder}
            try:
                with warnings.catch_warnings(action="ignore"), dask.config.set(settings):
                    self._cluster = build(self._scratch.folder)
            except BaseException as exc:  # noqa: BLE001 - raised below
                failed.append(exc)

        others = {process.pid for process in multiprocessing.active_children()}
        thread = threading.Thread(target=work, name="dask start", daemon=True)
        thread.start()
        while thread.is_alive():
            thread.join(_LOOK)
            if token.cancelled or time.monotonic() > until:
                for process in multiprocessing.active_children():
                    if process.pid not in others:
                        process.kill()
                thread.join(_CLOSE)
                break
        token.check()
        if failed:
            text = " ".join(str(failed[0]).split()) or type(failed[0]).__name__
            raise ConfigError(f"the Dask cluster doesn't start: {text}", remedy) from failed[0]
        if self._cluster is None:
            raise ConfigError(f"the Dask cluster didn't start in time{self._reason()}", remedy)

    def alive(self) -> Mapping[str, str]:
        """Workers that the scheduler knows, by the names of their nannies."""
        known = set(self._cluster.scheduler.workers)
        found = {}
        for name, nanny in dict(self._cluster.workers).items():
            address = nanny.worker_address
            if address in known:
                found[str(name)] = address
        return found

    def coming(self) -> bool:
        """Whether a nanny has not given up."""
        return self._given_up() < len(self._cluster.workers)

    def _given_up(self) -> int:
        """Nannies that could not start their worker and won't try again."""
        nannies = dict(self._cluster.workers).values()
        return sum(nanny.status.name in ("failed", "closed") for nanny in nannies)

    def _reason(self) -> str:
        """What a worker said last before it failed to start, to be put after a sentence."""
        return f": {text}" if (text := last_words(self._scratch.folder)) else ""

    def pids(self) -> dict[str, int]:
        """Process id by name."""
        nannies = dict(self._cluster.workers) if self._cluster is not None else {}
        return {str(name): nanny.pid for name, nanny in nannies.items() if nanny.pid}

    def stop(self, address: str) -> None:
        """SIGTERM, then SIGKILL; the nanny starts a new process."""
        for nanny in dict(self._cluster.workers).values():
            if nanny.worker_address == address and nanny.pid:
                for process in living([nanny.pid]):
                    end(process, _GRACE)

    def close(self) -> None:
        """End workers, scheduler and threads; remove the scratch folder."""
        processes = living(self.pids().values())
        closed = True
        for thing in (self.client, self._cluster):
            if thing is not None:
                try:
                    thing.close(timeout=_CLOSE)
                except Exception:  # noqa: BLE001 - what is still there ends below
                    closed = False
        self.client = self._cluster = None
        for process in processes:
            end(process, 0)
        self._scratch.remove()
        if closed:  # else Dask's threads go on, and complain that their folders are gone
            self._talk.close()

    def retire(self) -> None:
        """Workers that end from now on are not replaced."""
        for nanny in dict(self._cluster.workers).values():
            nanny.close_gracefully()


class _Talk:
    """What Dask says in this process becomes debug lines of ours, for as long as it is open."""

    def __init__(self) -> None:
        self._handler = DaskMessages()
        self._before = [
            (logger, logger.propagate, [*logger.handlers])
            for logger in map(logging.getLogger, _LOGGERS)
        ]
        for logger, _, _ in self._before:
            logger.handlers[:] = [self._handler]
            logger.propagate = False

    def close(self) -> None:
        """Leave the loggers as they were."""
        for logger, propagate, handlers in self._before:
            logger.handlers[:] = handlers
            logger.propagate = propagate
