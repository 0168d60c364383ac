"""The device that computes. Besides the CUDA kernels this is the only module that knows CuPy."""

from __future__ import annotations

import importlib.util
import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self

from odc_stats_gpu.engine._cuda_cluster import visible
from odc_stats_gpu.engine._cuda_device import CUDA_CONTEXT, CudaDevice, is_out_of_memory
from odc_stats_gpu.engine._gpus import list_gpus
from odc_stats_gpu.engine._limits import DeviceMemory
from odc_stats_gpu.errors import ConfigError
from odc_stats_gpu.telemetry import fault_point

if TYPE_CHECKING:
    import xarray as xr

CUDA_KERNELS = ("geomedian", "warp", "morphology")
"""Kernels without which no product can be made on a CUDA device."""


class Device(Protocol):
    """Where the stack of a block lives and is reduced."""

    @property
    def name(self) -> str:
        """For people and metadata: `cpu`, `cuda:0 NVIDIA L4`."""

    @property
    def on_host(self) -> bool:
        """Whether the memory plan of the host is all there is to plan."""

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """An uninitialised array."""

    def upload(self, array: Any) -> Any:
        """A NumPy array as an array of this device."""

    def to_host(self, ds: xr.Dataset) -> xr.Dataset:
        """The dataset with NumPy arrays."""

    def lane(self, number: int) -> Device:
        """The device as the block of that number sees it: with an order of work of its own."""

    def active(self) -> AbstractContextManager[None]:
        """Make what the calling thread does part of this lane."""

    def memory(self) -> DeviceMemory | None:
        """What is free on the device; None where that is host memory."""

    def exhausted(self, error: BaseException) -> bool:
        """Whether an error says that device memory has run out."""

    def release(self) -> None:
        """Give back memory that is only kept for the next block."""


class _InHostMemory:
    """What is the same for all devices whose memory is the host's."""

    def lane(self, _number: int) -> Self:
        """The device itself: calls return when their work is done."""
        return self

    def active(self) -> AbstractContextManager[None]:
        """Nothing to choose."""
        return nullcontext()

    def memory(self) -> DeviceMemory | None:
        """Host memory only."""
        return None

    def exhausted(self, _error: BaseException) -> bool:
        """The host's memory has a plan of its own: what it refuses would be refused again."""
        return False

    def release(self) -> None:
        """Nothing is kept."""


@dataclass(frozen=True)
class CpuDevice(_InHostMemory):
    """Host memory, NumPy arrays."""

    name: str = "cpu"
    on_host: bool = True

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


@dataclass(frozen=True)
class SimulatedDevice(_InHostMemory):
    """Numba's CUDA simulator: host arrays of a type that selects the CUDA kernels. For tests."""

    name: str = "cuda simulator"
    on_host: bool = False

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """A simulated device array."""
        import numpy as np

        return self.upload(np.empty(shape, dtype))

    def upload(self, array: Any) -> Any:
        """A view that the dispatch table takes for device memory."""
        from odc_stats_gpu.kernels import SimulatedDeviceArray

        fault_point("device_memory")
        return array.view(SimulatedDeviceArray)

    def to_host(self, ds: xr.Dataset) -> xr.Dataset:
        """Plain NumPy views."""
        import numpy as np

        return ds.map(lambda band: band.copy(data=np.asarray(band.data)), keep_attrs=True)

    def exhausted(self, error: BaseException) -> bool:
        """As on a GPU: what the fault point refuses; NumPy's MemoryError is the host's."""
        return is_out_of_memory(error)


@dataclass(frozen=True)
class PlannedDevice(CpuDevice):
    """A GPU to plan for: nothing is computed on it, it need not even be here."""

    name: str = "cuda (not here)"
    on_host: bool = False
    room: DeviceMemory | None = None

    def memory(self) -> DeviceMemory | None:
        """As NVML has told."""
        return self.room


def open_device(wanted: str) -> tuple[Device, str]:
    """The device of `--device auto|cpu|cuda`, and one line why `auto` took the CPU (or nothing).

    Raises ConfigError when `cuda` is asked for and can't be had.
    """
    lacking, remedy = _unavailable(wanted)
    if lacking and wanted == "cuda":
        raise ConfigError(f"--device cuda: {lacking}", remedy)
    if lacking or wanted == "cpu":
        return CpuDevice(), f"device cpu: {lacking}" if lacking else ""
    if _simulator():
        return SimulatedDevice(), ""
    import cupy

    properties = cupy.cuda.runtime.getDeviceProperties(0)
    return CudaDevice(f"cuda:0 {properties['name'].decode()}", cupy), ""


def plan_device(
    wanted: str, room: DeviceMemory | None = None, *, assumed: bool = False
) -> tuple[Device, str]:
    """The device that `open_device` would give, to plan with: NVML is asked, no context is made.

    `room`: what a worker would find there, if that is known; else the first GPU that is visible.
    `assumed`: the GPU need not be here. Raises ConfigError when `cuda` is asked for, NVML shows no
    GPU and none may be assumed.
    """
    lacking, remedy = _unavailable(wanted)
    if wanted == "cpu" or (lacking and wanted != "cuda"):
        return CpuDevice(), f"device cpu: {lacking}" if lacking else ""
    gpu = next(iter(visible(list_gpus(), os.environ.get("CUDA_VISIBLE_DEVICES"))), None)
    if gpu is None and lacking and not assumed:
        raise ConfigError(
            f"--device cuda: {lacking}",
            f"{remedy}; with --device-memory a dry run plans for a GPU that is elsewhere",
        )
    name = "cuda simulator" if _simulator() else PlannedDevice.name
    if gpu is not None:
        name = name if _simulator() else f"cuda:0 {gpu.name}"
        if room is None and gpu.free:
            room = DeviceMemory(gpu.free, f"free on {gpu.name}", CUDA_CONTEXT)
    return PlannedDevice(name, room=room), f"only a plan: {lacking}" if lacking else ""


def _simulator() -> bool:
    return os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"


def _unavailable(wanted: str) -> tuple[str, str]:
    """Why a device other than the CPU can't be had, and the remedy; empty where it can."""
    if wanted == "cpu":
        return "", ""
    if _simulator() and wanted != "cuda":
        return "the CUDA simulator is used only with --device cuda", ""
    lacking, remedy = ("", "") if _simulator() else _lacking()
    if not lacking and (kernels := missing_kernels()):
        return f"no CUDA version of {', '.join(kernels)} in this release", "use --device cpu"
    return lacking, remedy


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
