"""A result must not depend on the machine: the environment of every process that makes tiles."""

from __future__ import annotations

import os
import sys

from odc_stats_gpu.engine._limits import cpu_count

ENVIRONMENT = {
    "PROJ_NETWORK": "OFF",  # grids from the network would move pixels
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",  # never list a bucket to open one file
    "GDAL_PAM_ENABLED": "NO",  # no .aux.xml beside inputs or outputs
    "GDAL_HTTP_MAX_RETRY": "5",
    "GDAL_HTTP_RETRY_DELAY": "0.5",
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
    "VSI_CACHE": "NO",
    "GDAL_NUM_THREADS": "1",  # parallelism is ours: threads over files and blocks
    "OMP_WAIT_POLICY": "PASSIVE",  # idle OpenMP threads sleep, the readers need the cores
}
_OURS_TO_DECIDE = {"PROJ_NETWORK", "GDAL_PAM_ENABLED", "GDAL_NUM_THREADS"}


def pin_environment() -> None:
    """Set the options above; what only concerns speed and retries may be set outside instead."""
    for name, value in ENVIRONMENT.items():
        if name in _OURS_TO_DECIDE:
            os.environ[name] = value
        else:
            os.environ.setdefault(name, value)


def set_threads(count: int) -> None:
    """Threads of the kernels called from this thread: never more than there are CPUs.

    Before Numba is imported this decides its pool, and with it the default of every thread.
    """
    count = max(1, min(count, cpu_count()))
    numba = sys.modules.get("numba")
    setter = getattr(numba, "set_num_threads", None)  # lacking while another thread imports Numba
    if numba is None or setter is None:
        os.environ["NUMBA_NUM_THREADS"] = str(count)
    else:
        setter(min(count, numba.config.NUMBA_NUM_THREADS))
