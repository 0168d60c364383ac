"""From strided pixels to rows of eight: float32, tested for validity, empty dates left out.

A packed observation is P + 1 rows: the bands, then its weight, 1 or 0 per lane. What weighs 0 is 0.
"""

from __future__ import annotations

from typing import Any

from odc_stats_gpu.kernels._jit import inlined
from odc_stats_gpu.kernels._lanes import (
    LANES,
    ROW_BYTES,
    any_of,
    f8,
    load_pixels,
    rows,
    select,
    store,
)
from odc_stats_gpu.kernels.geomedian._newton import UNROLL


@inlined
def pack(
    bands: Any,
    sample: Any,
    address: Any,
    steps: Any,
    dates: Any,
    pixels: Any,
    out: Any,
    group_rows: Any,
    filled: Any,
) -> None:
    """Pack `pixels` >= 8 neighbours in groups of eight; the last group overlaps the one before.

    `bands` holds the missing value of each band; an observation counts if every band is a number
    and none is missing. Dates that count for no lane of a group are left out of it; dates of weight
    0 pad the rest to a multiple of UNROLL. `filled` receives the number of dates of each group.
    """
    P = len(bands)
    groups = -(-pixels // LANES)
    value = rows(bands, 1)
    for k in range(groups):
        filled[k] = 0
    for t in range(dates):
        for k in range(groups):
            at = address + t * steps[1] + min(k * LANES, pixels - LANES) * steps[3]
            for b in range(P):
                value[b] = load_pixels(at + b * steps[0], sample)
            valid = value[0] != bands[0]
            for b in range(P):
                finite = value[b] - value[b] == 0.0
                valid = valid & finite & (value[b] != bands[b])
            to = out + (k * group_rows + filled[k] * (P + 1)) * ROW_BYTES
            for b in range(P):
                store(to, b, select(valid, value[b], 0.0))
            store(to, P, select(valid, f8(1.0), 0.0))
            if any_of(valid):
                filled[k] += 1
    for k in range(groups):
        to = out + k * group_rows * ROW_BYTES
        while filled[k] % UNROLL:
            for b in range(P + 1):
                store(to, filled[k] * (P + 1) + b, f8(0.0))
            filled[k] += 1
