"""Every kernel's time on the device against what bytes and instructions need at least."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from typing import Any

from bench.gpu._bench import Bench
from bench.gpu._cases import cases


def kernels_table(bench: Bench, rates: dict[str, Any], deadline: float) -> Iterator[dict[str, Any]]:
    """One entry per case, yielded with those before it.

    A case that fails is recorded with its error and the others go on.

    Args:
        bench: the device.
        rates: result of `ceilings`, or nothing if that failed.
        deadline: monotonic seconds after which no further case is begun.
    """
    found: list[dict[str, Any]] = []
    for make in cases(bench):
        if time.monotonic() > deadline:
            found.append({"name": "the remaining cases", "error": "no time was left for them"})
            yield {"cases": found}
            break
        entry: dict[str, Any] = {}
        try:
            start = time.perf_counter()
            case = make()
            entry |= {"name": case.name, "pixels": case.pixels, "bytes": case.moved}
            entry["note"] = case.note
            got = case.run()
            bench.wait()
            entry["first_seconds"] = round(time.perf_counter() - start, 2)
            case.check(got)
            entry["agrees_with_cpu"] = True
            times = bench.seconds(case.run)
            if times is not None:
                entry["seconds"] = times
                entry |= _shares(case, times["median"], rates)
        except Exception as exc:  # noqa: BLE001 - recorded; a lost device fails all others quickly
            text = str(exc).strip() or "no message"
            entry["error"] = f"{type(exc).__name__}: {' '.join(text.split())[:400]}"
            entry.setdefault("name", "a case that could not be prepared")
        found.append(entry)
        case = got = None
        _free(bench)
        yield {"cases": found}


def _shares(case: Any, seconds: float, rates: dict[str, Any]) -> dict[str, Any]:
    """Rates of a case; shares are floor over measured time: 1 is as fast as can be."""
    found: dict[str, Any] = {
        "pixels_per_second": case.pixels / seconds,
        "bytes_per_second": case.moved / seconds,
        "nanoseconds_per_pixel": 1e9 * seconds / case.pixels,
    }
    if copy := rates.get("copy_bytes_per_second"):
        found["share_of_bandwidth_floor"] = case.moved / copy / seconds
    if case.instructions and (rate := rates.get("fma_per_second")):
        found["instructions_per_pixel"] = case.instructions
        found["share_of_instruction_floor"] = case.instructions * case.pixels / rate / seconds
    return found


def _free(bench: Bench) -> None:
    gc.collect()
    if not bench.simulate:
        import cupy

        cupy.get_default_memory_pool().free_all_blocks()
