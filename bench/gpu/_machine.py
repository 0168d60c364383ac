"""What the record says of the machine it was made on."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
PACKAGES = (
    "odc-stats-gpu", "numpy", "numba", "numba-cuda", "llvmlite", "cupy-cuda13x", "cupy-cuda12x",
    "cuda-bindings", "cuda-core", "cuda-toolkit", "nvidia-nvvm", "nvidia-nvjitlink", "rmm-cu13",
    "dask-cuda", "xarray", "rasterio", "odc-geo", "imagecodecs", "geomad", "hdstats", "pytest",
)  # fmt: skip


def machine(*, simulate: bool) -> Iterator[dict[str, Any]]:
    """Processor, memory, versions; the device; and whether a kernel of ours runs on it.

    Raises whatever compiling and running that kernel raises.
    """
    versions = {}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    found: dict[str, Any] = {
        "device": "Numba's CUDA simulator" if simulate else None,
        "python": platform.python_version(),
        "kernel": platform.release(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "versions": versions,
    }
    yield found
    if not simulate:
        found |= _driver() | _cuda()
        yield found
        found |= _compilers()
        yield found
        yield found | _first_kernel()


def commit() -> str | None:
    """The commit of this checkout, with a + where files were changed; None outside of one."""
    try:
        head = _git("rev-parse", "HEAD")
        return head + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _cuda() -> dict[str, Any]:
    import cupy

    number = cupy.cuda.Device().id
    facts = cupy.cuda.runtime.getDeviceProperties(number)
    runtime = cupy.cuda.runtime
    return {
        "device": facts["name"].decode(),
        "devices": runtime.getDeviceCount(),
        "compute_capability": f"{facts['major']}.{facts['minor']}",
        "multiprocessors": facts.get("multiProcessorCount"),
        "device_memory_bytes": facts.get("totalGlobalMem"),
        "l2_bytes": facts.get("l2CacheSize"),
        "shared_memory_per_multiprocessor": facts.get("sharedMemPerMultiprocessor"),
        "cuda_driver": runtime.driverGetVersion(),
        "cuda_runtime": runtime.runtimeGetVersion(),
    }


def _driver() -> dict[str, Any]:
    """What NVML adds; nothing where it isn't there."""
    try:
        import pynvml as nvml

        nvml.nvmlInit()
        handle = nvml.nvmlDeviceGetHandleByIndex(0)
    except Exception as exc:  # noqa: BLE001 - a record without NVML is still a record
        return {"nvml": f"{type(exc).__name__}: {exc}"}
    found: dict[str, Any] = {}
    for name, ask in {
        "driver": nvml.nvmlSystemGetDriverVersion,
        "sm_clock_mhz": lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM),
        "sm_clock_max_mhz": lambda: nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_SM),
        "memory_clock_max_mhz": lambda: nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_MEM),
        "power_limit_watts": lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(handle) / 1000,
        "celsius": lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU),
        "ecc": lambda: bool(nvml.nvmlDeviceGetEccMode(handle)[0]),
        "mig": lambda: bool(nvml.nvmlDeviceGetMigMode(handle)[0]),
    }.items():
        with suppress(nvml.NVMLError):
            value = ask()
            found[name] = value.decode() if isinstance(value, bytes) else value
    return found


def _compilers() -> dict[str, Any]:
    """Where numba-cuda finds what it compiles with, as far as it tells."""
    found: dict[str, Any] = {"CUDA_HOME": os.environ.get("CUDA_HOME")}
    try:
        from numba.cuda.cuda_paths import get_cuda_paths

        for name in ("nvvm", "libdevice"):
            found[name] = str(get_cuda_paths()[name].info)
    except Exception as exc:  # noqa: BLE001 - another release keeps them elsewhere
        found["compilers"] = f"{type(exc).__name__}: {' '.join(str(exc).split())[:300]}"
    return found


def _first_kernel() -> dict[str, Any]:
    """Compile and run a small kernel as all others are: through CuPy, NVVM, the linker, Numba."""
    import cupy
    import numpy as np

    from odc_stats_gpu import kernels

    try:
        from numba import cuda
    except Exception as exc:  # NumPy 2.5 makes it an AttributeError
        needed = "it needs numba-cuda>=0.28,<0.31 and numpy<2.5"
        raise RuntimeError(f"numba.cuda doesn't import ({exc}): {needed}") from exc
    if not hasattr(cuda, "external_stream"):
        raise RuntimeError("Numba's CUDA is too old: it needs numba-cuda>=0.28,<0.31")
    start = time.perf_counter()
    host = np.arange(24, dtype=np.uint8).reshape(2, 3, 4) % 3
    got = cupy.asnumpy(kernels.count_true(cupy.asarray(host)))
    np.testing.assert_array_equal(got, kernels.count_true(host))
    return {"first_kernel_seconds": round(time.perf_counter() - start, 2)}


def find_toolkit() -> None:
    """Name a CUDA toolkit that lies beside `nvcc` to the libraries that look for one.

    numba-cuda finds NVVM in a wheel or by CUDA_HOME; with NVRTC in a wheel, as users of CuPy have
    it, and NVVM in a toolkit, it finds nothing. Wheels still come first.
    """
    if os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH"):
        return
    nvcc = shutil.which("nvcc")
    for root in ([Path(nvcc).resolve().parents[1]] if nvcc else []) + [Path("/usr/local/cuda")]:
        if (root / "nvvm").is_dir():
            os.environ["CUDA_HOME"] = str(root)
            return


def cuda_problem() -> str:
    """Why nothing can run on CUDA here, in one line with a remedy; nothing if it can."""
    try:
        import cupy

        count = cupy.cuda.runtime.getDeviceCount()
    except ImportError:
        return f"{sys.executable} has no CuPy: pip install cupy-cuda13x, or name PYTHON=..."
    except Exception as exc:  # noqa: BLE001 - CuPy raises its own family
        said = str(exc).splitlines()[0]
        return f"no CUDA device ({said}): run it where nvidia-smi shows one, or say SIMULATE=1"
    if not count:
        return "no CUDA device is visible: look at CUDA_VISIBLE_DEVICES, or say SIMULATE=1"
    return ""
