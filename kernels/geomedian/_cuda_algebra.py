"""Small dense algebra of one pixel on CUDA, straight-line: symmetric matrices, Cholesky, solves.

A symmetric matrix is the lower triangle, row by row: element (a, b) at a(a+1)/2 + b. It lives either
in registers (a local array whose indices are constants) or in a column of shared memory: element q at
`home + q * stride`.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from odc_stats_gpu.kernels._cuda import chained, device, rsqrt, summed


def at(a: int, b: int) -> int:
    """Index of element (a, b), a >= b."""
    return a * (a + 1) // 2 + b


def algebra(P: int, stride: int) -> SimpleNamespace:
    """Return device functions for vectors of length P and matrices P x P."""
    ZERO = np.float32(0)

    @device
    def dot(u, v):  # type: ignore[no-untyped-def]
        total = ZERO
        for a in range(P):
            total += u[a] * v[a]
        return total

    def accumulate(a):  # type: ignore[no-untyped-def]
        row = at(a, 0)

        def add_row(M, g, e, r, r3):  # type: ignore[no-untyped-def]
            g[a] += e[a] * r
            te = e[a] * r3
            for b in range(a + 1):
                M[row + b] += te * e[b]

        return add_row

    def store(a):  # type: ignore[no-untyped-def]
        row = at(a, 0)

        def store_row(M, memory, home):  # type: ignore[no-untyped-def]
            for b in range(a + 1):
                memory[home + (row + b) * stride] = M[row + b]

        return store_row

    def load(a):  # type: ignore[no-untyped-def]
        row = at(a, 0)

        def load_row(memory, home, W, L):  # type: ignore[no-untyped-def]
            for b in range(a):
                L[row + b] = -memory[home + (row + b) * stride]
            L[row + a] = W - memory[home + (row + a) * stride]

        return load_row

    def factor(j):  # type: ignore[no-untyped-def]
        pivot = at(j, j)

        def eliminate(L, floor):  # type: ignore[no-untyped-def]
            v = L[pivot]
            for c in range(j):
                v -= L[pivot - j + c] * L[pivot - j + c]
            inverse = rsqrt(v if v > floor else floor)
            L[pivot] = inverse
            for a in range(j + 1, P):
                v = L[a * (a + 1) // 2 + j]
                for c in range(j):
                    v -= L[a * (a + 1) // 2 + c] * L[pivot - j + c]
                L[a * (a + 1) // 2 + j] = v * inverse

        return eliminate

    def forward(a):  # type: ignore[no-untyped-def]
        row = at(a, 0)

        def substitute(L, right, out):  # type: ignore[no-untyped-def]
            v = right[a]
            for c in range(a):
                v -= L[row + c] * out[c]
            out[a] = v * L[row + a]

        return substitute

    def backward(k):  # type: ignore[no-untyped-def]
        a = P - 1 - k

        def substitute(L, out):  # type: ignore[no-untyped-def]
            v = out[a]
            for c in range(a + 1, P):
                v -= L[c * (c + 1) // 2 + a] * out[c]
            out[a] = v * L[at(a, a)]

        return substitute

    down, up = chained(forward, P), chained(backward, P)

    @device
    def solve(L, right, out):  # type: ignore[no-untyped-def]
        down(L, right, out)
        up(L, out)

    def shift(a):  # type: ignore[no-untyped-def]
        row = at(a, 0)

        def shift_row(memory, home, u, by):  # type: ignore[no-untyped-def]
            for b in range(a + 1):
                memory[home + (row + b) * stride] += by * u[a] * u[b]

        return shift_row

    def times(a):  # type: ignore[no-untyped-def]
        row = at(a, 0)

        def times_row(memory, home, W, u, out):  # type: ignore[no-untyped-def]
            total = (W - memory[home + (row + a) * stride]) * u[a]
            for b in range(a):
                m = memory[home + (row + b) * stride]
                total -= m * u[b]
                out[b] -= m * u[a]
            out[a] = total

        return times_row

    def quadratic(a):  # type: ignore[no-untyped-def]
        row = at(a, 0)

        def quadratic_row(memory, home, W, v):  # type: ignore[no-untyped-def]
            total = ZERO
            for b in range(a):
                total -= memory[home + (row + b) * stride] * v[b]
            return v[a] * (total + total + (W - memory[home + (row + a) * stride]) * v[a])

        return quadratic_row

    return SimpleNamespace(
        dot=dot,  # (u, v): u.v
        accumulate=chained(accumulate, P),  # (M, g, e, r, r3): M += r3 e e', g += r e
        store=chained(store, P),  # (M, memory, home): registers to shared memory
        load=chained(load, P),  # (memory, home, W, L): L = W I - M
        factor=chained(factor, P),  # (L, floor): Cholesky in place, diagonal inverse, pivots floored
        solve=solve,  # (L, right, out): L L' out = right
        shift=chained(shift, P),  # (memory, home, u, by): M += by u u'
        times=chained(times, P),  # (memory, home, W, u, out): out = (W I - M) u
        quadratic=summed(quadratic, P),  # (memory, home, W, v): v'(W I - M) v
    )
