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
from typing import Any

SHARES = 3
"""Processes: the geomedian of ten bands takes longer than everything else."""
_BANDS = (10, 6)
DEFAULT = (9, 0)
_PATIENCE = 120.0
Target = tuple[int, int]


def check_kernels(targets: Sequence[Target]) -> tuple[int, list[str]]:
    """How many kernels were tried for these compute capabilities, and what is wrong with which."""
    kept = {k: v for k, v in os.environ.items() if k != "NUMBA_ENABLE_CUDASIM"}
    words = [f"{major}.{minor}" for major, minor in targets]
    module = f"{__name__.rpartition('.')[0]}._kernel_check"
    running = [
        subprocess.Popen(
            [sys.executable, "-m", module, str(share), *words],
            env=kept, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for share in range(SHARES)
    ]  # fmt: skip
    until, count, problems = time.monotonic() + _PATIENCE, 0, []
    for process in running:
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
        with suppress(ModuleNotFoundError):
            cuda = import_module(f"{kernels.__name__}.{room.name}.cuda")
            yield from ((*listed, False) for listed in cuda.KERNELS)


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
    from types import SimpleNamespace

    from numba.cuda import dispatcher

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
