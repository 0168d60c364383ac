"""The same stacks on this machine's CPU: our Numba kernel, and the incumbent's where it imports."""

from __future__ import annotations

import importlib
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from bench.gpu._bench import Bench
from bench.gpu._cases import NODATA, STACKS, surface


def cpu_table(bench: Bench, deadline: float) -> Iterator[dict[str, Any]]:
    """Nanoseconds per pixel of geomedian, MADs and count on one thread and on all, by stack."""
    import numba

    from odc_stats_gpu import kernels

    peer = _peer()
    found: list[dict[str, Any]] = []
    everything = numba.config.NUMBA_NUM_THREADS
    for bands, dates in bench.pick(STACKS[:4], STACKS[1:3], ((6, 7),)):
        if time.monotonic() > deadline:
            break
        stack = surface(bands, dates, bench.pick((256, 256), (128, 128), (4, 16)))
        pixels = stack.shape[2] * stack.shape[3]
        entry: dict[str, Any] = {"bands": bands, "dates": dates, "pixels": pixels}
        small = stack[:, :, : max(1, stack.shape[2] // everything)]
        numba.set_num_threads(1)
        one = _seconds(bench, lambda s=small: kernels.geomad(s, NODATA))
        numba.set_num_threads(everything)
        every = _seconds(bench, lambda s=stack: kernels.geomad(s, NODATA))
        if one is not None and every is not None:
            entry["one_thread_ns"] = 1e9 * one / (small.shape[2] * small.shape[3])
            entry["all_threads_ns"] = 1e9 * every / pixels
        if peer is not None:
            entry |= _of_peer(bench, peer, stack, pixels, everything)
        found.append(entry)
        yield {
            "threads": everything,
            "incumbent": None if peer is None else f"{peer.__name__}",
            "stacks": found,
        }


def _seconds(bench: Bench, call: Callable[[], Any]) -> float | None:
    """Median of some runs after one that compiles; None when simulated."""
    call()
    if bench.simulate:
        return None
    times = []
    for _ in range(3 if bench.quick else 5):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _peer() -> Any:
    """The incumbent's kernels under their present or their former name."""
    for name in ("geomad", "hdstats"):
        try:
            found = importlib.import_module(name)
        except Exception:  # noqa: BLE001 - built for another NumPy, or not there
            continue
        if hasattr(found, "nangeomedian_pcm"):
            return found
    return None


def _of_peer(bench: Bench, peer: Any, stack: np.ndarray, pixels: int, threads: int) -> dict:
    """The incumbent's four passes at its production tolerance, data laid out as it likes them."""
    x = stack.transpose(2, 3, 0, 1).astype(np.float32) * np.float32(1e-4) - np.float32(1e-4)
    x[stack.transpose(2, 3, 0, 1) == NODATA] = np.nan
    x = np.ascontiguousarray(x)

    def call() -> None:
        median = peer.nangeomedian_pcm(x, eps=1e-5, num_threads=threads)
        for mad in (peer.smad_pcm, peer.emad_pcm, peer.bcmad_pcm):
            mad(x, median, num_threads=threads)

    try:
        seconds = _seconds(bench, call)
    except Exception as exc:  # noqa: BLE001 - another version's signature: ours is still recorded
        return {"incumbent_error": f"{type(exc).__name__}: {exc}"}
    return {} if seconds is None else {"incumbent_all_threads_ns": 1e9 * seconds / pixels}
