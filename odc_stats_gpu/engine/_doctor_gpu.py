"""What `doctor` finds of GPUs: boards, driver against wheels, packages, kernels, profilers."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial
from importlib.metadata import PackageNotFoundError, distributions, version
from typing import Any

from odc_stats_gpu.engine._cuda_cluster import Gpu, visible
from odc_stats_gpu.engine._finding import Finding, lack, look, safely
from odc_stats_gpu.engine._gpus import list_gpus
from odc_stats_gpu.engine._limits import show_bytes
from odc_stats_gpu.telemetry import ask_nvml, opened_nvml

EXTRA = "needed for GPUs only: pip install 'odc-stats-gpu[cuda13]' (or cuda12 for older drivers)"
_PACKAGES = (
    ("cupy", ("cupy-cuda13x", "cupy-cuda12x", "cupy")),
    ("numba_cuda", ("numba-cuda",)),
    ("rmm", ("rmm-cu13", "rmm-cu12", "rmm")),
    ("dask_cuda", ("dask-cuda",)),
    ("cupy_xarray", ("cupy-xarray",)),
    ("pynvml", ("nvidia-ml-py",)),
    ("nvtx", ("nvtx",)),
)
"""Modules, and the distributions they come from."""
_OF_A_TOOLKIT = re.compile(
    r"(?:cupy-cuda|rmm-cu|librmm-cu|nvidia-(?:nvvm|cuda-nvrtc|cuda-nvcc|nvjitlink)-cu)(1\d)x?"
)
_BY_VERSION = ("cuda-toolkit", "nvidia-nvvm", "nvidia-cuda-nvrtc", "nvidia-nvjitlink")
"""Wheels whose name holds no CUDA version: their own version is it."""
_DRIVERS = {12: "525", 13: "580"}
"""The first driver branch of each CUDA version."""
_LEAST_FREE = 2 << 30
_SLOWED = {0x08: "hardware slowdown", 0x20: "heat", 0x40: "heat", 0x80: "power supply"}
"""Bits of what holds clocks back; the power cap and idling (0x4, 0x1) are everyday."""
_PROFILERS = {
    "nsys": "needed for run --profile nsys only: install Nsight Systems (nsight-systems-cli)",
    "ncu": "needed for run --profile ncu only: install Nsight Compute (cuda-nsight-compute-13-0)",
}


def gpu_findings() -> list[Finding]:
    """Everything about GPUs, in the order in which one would look; nothing raises."""
    return [
        *safely("gpu", _gpus),
        *safely("cuda wheels", lambda: cuda_wheels(_driver_cuda(), installed_wheels())),
        *(
            f
            for module, names in _PACKAGES
            for f in safely(module, partial(_package, module, names))
        ),
        *safely("device", _device),
    ]


def profilers() -> list[Finding]:
    """What `run --profile` needs."""
    found = ((tool, shutil.which(tool), remedy) for tool, remedy in _PROFILERS.items())
    return [
        look(tool, path) if path else lack(tool, "not installed", remedy)
        for tool, path, remedy in found
    ]


def _gpus() -> list[Finding]:
    """The driver's view, and a line per board."""
    from odc_stats_gpu.engine._device import nvml_devices

    count, problem = nvml_devices()
    if not count:
        return [lack("gpu", problem, "tiles are made on the CPU; for CUDA install a driver")]
    places = list_gpus()
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    shown = {uuid for gpu in visible(places, listed) for uuid in (gpu.uuid, gpu.parent)}
    with opened_nvml() as nvml:
        handles = [nvml.nvmlDeviceGetHandleByIndex(k) for k in range(count)]
        names = ", ".join(dict.fromkeys(_text(nvml.nvmlDeviceGetName(h)) for h in handles))
        driver = _text(nvml.nvmlSystemGetDriverVersion())
        summary = look("gpu", f"{count}: {names}; driver {driver}, CUDA {_dotted(_cuda(nvml))}")
        boards = []
        for k, handle in enumerate(handles):
            uuid = _text(nvml.nvmlDeviceGetUUID(handle))
            instances = [gpu for gpu in places if gpu.parent == uuid]
            hidden = "" if uuid in shown else f"hidden by CUDA_VISIBLE_DEVICES={listed}"
            boards.append(_board(nvml, k, handle, instances, hidden))
        return [summary, *boards]


def _board(nvml: Any, index: int, handle: Any, instances: Sequence[Gpu], hidden: str) -> Finding:
    """One GPU: what it is, what is free, what is wrong with it."""

    def ask(function: str, *arguments: Any) -> Any:
        return ask_nvml(nvml, function, handle, *arguments)

    facts, troubles = [_text(nvml.nvmlDeviceGetName(handle))], []
    if hidden:
        facts.append(hidden)
    major, minor = ask("nvmlDeviceGetCudaComputeCapability") or (0, 0)
    facts.append(f"compute capability {major}.{minor}")
    memory = ask("nvmlDeviceGetMemoryInfo")
    if memory is not None:
        facts.append(f"{show_bytes(memory.free)} free of {show_bytes(memory.total)}")
        if memory.free < _LEAST_FREE:
            troubles.append("little free memory: see who uses it with nvidia-smi")
    mig = ask("nvmlDeviceGetMigMode")
    if mig is not None and mig[0] == 1:
        parts = [show_bytes(part.memory) for part in instances]
        facts.append(f"MIG on, {len(parts)} instances {' + '.join(parts)}".rstrip())
        if not parts:
            troubles.append("make instances with nvidia-smi mig, or turn MIG off")
    ecc = ask("nvmlDeviceGetEccMode")
    if ecc is not None:
        facts.append(f"ECC {'on' if ecc[0] else 'off'}")
        errors = ask("nvmlDeviceGetTotalEccErrors", 1, 0)  # uncorrected, since the driver's start
        if errors:
            facts.append(f"{errors} memory errors not corrected")
            troubles.append("take the node out and reset the GPU")
    clock = ask("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_SM)
    most = ask("nvmlDeviceGetMaxClockInfo", nvml.NVML_CLOCK_SM)
    if clock is not None and most is not None:
        facts.append(f"SM clock {clock} of {most} MHz")
    bits = ask("nvmlDeviceGetCurrentClocksEventReasons") or 0
    reasons = dict.fromkeys(name for bit, name in _SLOWED.items() if bits & bit)
    if reasons:
        facts.append(f"slowed by {' and '.join(reasons)}")
        troubles.append("look at cooling and power: nvidia-smi -q -d PERFORMANCE")
    what, text = f"gpu {index}", ", ".join(facts)
    return lack(what, text, "; ".join(troubles)) if troubles else look(what, text)


def installed_wheels() -> dict[str, int]:
    """CUDA's major version by distribution, as far as one tells."""
    found: dict[str, int] = {}
    for distribution in distributions():
        name = str(distribution.metadata["Name"] or "").lower()
        if match := _OF_A_TOOLKIT.fullmatch(name):
            found[name] = int(match[1])
        elif name in _BY_VERSION:
            found[name] = int(distribution.version.partition(".")[0])
    return found


def cuda_wheels(driver: int, wheels: dict[str, int]) -> Finding:
    """Whether driver and wheels go together; `driver`: newest CUDA as NVML counts, 0 for none."""
    majors = sorted(set(wheels.values()))
    if not majors:
        return lack("cuda wheels", "none", EXTRA)
    if len(majors) > 1:
        of_each = "; ".join(f"CUDA {m}: {_names(wheels, m)}" for m in majors)
        return lack(
            "cuda wheels", f"of two versions: {of_each}",
            "make a fresh environment with one extra: cuda13, or cuda12 for older drivers",
        )  # fmt: skip
    wanted = majors[0]
    text = f"for CUDA {wanted} ({_names(wheels, wanted)})"
    if not driver:
        return look("cuda wheels", f"{text}; no driver")
    if driver // 1000 < wanted:
        branch = _DRIVERS.get(wanted, "a newer one")
        other = f"pip install 'odc-stats-gpu[cuda{driver // 1000}]'"
        return lack(
            "cuda wheels", f"{text}; the driver ends at CUDA {_dotted(driver)}",
            f"{f'{other}, or ' if driver >= 12_000 else ''}a driver from {branch} on",
        )  # fmt: skip
    return look("cuda wheels", f"{text}; the driver knows CUDA {_dotted(driver)}")


def _names(wheels: dict[str, int], major: int) -> str:
    return ", ".join(sorted(name for name, m in wheels.items() if m == major)[:3])


def _driver_cuda() -> int:
    """Newest CUDA version of the driver, 13000 for 13.0; 0 without one."""
    with opened_nvml() as nvml:
        return _cuda(nvml) if nvml is not None and nvml.nvmlDeviceGetCount() else 0


def _cuda(nvml: Any) -> int:
    return int(nvml.nvmlSystemGetCudaDriverVersion_v2())


def _dotted(cuda: int) -> str:
    return f"{cuda // 1000}.{cuda % 1000 // 10}"


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _package(module: str, names: Iterable[str]) -> Finding:
    if importlib.util.find_spec(module) is None:
        return lack(module, "not installed", EXTRA)
    for name in names:
        with suppress(PackageNotFoundError):
            return look(module, f"{name} {version(name)}")
    return look(module, "installed")


def _device() -> Finding:
    """Where tiles would be made; a GPU that is there but can't be used is a lack."""
    from odc_stats_gpu.engine._device import gpu_problem, nvml_devices, open_device

    device, why = open_device("auto")
    text = why.removeprefix("device ") or device.name
    problem, remedy = gpu_problem()
    if problem and problem in text and nvml_devices()[0]:
        return lack("device", text, remedy)
    return look("device", text)
