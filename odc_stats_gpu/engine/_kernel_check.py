"""Whether the CUDA kernels compile, without a GPU: to PTX, and to machine code of a device.

In processes of their own: a compiler that crashes or hangs is a finding. As a program it compiles
one share of the kernels and prints a JSON line for each.
"""

from __future__ import annotations

import json
import os
import pkgutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Self

from odc_stats_gpu.engine._doctor_gpu import EXTRA
from odc_stats_gpu.engine._finding import Finding, lack, look
from odc_stats_gpu.telemetry import opened_nvml

SHARES = 3
"""Processes: the geomedian of ten bands takes longer than everything else."""
_BANDS = (10, 6)
DEFAULT = (9, 0)
_PATIENCE = 300.0
"""Seconds; ten or so on an idle machine."""
Target = tuple[int, int]


def kernel_finding(compilers: Compilers, *, quick: bool) -> Finding:
    """Whether every kernel compiles for the devices that are here, or for one that isn't."""
    if quick:
        return look("cuda kernels", "not compiled (--quick)")
    if find_spec("numba_cuda") is None:
        return lack("cuda kernels", "not compiled: numba-cuda is not installed", EXTRA)
    here = _capabilities()
    targets = here or [DEFAULT]
    count, problems = compilers.check(targets)
    text = f"for {', '.join(map(show, targets))}{'' if here else ', a device that is not here'}"
    if problems:
        return lack(
            "cuda kernels", f"{len(problems)} of {count} don't compile {text}: {problems[0]}",
            "use --device cpu, or another of the extras cuda13 and cuda12",
        )  # fmt: skip
    return look("cuda kernels", f"all {count} compile {text}")


def _capabilities() -> Sequence[Target]:
    """Compute capabilities of the GPUs of this machine, each once."""
    with opened_nvml() as nvml:
        count = 0 if nvml is None else nvml.nvmlDeviceGetCount()
        handles = [nvml.nvmlDeviceGetHandleByIndex(k) for k in range(count)]
        return list(
            dict.fromkeys(tuple(nvml.nvmlDeviceGetCudaComputeCapability(h)) for h in handles)
        )


class Compilers:
    """Processes that compile the kernels; none outlives the `with`."""

    def __init__(self) -> None:
        self._running: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._running:
            process.kill()

    def check(self, targets: Sequence[Target]) -> tuple[int, list[str]]:
        """How many kernels were tried for these compute capabilities, what is wrong with which."""
        kept = {k: v for k, v in os.environ.items() if k != "NUMBA_ENABLE_CUDASIM"}
        words = [f"{major}.{minor}" for major, minor in targets]
        self._running += [
            subprocess.Popen(
                [sys.executable, "-m", __name__, str(share), *words],
                env=kept, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )
            for share in range(SHARES)
        ]  # fmt: skip
        until, count, problems = time.monotonic() + _PATIENCE, 0, []
        for process in self._running:
            end = ""
            try:
                out, err = process.communicate(timeout=max(0.1, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                out, err = process.communicate()
                end = f"the compiler took more than {_PATIENCE:.0f} s"
            if not end and process.returncode:
                end = _how_it_ended(process.returncode, err)
            tried = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
            count += len(tried) + bool(end)
            problems += [f"{t['kernel']}: {t['problem']}" for t in tried if t["problem"]]
            problems += [end] if end else []
        return count, problems


def show(cc: Target) -> str:
    """As compilers write it: sm_90."""
    return f"sm_{cc[0]}{cc[1]}"


def _how_it_ended(code: int, err: str) -> str:
    if code < 0:
        with suppress(ValueError):
            return f"the compiler was killed by {signal.Signals(-code).name}"
    lines = [line.strip() for line in err.splitlines() if line.strip()]
    return lines[-1] if lines else f"the compiler exited with code {code}"


def _share(number: int) -> Iterator[tuple[str, Any, Any, bool]]:
    """Name, function, types and fastmath of the kernels of one process."""
    from odc_stats_gpu import kernels
    from odc_stats_gpu.kernels.geomedian.cuda import usual_kernel

    if number < len(_BANDS):
        yield (*usual_kernel(_BANDS[number]), True)
        return
    for room in pkgutil.iter_modules(kernels.__path__):
        if not room.ispkg or room.name == "geomedian":
            continue
        name = f"{kernels.__name__}.{room.name}.cuda"
        if find_spec(name) is not None:
            yield from ((*listed, False) for listed in import_module(name).KERNELS)


def _compile(function: Any, types: Any, fastmath: bool, cc: Target) -> None:
    from numba import cuda

    ptx, _ = cuda.compile(function, types, device=False, abi="numba", cc=cc, fastmath=fastmath)
    try:
        from cuda.bindings import nvjitlink
    except ImportError:  # CUDA 12 links through the driver
        return
    handle = nvjitlink.create(1, [f"-arch={show(cc)}"])
    try:
        code = ptx.encode() + b"\0"
        nvjitlink.add_data(handle, nvjitlink.InputType.PTX, code, len(code), "kernel")
        nvjitlink.complete(handle)
    finally:
        nvjitlink.destroy(handle)


def main(share: int, targets: Sequence[Target]) -> None:
    """Compile that share for every target; a line for each kernel."""
    import gc
    from types import SimpleNamespace

    from numba.cuda import dispatcher

    gc.disable()  # a short life full of small objects

    for name, function, types, fastmath in _share(share):
        problem = ""
        try:
            for cc in targets:
                # numba-cuda would ask the driver, which may not be here
                here = SimpleNamespace(compute_capability=cc)
                dispatcher.get_current_device = lambda here=here: here
                _compile(function, types, fastmath, cc)
        except Exception as exc:  # noqa: BLE001 - compilers and linkers have own families
            text = str(exc).strip().splitlines()
            problem = f"{type(exc).__name__}: {text[0] if text else 'no message'}"
        sys.stdout.write(json.dumps({"kernel": name, "problem": problem}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(
        int(sys.argv[1]),
        [(int(a), int(b)) for a, b in (word.split(".") for word in sys.argv[2:])],
    )
