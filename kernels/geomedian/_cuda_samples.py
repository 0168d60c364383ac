"""A pixel's valid observations on chip: tested, compacted, packed into words, unpacked in registers.

Observation number `slot` of a pixel belongs to lane `slot % lanes` of the pixel's group, as its
number `slot // lanes`. A lane's observation is `words` consecutive 32-bit words, an odd number, so
that 32 lanes touch 32 banks; the next one is 32 * words further. 16-bit bands sit two in a word;
float32 bands are taken as their bits throughout, since comparisons with NaN mean little in fastmath.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from odc_stats_gpu.kernels._cuda import WARP, chained, device, every, float_of

KINDS = ("int16", "uint16", "float32")


def words_per_observation(P: int, kind: str) -> int:
    """32-bit words of a lane's observation: room for the bands or for three distances, odd."""
    return max(3, P if kind == "float32" else -(-P // 2)) | 1


def samples(P: int, kind: str) -> SimpleNamespace:
    """Return device functions that move one observation of P bands."""
    MAGNITUDE = np.int32(0x7FFFFFFF)
    INFINITY = np.int32(0x7F800000)
    HALF = np.int32(0xFFFF)
    per_word = 1 if kind == "float32" else 2
    stride = WARP * words_per_observation(P, kind)

    def read(b):  # type: ignore[no-untyped-def]
        def read_band(stack, t, i, j, missing, value):  # type: ignore[no-untyped-def]
            v = np.int32(stack[b, t, i, j])
            value[b] = v
            if kind == "float32":
                magnitude = v & MAGNITUDE
                if magnitude == 0:
                    v = magnitude  # -0 is missing where 0 is
                return (magnitude < INFINITY) & (v != missing[b])
            return v != missing[b]

        return read_band

    def pack(k):  # type: ignore[no-untyped-def]
        def pack_word(value, words, at):  # type: ignore[no-untyped-def]
            if per_word == 1:
                words[at + k] = value[k]
            elif 2 * k + 1 < P:
                words[at + k] = (value[2 * k] & HALF) | (value[2 * k + 1] << 16)
            else:
                words[at + k] = value[2 * k] & HALF

        return pack_word

    def unpack(k):  # type: ignore[no-untyped-def]
        def unpack_word(words, at, x):  # type: ignore[no-untyped-def]
            word = words[at + k]
            if kind == "float32":
                x[k] = float_of(word)
            elif kind == "int16":
                x[2 * k] = np.float32(np.int16(word))
                if 2 * k + 1 < P:
                    x[2 * k + 1] = np.float32(np.int16(word >> 16))
            else:
                x[2 * k] = np.float32(np.uint16(word))
                if 2 * k + 1 < P:
                    x[2 * k + 1] = np.float32(np.uint16(word >> 16))

        return unpack_word

    used = -(-P // per_word)
    return SimpleNamespace(
        read=every(read, P),  # (stack, t, i, j, missing, value): value = bands; are all valid?
        pack=chained(pack, used),  # (value, words, at)
        unpack=chained(unpack, used),  # (words, at, x): x = float32 bands
        stride=stride,
    )
