"""What this machine offers: one finding per line, each with a remedy when something is missing."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from odc_stats_gpu.engine._doctor_access import credentials, datacube
from odc_stats_gpu.engine._doctor_gpu import gpu_findings, profilers
from odc_stats_gpu.engine._finding import Finding, lack, look, safely
from odc_stats_gpu.engine._kernel_check import Compilers, kernel_finding
from odc_stats_gpu.engine._limits import (
    cgroup_memory,
    cpu_count,
    physical_memory,
    read_limits,
    show_bytes,
)

_ROOM, _SCRATCH = 5 << 30, 1 << 30
_VECTORS = ("avx2", "fma", "avx512f", "neon", "sve")
"""What the kernels' loops are compiled to, where it is there."""


def examine(env: str | None = None, *, quick: bool = False) -> list[Finding]:
    """Look at everything; nothing is changed, nothing raises.

    `env`: datacube environment to try. `quick`: compile no kernel, wait for no network.
    """
    with ThreadPoolExecutor(1) as meanwhile, Compilers() as compilers:
        kernels = meanwhile.submit(
            safely, "cuda kernels", partial(kernel_finding, compilers, quick=quick)
        )
        gpus = [*safely("python", _python), *gpu_findings()]
        machine = _machine(env, quick=quick)
        return [*gpus, *kernels.result(), *profilers(), *machine]


def _machine(env: str | None, *, quick: bool) -> list[Finding]:
    return [
        *safely("numba", _numba, needed=True),
        *safely("cpus", _cpus),
        *safely("memory", _memory, needed=True),
        *safely("disk", _disk),
        *safely("scratch", _scratch, needed=True),
        *safely("kernel cache", _cache),
        *safely("gdal", _gdal, needed=True),
        *safely("proj", _proj, needed=True),
        *safely("aws", lambda: credentials(quick=quick)),
        *safely("datacube", lambda: datacube(env)),
    ]


def _python() -> Finding:
    major, minor, micro = sys.version_info[:3]
    return look("python", f"{major}.{minor}.{micro}")


def _numba() -> Finding:
    """Numba itself, and whether what it compiles can run on this CPU."""
    import llvmlite.binding as llvm
    import numba

    here = llvm.get_host_cpu_features()
    target = numba.config.CPU_NAME or llvm.get_host_cpu_name()
    asked = str(numba.config.CPU_FEATURES or "").split(",")
    beyond = sorted(f[1:] for f in asked if f.startswith("+") and not here.get(f[1:], False))
    text = f"{numba.__version__}, compiles for {target}"
    if beyond:
        return lack(
            "numba", f"{text} with {', '.join(beyond[:4])}, which this CPU lacks",
            "unset NUMBA_CPU_FEATURES and NUMBA_CPU_NAME, or use a newer node", needed=True,
        )  # fmt: skip
    return look("numba", text, needed=True)


def _cpus() -> Finding:
    import llvmlite.binding as llvm

    features = llvm.get_host_cpu_features()
    vectors = [name for name in _VECTORS if features.get(name)]
    text = (
        f"{cpu_count()} usable of {os.cpu_count()}, {llvm.get_host_cpu_name()}: "
        f"{', '.join(vectors) or 'no vector instructions that matter'}"
    )
    if not {"avx2", "neon"} & set(vectors):
        return lack(
            "cpus", text, "tiles take several times as long: use a CPU with AVX2 (2013 or newer)"
        )
    return look("cpus", text)


def _memory() -> Finding:
    group = cgroup_memory()
    limits = read_limits()
    text = (
        f"{show_bytes(limits.memory)} usable ({limits.memory_from}); "
        f"physical {show_bytes(physical_memory())}, "
        f"cgroup {show_bytes(group) if group else 'without limit'}"
    )
    if limits.memory < 1 << 30:
        return lack("memory", text, "give the container 1 GiB or more", needed=True)
    return look("memory", text, needed=True)


def _disk() -> Finding:
    here = Path.cwd()
    free = shutil.disk_usage(here).free
    text = f"{show_bytes(free)} free in {here}"
    if not os.access(here, os.W_OK):
        return lack("disk", f"{text}, not writable", "give --location a folder that is")
    return look("disk", text) if free >= _ROOM else lack("disk", text, "free some space")


def _scratch() -> Finding:
    """Where unfinished files of tiles for S3, fetched databases and workers' folders lie."""
    try:
        folder = Path(tempfile.gettempdir())
    except OSError as exc:
        return lack("scratch", str(exc), "set TMPDIR to a writable folder", needed=True)
    free = shutil.disk_usage(folder).free
    text = f"{show_bytes(free)} free in {folder}"
    if free < _SCRATCH:
        return lack("scratch", text, "set TMPDIR to a larger disk", needed=True)
    return look("scratch", text, needed=True)


def _cache() -> Finding:
    """Where Numba keeps compiled kernels: without it every process compiles for a minute."""
    from odc_stats_gpu import kernels

    given = os.environ.get("NUMBA_CACHE_DIR")
    places = [Path(given)] if given else [Path(kernels.__file__).parent, Path.home() / ".cache"]
    for place in places:
        existing = next(p for p in (place, *place.absolute().parents) if p.exists())
        if existing.is_dir() and os.access(existing, os.W_OK):
            return look("kernel cache", f"{place} (NUMBA_CACHE_DIR)" if given else str(place))
    return lack(
        "kernel cache", f"{' and '.join(map(str, places))} can't be written",
        "set NUMBA_CACHE_DIR to a writable folder: kernels are compiled anew in every process",
    )  # fmt: skip


def _gdal() -> Finding:
    import rasterio
    from rasterio.drivers import raster_driver_extensions

    text = f"{rasterio.__gdal_version__} (rasterio {rasterio.__version__})"
    if "tif" not in raster_driver_extensions():
        return lack("gdal", f"{text} without GeoTIFF", "install the rasterio wheel", needed=True)
    return look("gdal", text, needed=True)


def _proj() -> Finding:
    """Both copies of PROJ find their data: pyproj's and that of GDAL."""
    import logging

    import pyproj
    import rasterio
    from rasterio.crs import CRS

    text = f"{pyproj.proj_version_str}, data in {pyproj.datadir.get_data_dir()}"
    logging.getLogger("rasterio").setLevel(logging.CRITICAL)  # it raises, too
    try:
        x, y = pyproj.Transformer.from_crs(4326, 3577, always_xy=True).transform(132, -25)
        known = abs(x) < 1 and -2.71e6 < y < -2.70e6
        with rasterio.Env():  # GDAL's own words go to the log, not to stderr
            CRS.from_epsg(3577)
        problem = "" if known else f"132 E 25 S is {x:.0f} {y:.0f} in EPSG:3577"
    except Exception as exc:  # noqa: BLE001 - PROJ's errors have several families
        problem = " ".join(str(exc).split())
    if problem:
        given = [f"{n}={os.environ[n]}" for n in ("PROJ_DATA", "PROJ_LIB") if os.environ.get(n)]
        remedy = f"unset {' and '.join(given)}" if given else "install pyproj and rasterio anew"
        return lack("proj", f"{text}: {problem}", remedy, needed=True)
    return look("proj", text, needed=True)
