"""The device that computes. Besides the CUDA kernels this is the only module that knows CuPy."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from odc_stats_gpu.engine._cuda_pool import unused_pool_bytes
from odc_stats_gpu.errors import ConfigError

if TYPE_CHECKING:
    import xarray as xr

CUDA_KERNELS = ("geomedian", "warp", "morphology")
"""Kernels without which no product can be made on a CUDA device."""


class Device(Protocol):
    """Where the stack of a block lives and is reduced."""

    @property
    def name(self) -> str:
        """For people and metadata: `cpu`, `cuda:0 NVIDIA L4`."""

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """An uninitialised array."""

    def upload(self, array: Any) -> Any:
        """A NumPy array as an array of this device."""

    def to_host(self, ds: xr.Dataset) -> xr.Dataset:
        """The dataset with NumPy arrays."""

    def memory(self) -> int | None:
        """Free bytes of device memory; None where that is host memory."""


@dataclass(frozen=True, slots=True)
class CpuDevice:
    """Host memory, NumPy arrays."""

    name: str = "cpu"

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """A NumPy array."""
        import numpy as np

        return np.empty(shape, dtype)

    def upload(self, array: Any) -> Any:
        """The array itself."""
        return array

    def to_host(self, ds: xr.Dataset) -> xr.Dataset:
        """The dataset itself."""
        return ds

    def memory(self) -> int | None:
        """Host memory only."""
        return None


@dataclass(frozen=True, slots=True)
class SimulatedDevice:
    """Numba's CUDA simulator: host arrays of a type that selects the CUDA kernels. For tests."""

    name: str = "cuda simulator"

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """A simulated device array."""
        import numpy as np

        return self.upload(np.empty(shape, dtype))

    def upload(self, array: Any) -> Any:
        """A view that the dispatch table takes for device memory."""
        from odc_stats_gpu.kernels import SimulatedDeviceArray

        return array.view(SimulatedDeviceArray)

    def to_host(self, ds: xr.Dataset) -> xr.Dataset:
        """Plain NumPy views."""
        import numpy as np

        return ds.map(lambda band: band.copy(data=np.asarray(band.data)), keep_attrs=True)

    def memory(self) -> int | None:
        """Host memory only."""
        return None


@dataclass(frozen=True, slots=True)
class CudaDevice:
    """One CUDA device through CuPy."""

    name: str
    number: int = 0

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """A CuPy array."""
        import cupy

        with cupy.cuda.Device(self.number):
            return cupy.empty(shape, dtype)

    def upload(self, array: Any) -> Any:
        """Copy to the device."""
        import cupy

        with cupy.cuda.Device(self.number):
            return cupy.asarray(array)

    def to_host(self, ds: xr.Dataset) -> xr.Dataset:
        """Copy from the device."""
        import cupy

        return ds.map(lambda band: band.copy(data=cupy.asnumpy(band.data)), keep_attrs=True)

    def memory(self) -> int | None:
        """Free bytes, those kept by the pool included."""
        import cupy

        if (unused := unused_pool_bytes()) is not None:
            return unused
        with cupy.cuda.Device(self.number):
            free, _ = cupy.cuda.runtime.memGetInfo()
            return int(free) + int(cupy.get_default_memory_pool().free_bytes())


def open_device(wanted: str) -> tuple[Device, str]:
    """The device of `--device auto|cpu|cuda`, and one line why `auto` took the CPU (or nothing).

    Raises ConfigError when `cuda` is asked for and can't be had.
    """
    if wanted == "cpu":
        return CpuDevice(), ""
    simulated = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"
    if simulated and wanted != "cuda":
        return CpuDevice(), "device cpu: the CUDA simulator is used only with --device cuda"
    lacking, remedy = ("", "") if simulated else _lacking()
    if not lacking and (kernels := missing_kernels()):
        lacking = f"no CUDA version of {', '.join(kernels)} in this release"
        remedy = "use --device cpu"
    if lacking and wanted == "cuda":
        raise ConfigError(f"--device cuda: {lacking}", remedy)
    if lacking:
        return CpuDevice(), f"device cpu: {lacking}"
    if simulated:
        return SimulatedDevice(), ""
    import cupy

    properties = cupy.cuda.runtime.getDeviceProperties(0)
    return CudaDevice(f"cuda:0 {properties['name'].decode()}"), ""


def missing_kernels() -> list[str]:
    """Kernels that have no CUDA version."""
    found = []
    for kernel in CUDA_KERNELS:
        try:
            spec = importlib.util.find_spec(f"odc_stats_gpu.kernels.{kernel}.cuda")
        except ImportError:
            spec = None
        if spec is None:
            found.append(kernel)
    return found


def gpu_problem() -> tuple[str, str]:
    """What CUDA lacks here and what to do about it; empty where a GPU can be used."""
    return _lacking()


def _lacking() -> tuple[str, str]:
    """What CUDA lacks and what to do about it; NVML is asked first: it makes no context."""
    count, problem = nvml_devices()
    if not count:
        return problem, "run where an NVIDIA GPU and its driver are, or use --device cpu"
    if importlib.util.find_spec("cupy") is None:
        return "CuPy is not installed", "pip install 'odc-stats-gpu[cuda13]' (or cuda12)"
    try:
        import cupy

        if cupy.cuda.runtime.getDeviceCount() < 1:
            return "no CUDA device is visible", "look at CUDA_VISIBLE_DEVICES"
    except Exception as exc:  # noqa: BLE001 - drivers and CuPy raise their own families
        return f"CUDA doesn't start: {str(exc).splitlines()[0]}", "check the driver with nvidia-smi"
    return "", ""


def nvml_devices() -> tuple[int, str]:
    """Number of GPUs that the driver knows, and what is wrong when there is none."""
    try:
        import pynvml
    except ImportError:
        return 0, "the extra [cuda13] (or [cuda12]) is not installed"
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return 0, "no NVIDIA driver"
    try:
        count = int(pynvml.nvmlDeviceGetCount())
        return count, "" if count else "no NVIDIA GPU"
    except pynvml.NVMLError as exc:
        return 0, f"NVML: {exc}"
    finally:
        pynvml.nvmlShutdown()
