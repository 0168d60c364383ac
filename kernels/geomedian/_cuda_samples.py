"""A pixel's valid observations on chip: tested, compacted, packed into words, unpacked in registers.

Observation number `slot` of a pixel belongs to lane `slot % lanes` of the pixel's group, as its
number `slot // lanes`. A lane's observation is a few consecutive 32-bit words, an odd number, so
that 32 lanes touch 32 banks; its next one is 32 times as many further. 16-bit bands sit two in a
word; float32 bands are taken as their bits, since comparisons with NaN mean little in fastmath.
"""

from __future__ import annotations

from types import ModuleType

import numpy as np

from odc_stats_gpu.kernels._cuda import (
    WARP,
    device,
    fixed,
    peek,
    peek_float,
    pixel_of,
    poke,
    toolbox,
)
from odc_stats_gpu.kernels.geomedian._cuda_plan import words_per_observation

__all__ = ["samples"]


def samples(P: int, kind: str) -> ModuleType:
    """Return device functions that move one observation of P bands."""
    MAGNITUDE = np.int32(0x7FFFFFFF)
    INFINITY = np.int32(0x7F800000)
    HALF = np.int32(0xFFFF)

    @device
    def read(stack, t, i, j, missing, value):  # type: ignore[no-untyped-def]
        """Put the bands at date t of pixel (i, j) into `value`; return whether all are valid."""
        for b in range(P):
            value[b] = pixel_of(stack, b, t, i, j)
        valid = True
        for b in fixed(P):
            v = value[b]
            if kind == "float32":
                magnitude = np.int32(v & MAGNITUDE)
                if magnitude == 0:
                    v = np.int32(0)  # -0 is missing where 0 is
                valid = valid & (magnitude < INFINITY)
            valid = valid & (v != missing[b])
        return valid

    @device
    def pack(value, words, at):  # type: ignore[no-untyped-def]
        """Write an observation to words[at:]."""
        if kind == "float32":
            for b in range(P):
                poke(words, at, b, value[b])
        else:
            for k in range(P // 2):
                poke(words, at, k, (value[2 * k] & HALF) | (value[2 * k + 1] << 16))
            if P % 2 == 1:
                poke(words, at, P // 2, value[P - 1])

    @device
    def unpack(words, at, x):  # type: ignore[no-untyped-def]
        """Read the observation at words[at:] as float32."""
        if kind == "float32":
            for b in range(P):
                x[b] = peek_float(words, at, b)
        else:
            for b in fixed(P):
                if b % 2 == 0:
                    word = peek(words, at, b // 2)
                else:
                    word = word >> 16
                if kind == "int16":
                    x[b] = np.float32(np.int16(word))
                else:
                    x[b] = np.float32(np.uint16(word))

    return toolbox(
        read=read, pack=pack, unpack=unpack, stride=WARP * words_per_observation(P, kind)
    )
