"""The host runtime of CUDA kernels does what a GPU does, and catches what it punishes."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("numba_cuda", reason="the CUDA wheels are not installed")

import sass
from cudahost import HostKernel, runtime
from numba import cuda, float32, types

F1 = types.Array(types.float32, 1, "C")
FULL = 0xFFFFFFFF


def test_a_block_reduces_through_shared_memory_and_an_atomic():
    def blocksum(a, out):
        cache = cuda.shared.array(256, float32)
        tid, i = cuda.threadIdx.x, cuda.grid(1)
        cache[tid] = a[i] if i < a.shape[0] else float32(0)
        cuda.syncthreads()
        half = 128
        while half > 0:
            if tid < half:
                cache[tid] += cache[tid + half]
            cuda.syncthreads()
            half //= 2
        if tid == 0:
            cuda.atomic.add(out, 0, cache[0])

    kernel, out = HostKernel(blocksum, (F1, F1)), np.zeros(1, "f4")
    assert kernel.shared_bytes == 1024
    assert kernel(4, 256, np.arange(1000, dtype="f4"), out) == ""
    assert out[0] == 499500


def test_a_warp_reduces_by_shuffles_and_votes():
    def warps(a, out):
        value, mask = a[cuda.grid(1)], 16
        while mask:
            value += cuda.shfl_xor_sync(FULL, value, mask)
            mask >>= 1
        odd = cuda.popc(cuda.ballot_sync(FULL, cuda.laneid % 2 == 1))
        if cuda.laneid == 0:
            out[cuda.grid(1) // 32] = value + odd

    kernel, a, out = HostKernel(warps, (F1, F1)), np.arange(1024, dtype="f4"), np.zeros(32, "f4")
    kernel(4, 256, a, out)
    np.testing.assert_array_equal(out, a.reshape(-1, 32).sum(axis=1) + 16)
    assert runtime().ch_switches() > 0


def test_shuffles_up_and_down_keep_their_own_value_at_the_rim():
    def shift(a, out):
        i = cuda.grid(1)
        out[i] = cuda.shfl_up_sync(FULL, a[i], 3) - cuda.shfl_down_sync(FULL, a[i], 5)

    a, out = np.arange(32, dtype="f4"), np.zeros(32, "f4")
    HostKernel(shift, (F1, F1))(1, 32, a, out)
    lanes = np.arange(32)
    up, down = np.where(lanes < 3, lanes, lanes - 3), np.where(lanes > 26, lanes, lanes + 5)
    np.testing.assert_array_equal(out, up - down)


def test_a_missing_barrier_shows_as_poison():
    def reverse(a, out):
        cache = cuda.shared.array(64, float32)
        tid = cuda.threadIdx.x
        cache[tid] = a[tid]
        out[tid] = cache[63 - tid]

    out = np.zeros(64, "f4")
    HostKernel(reverse, (F1, F1))(1, 64, np.ones(64, "f4"), out)
    assert np.isnan(out[:32]).all()


def test_arrays_of_dynamic_shared_memory_are_one_and_end_where_the_launch_says():
    def both(places, out):
        numbers = cuda.shared.array(0, float32)
        words = cuda.shared.array(0, types.int32)
        words[cuda.threadIdx.x] = 0x3F800000  # the bits of 1
        cuda.syncthreads()
        numbers[places[cuda.threadIdx.x]] = numbers[31 - cuda.threadIdx.x] + float32(1)
        cuda.syncthreads()
        out[cuda.threadIdx.x] = numbers[cuda.threadIdx.x + 32]

    kernel, out = HostKernel(both, (types.Array(types.int32, 1, "C"), F1)), np.zeros(32, "f4")
    places = np.arange(32, 64, dtype="i4")
    kernel(1, 32, places, out, shared=256)
    assert (out == 2).all()
    with pytest.raises(RuntimeError, match="behind its shared memory"):
        kernel(1, 32, places + 1, out, shared=256)


def test_a_tuple_is_its_items():
    def pick(pair, out):
        out[cuda.threadIdx.x] = pair[0] - pair[1]

    out = np.zeros(3, "f4")
    HostKernel(pick, (types.UniTuple(float32, 2), F1))(1, 3, (np.float32(5), np.float32(3)), out)
    assert (out == 2).all()


def test_a_race_shows_when_threads_run_in_another_order():
    def last_wins(out):
        cell = cuda.shared.array(1, types.int32)
        cell[0] = cuda.threadIdx.x
        cuda.syncthreads()
        out[cuda.threadIdx.x] = cell[0]

    kernel, out = HostKernel(last_wins, (types.Array(types.int32, 1, "C"),)), np.zeros(8, "i4")
    kernel(1, 8, out)
    assert (out == 7).all()
    runtime().ch_order(1)
    try:
        kernel(1, 8, out)
    finally:
        runtime().ch_order(0)
    assert (out == 0).all()


def test_a_divergent_shuffle_is_a_deadlock():
    def divergent(a, out):
        if cuda.threadIdx.x < 16:
            out[cuda.threadIdx.x] = cuda.shfl_down_sync(FULL, a[cuda.threadIdx.x], 1)
        cuda.syncthreads()

    kernel = HostKernel(divergent, (F1, F1))
    with pytest.raises(RuntimeError, match="deadlock in block"):
        kernel(1, 32, np.ones(64, "f4"), np.zeros(64, "f4"))


def test_a_barrier_that_some_threads_left_is_reported():
    def leaving(out):
        if cuda.threadIdx.x < 8:
            return
        cuda.syncthreads()
        out[cuda.threadIdx.x] = 1

    assert "8 threads left" in HostKernel(leaving, (F1,))(1, 32, np.zeros(32, "f4"))


def test_arrays_of_the_wrong_type_are_refused():
    def copy(a, out):
        out[cuda.grid(1)] = a[cuda.grid(1)]

    kernel = HostKernel(copy, (F1, F1))
    with pytest.raises(TypeError, match="int16"):
        kernel(1, 8, np.zeros(8, "i2"), np.zeros(8, "f4"))
    with pytest.raises(TypeError, match="strided"):
        kernel(1, 8, np.zeros(16, "f4")[::2], np.zeros(8, "f4"))


def test_what_is_not_modelled_is_refused():
    def clock(out):
        cuda.nanosleep(types.uint32(1))  # has no meaning on fibers
        out[0] = 1

    with pytest.raises(Exception, match=r"nanosleep|modelled|inline"):
        HostKernel(clock, (F1,))


@pytest.mark.parametrize("cc", sass.TARGETS, ids=lambda cc: f"sm_{cc[0]}{cc[1]}")
def test_the_cost_of_a_known_loop_is_counted(cc):
    def dot(a, b, out):
        total = float32(0)
        for i in range(cuda.threadIdx.x, a.shape[0], 32):
            total += a[i] * b[i]
        out[cuda.threadIdx.x] = total

    cost = sass.cost(dot, (F1, F1, F1), cc)
    assert 8 <= cost.registers <= 64
    assert cost.spill_loads == cost.spill_stores == 0
    assert cost.loops
    assert any(loop.count("FFMA") for loop in cost.loops)
    assert all(loop.count("LDL", "STL") == 0 for loop in cost.loops)
    assert ".f64" not in cost.ptx
