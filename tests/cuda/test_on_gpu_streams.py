"""On hardware: kernels belong to the caller's stream and wait for nobody; several devices."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from geomedian_cases import NODATA, surface_reflectance

from odc_stats_gpu import kernels
from odc_stats_gpu.kernels import refine

pytestmark = pytest.mark.gpu

BUSY = (
    'extern "C" __global__ void busy() { long long t = clock64(); '
    "while (clock64() - t < 2000000000LL); }"
)


def shifted(x, y):
    return x + 40.25, y + 17.5


def scene(size=700):
    rng = np.random.default_rng(1)
    src = rng.integers(1, 10000, (6, size, size + 7)).astype(np.int16)
    src[:, rng.random(src.shape[1:]) < 0.2] = 0
    return src


def block_of_a_tile(stack, src, mask, lattice):
    """Every kernel once, as a block of a tile uses them."""
    bad = kernels.clean_mask(kernels.decode_enum(mask, [2, 3]), [("opening", 2), ("dilation", 3)])
    clean = kernels.mask_where(src, bad, 0)
    warped = kernels.warp(clean, 0, lattice, "bilinear")
    fused = kernels.first_valid(warped[:, None], 0)
    return kernels.geomad(stack, NODATA), fused, kernels.count_true(bad[None])


def given(seed=0):
    rng = np.random.default_rng(seed)
    src = scene()
    src[src != 0] += np.int16(seed)
    mask = rng.integers(0, 5, src.shape[1:]).astype(np.uint8)
    return surface_reflectance(seed, 30, 6, (64, 96)), src, mask


def test_threads_with_streams_of_their_own(cupy):
    """As blocks are read and reduced: no result waits for, or misses, another."""
    lattice = refine(shifted, (600, 600))
    inputs = [given(seed) for seed in range(6)]
    expected = []
    for arrays in inputs:
        found = block_of_a_tile(*map(cupy.asarray, arrays), lattice)
        expected.append([cupy.asnumpy(a) for a in (*found[0], *found[1:])])

    def one(k):
        with cupy.cuda.Stream(non_blocking=True) as stream:
            found = block_of_a_tile(*map(cupy.asarray, inputs[k % 6]), lattice)
            host = [cupy.asnumpy(a, stream=stream) for a in (*found[0], *found[1:])]
            stream.synchronize()
        return host

    with ThreadPoolExecutor(4) as pool:
        for k, found in enumerate(pool.map(one, range(36))):
            for a, b in zip(found, expected[k % 6], strict=True):
                np.testing.assert_array_equal(a, b)


def test_streams_of_one_thread_do_not_mix(cupy):
    stack = cupy.asarray(surface_reflectance(6, 30, 6, (64, 96)))
    whole = kernels.geomad(stack, NODATA)
    streams = [cupy.cuda.Stream(non_blocking=True) for _ in range(4)]
    cupy.cuda.get_current_stream().synchronize()
    parts = []
    for k, stream in enumerate(streams):
        with stream:
            parts.append(kernels.geomad(stack[:, :, 16 * k : 16 * k + 16, 3:90], NODATA))
    for k, stream in enumerate(streams):
        stream.synchronize()
        for got, want in zip(parts[k], whole, strict=True):
            rows = np.s_[..., 16 * k : 16 * k + 16, 3:90]
            np.testing.assert_array_equal(cupy.asnumpy(got), cupy.asnumpy(want[rows]))


@pytest.mark.parametrize("per_thread", [False, True])
def test_a_launch_does_not_wait(cupy, per_thread):
    """Also on the stream that CuPy has for each thread."""
    busy = cupy.RawKernel(BUSY, "busy")
    stack, src, mask = map(cupy.asarray, given())
    lattice = refine(shifted, (600, 600))
    want = block_of_a_tile(stack, src, mask, lattice)  # compiled
    cupy.cuda.get_current_stream().synchronize()
    stream = cupy.cuda.Stream.ptds if per_thread else cupy.cuda.Stream(non_blocking=True)
    with stream:
        busy((1,), (1,), ())
        got = block_of_a_tile(stack, src, mask, lattice)
        assert not stream.done
        stream.synchronize()
    for a, b in zip((*got[0], *got[1:]), (*want[0], *want[1:]), strict=True):
        np.testing.assert_array_equal(cupy.asnumpy(a), cupy.asnumpy(b))


def test_pinned_uploads_on_rotating_streams(cupy):
    """Inputs that are on their way while the kernel is being queued."""
    stacks = [surface_reflectance(seed, 20, 6, (48, 64)) for seed in range(3)]
    want = [kernels.geomad(s, NODATA) for s in stacks]
    pinned = []
    for stack in stacks:
        memory = cupy.cuda.alloc_pinned_memory(stack.nbytes)
        host = np.frombuffer(memory, stack.dtype, stack.size).reshape(stack.shape)
        host[...] = stack
        pinned.append(host)
    streams = [cupy.cuda.Stream(non_blocking=True) for _ in range(2)]
    results = []
    for turn in range(12):
        with streams[turn % 2]:
            device = cupy.empty(stacks[0].shape, np.int16)
            device.set(pinned[turn % 3])
            results.append(kernels.geomad(device, NODATA))
    for stream in streams:
        stream.synchronize()
    for turn, got in enumerate(results):
        np.testing.assert_array_equal(cupy.asnumpy(got.count), want[turn % 3].count)
        far = np.abs(cupy.asnumpy(got.geomedian) - want[turn % 3].geomedian) > 0.2
        assert far.mean() < 2e-3


def test_arrays_of_another_device(cupy):
    """Kernels run where their arrays are, whatever device is current."""
    if cupy.cuda.runtime.getDeviceCount() < 2:
        pytest.skip("one GPU only")
    stack = surface_reflectance(3, 25, 6, (32, 40))
    with cupy.cuda.Device(1):
        there = cupy.asarray(stack)
        inside = kernels.geomad(there, NODATA)
        cupy.cuda.get_current_stream().synchronize()
    here = kernels.geomad(cupy.asarray(stack), NODATA)
    assert {a.device.id for a in inside} == {1}
    for a, b in zip(inside, here, strict=True):
        np.testing.assert_array_equal(cupy.asnumpy(a), cupy.asnumpy(b))
