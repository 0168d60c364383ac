"""What is left in the RMM pool that dask-cuda makes in its workers."""

from __future__ import annotations

import sys
from typing import Any


def unused_pool_bytes() -> int | None:
    """Bytes of this process's RMM pool that nobody has taken; None where there is no such pool.

    A pool takes its memory from the driver at once (or keeps it, `async`): what the driver calls
    free is then next to nothing. Counts through the adaptors that `cluster_arguments` asks for.
    """
    rmm = sys.modules.get("rmm")
    if rmm is None or not hasattr(rmm, "mr"):
        return None
    resource: Any = rmm.mr.get_current_device_resource()
    taken = 0
    while resource is not None:
        if hasattr(resource, "get_allocated_bytes"):
            taken = int(resource.get_allocated_bytes())
        for size in ("pool_size", "get_allocation_limit"):
            if hasattr(resource, size):
                return max(0, int(getattr(resource, size)()) - taken)
        resource = resource.get_upstream() if hasattr(resource, "get_upstream") else None
    return None
