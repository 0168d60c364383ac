"""What this device can do at most: bytes per second of a copy and a triad, float32 FMA."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from bench.gpu._bench import Bench

CHAINS, TURNS = 8, 4096
FMA = r"""
extern "C" __global__ void fma_rate(float* out, float a, float b, int turns)
{
    float x[8];
    for (int k = 0; k < 8; ++k) x[k] = threadIdx.x + k;
    for (int i = 0; i < turns; i += 16) {
        #pragma unroll
        for (int j = 0; j < 16; ++j) {
            #pragma unroll
            for (int k = 0; k < 8; ++k) x[k] = fmaf(x[k], a, b);
        }
    }
    float sum = 0;
    for (int k = 0; k < 8; ++k) sum += x[k];
    if (sum == 12345.678f) out[0] = sum;  // never, but the compiler doesn't know
}
"""


def ceilings(bench: Bench) -> Iterator[dict[str, Any]]:
    """Measured rates, one after the other; None for all of them when simulated."""
    if bench.simulate:
        a = np.ones(1000, np.float32)
        assert (a + 3 * a == 4).all()
        yield dict.fromkeys(("copy_bytes_per_second", "triad_bytes_per_second", "fma_per_second"))
        return
    import cupy

    free, _ = cupy.cuda.runtime.memGetInfo()
    words = int(min(1 << 28, free // 4 // 4)) // 1024 * 1024  # 1 GiB, or a quarter of what is free
    a, b = cupy.ones(words, cupy.float32), cupy.empty(words, cupy.float32)
    found: dict[str, Any] = {"array_bytes": a.nbytes}

    def copy() -> None:
        cupy.cuda.runtime.memcpyAsync(
            b.data.ptr, a.data.ptr, a.nbytes, cupy.cuda.runtime.memcpyDeviceToDevice,
            cupy.cuda.get_current_stream().ptr,
        )  # fmt: skip

    times = bench.seconds(copy)
    found["copy"], found["copy_bytes_per_second"] = times, 2 * a.nbytes / times["median"]
    yield found
    c = cupy.full(words, 2, cupy.float32)
    triad = cupy.ElementwiseKernel("float32 a, float32 b", "float32 c", "c = a + 3.0f * b", "triad")
    times = bench.seconds(lambda: triad(a, c, b))
    assert float(b[-1]) == 7
    found["triad"], found["triad_bytes_per_second"] = times, 3 * a.nbytes / times["median"]
    yield found
    yield found | _fma(bench, cupy)


def _fma(bench: Bench, cupy: Any) -> dict[str, Any]:
    kernel = cupy.RawKernel(FMA, "fma_rate")
    count = cupy.cuda.Device().attributes["MultiProcessorCount"]
    blocks, threads = 16 * count, 256
    out = cupy.zeros(1, cupy.float32)
    numbers = (out, np.float32(0.999), np.float32(0.001), np.int32(TURNS))
    times = bench.seconds(lambda: kernel((blocks,), (threads,), numbers))
    done = blocks * threads * CHAINS * TURNS
    rate = done / times["median"]
    return {"fma": times, "fma_per_second": rate, "fma_per_second_per_multiprocessor": rate / count}
