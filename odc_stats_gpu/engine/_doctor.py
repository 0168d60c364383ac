"""What this machine offers: one finding per line, each with a remedy when something is missing."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import warnings
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from odc_stats_gpu.engine._device import missing_kernels, nvml_devices, open_device
from odc_stats_gpu.engine._limits import (
    cgroup_memory,
    cpu_count,
    physical_memory,
    read_limits,
    show_bytes,
)
from odc_stats_gpu.errors import ConfigError

_CUDA_EXTRA = "pip install 'odc-stats-gpu[cuda13]' (or cuda12 for older drivers)"
_ROOM = 5 << 30


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    what: str
    ok: bool
    found: str
    remedy: str = ""


def _look(what: str, found: str) -> Finding:
    return Finding(what, ok=True, found=found)


def _lack(what: str, found: str, remedy: str) -> Finding:
    return Finding(what, ok=False, found=found, remedy=remedy)


def examine(env: str | None = None) -> list[Finding]:
    """Look at everything; nothing is changed, nothing raises."""
    return [
        _python(),
        _gpu(),
        *(_package(name, extra) for name, extra in (("cupy", _CUDA_EXTRA),
                                                     ("numba_cuda", _CUDA_EXTRA))),
        _kernels(),
        _device(),
        _numba(),
        _memory(),
        _cpus(),
        _disk(),
        _gdal(),
        _credentials(),
        _datacube(env),
    ]  # fmt: skip


def _python() -> Finding:
    major, minor, micro = sys.version_info[:3]
    return _look("python", f"{major}.{minor}.{micro}")


def _gpu() -> Finding:
    count, problem = nvml_devices()
    if not count:
        return _lack("gpu", problem, "tiles are made on the CPU; for CUDA install a driver")
    import pynvml

    pynvml.nvmlInit()
    try:
        driver = pynvml.nvmlSystemGetDriverVersion()
        names = []
        for n in range(count):
            handle = pynvml.nvmlDeviceGetHandleByIndex(n)
            memory = show_bytes(int(pynvml.nvmlDeviceGetMemoryInfo(handle).total))
            names.append(f"{pynvml.nvmlDeviceGetName(handle)} {memory}")
        return _look("gpu", f"{', '.join(names)}; driver {driver}")
    finally:
        pynvml.nvmlShutdown()


def _package(module: str, remedy: str) -> Finding:
    if importlib.util.find_spec(module) is None:
        return _lack(module, "not installed", remedy)
    names = {"cupy": ("cupy-cuda13x", "cupy-cuda12x", "cupy"), "numba_cuda": ("numba-cuda",)}
    for name in names[module]:
        try:
            return _look(module, f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return _look(module, "installed")


def _kernels() -> Finding:
    missing = missing_kernels()
    if missing:
        return _lack(
            "cuda kernels", f"missing: {', '.join(missing)}", "a later version brings them"
        )
    return _look("cuda kernels", "all there")


def _device() -> Finding:
    try:
        device, why = open_device("auto")
    except ConfigError as exc:
        return _lack("device", exc.message, exc.remedy)
    return _look("device", why.removeprefix("device ") or device.name)


def _numba() -> Finding:
    import numba

    return _look("numba", str(numba.__version__))


def _memory() -> Finding:
    group = cgroup_memory()
    limits = read_limits()
    text = (
        f"{show_bytes(limits.memory)} usable ({limits.memory_from}); "
        f"physical {show_bytes(physical_memory())}, "
        f"cgroup {show_bytes(group) if group else 'without limit'}"
    )
    if limits.memory < 1 << 30:
        return _lack("memory", text, "give the container 1 GiB or more")
    return _look("memory", text)


def _cpus() -> Finding:
    return _look("cpus", f"{cpu_count()} usable of {os.cpu_count()}")


def _disk() -> Finding:
    here = Path.cwd()
    free = shutil.disk_usage(here).free
    text = f"{show_bytes(free)} free in {here}"
    return _look("disk", text) if free >= _ROOM else _lack("disk", text, "free some space")


def _gdal() -> Finding:
    import rasterio
    from rasterio.drivers import raster_driver_extensions

    text = f"{rasterio.__gdal_version__} (rasterio {rasterio.__version__})"
    if "tif" not in raster_driver_extensions():
        return _lack("gdal", f"{text} without GeoTIFF", "install the rasterio wheel")
    return _look("gdal", text)


def _credentials() -> Finding:
    os.environ.setdefault("AWS_EC2_METADATA_DISABLED", "true")  # no 2 s wait outside AWS
    import boto3
    from botocore.exceptions import BotoCoreError

    try:
        found = boto3.Session().get_credentials()
    except BotoCoreError as exc:
        return _lack("aws", str(exc), "correct ~/.aws/config")
    endpoint = os.environ.get("AWS_ENDPOINT_URL", "")
    at = f", endpoint {endpoint}" if endpoint else ""
    if found is None:
        return _lack(
            "aws", f"no credentials{at}", "needed for s3:// and SQS only: run aws configure"
        )
    return _look("aws", f"credentials from {found.method}{at}")


def _datacube(env: str | None) -> Finding:
    if importlib.util.find_spec("datacube") is None:
        return _lack("datacube", "not installed",
            "needed to save tasks from an index: pip install 'odc-stats-gpu[datacube]'",
        )  # fmt: skip
    import logging

    logging.getLogger("datacube").setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about a configuration file that need not be there
            from datacube import Datacube

            dc = Datacube(env=env, app="odc-stats-gpu")
        with dc:
            count = len(list(dc.index.products.get_all()))
        return _look("datacube", f"{count} products in {env or 'the default environment'}")
    except Exception as exc:  # noqa: BLE001 - configuration, driver and database have own families
        reason = (str(exc).strip().splitlines() or [type(exc).__name__])[0]
        return _lack("datacube", reason,
            "needed to save tasks from an index only: set DB_HOSTNAME, ... or use --eo3",
        )  # fmt: skip
