"""Small dense algebra of one pixel on CUDA, straight-line: symmetric matrices, Cholesky, solves.

A symmetric matrix is its lower triangle, row by row. It lives either in registers, a local array, or
in a column of the pixel's memory: element q at `home + q * stride`.
"""

from __future__ import annotations

from types import ModuleType

import numpy as np

from odc_stats_gpu.kernels._cuda import device, fixed, peek_float, poke_float, pure, rsqrt, toolbox


@pure
def at(a: int, b: int) -> int:
    """Index of element (a, b) of a triangle, a >= b."""
    return a * (a + 1) // 2 + b


def algebra(P: int, stride: int) -> ModuleType:
    """Return device functions for vectors of length P and matrices P x P."""
    ZERO = np.float32(0)

    @device
    def dot(u, v):  # type: ignore[no-untyped-def]
        """u.v"""
        total = u[0] * v[0]
        for a in range(1, P):
            total += u[a] * v[a]
        return total

    @device
    def put(u, memory, home, k):  # type: ignore[no-untyped-def]
        """A vector to memory, from home + k on"""
        for a in range(P):
            poke_float(memory, home, k + a * stride, u[a])

    @device
    def get(memory, home, k, u):  # type: ignore[no-untyped-def]
        """A vector from memory, from home + k on"""
        for a in range(P):
            u[a] = peek_float(memory, home, k + a * stride)

    @device
    def accumulate(sums, e, r, r3):  # type: ignore[no-untyped-def]
        """M += r3 e e', then g += r e, in one vector."""
        for a in fixed(P):
            sums[at(P, 0) + a] += e[a] * r
            te = e[a] * r3
            for b in range(a + 1):
                sums[at(a, 0) + b] += te * e[b]

    @device
    def shifted(memory, home, W, pull, u, L):  # type: ignore[no-untyped-def]
        """L = W I - M + pull u u'"""
        for a in fixed(P):
            by = pull * u[a]
            for b in range(a + 1):
                m = peek_float(memory, home, (at(a, 0) + b) * stride)
                L[at(a, 0) + b] = by * u[b] - m
            L[at(a, a)] += W

    @device
    def factor(L, floor):  # type: ignore[no-untyped-def]
        """Cholesky in place, pivots floored: it never fails; the diagonal holds inverses."""
        for j in fixed(P):
            pivot = L[at(j, j)]
            for c in range(j):
                pivot -= L[at(j, 0) + c] * L[at(j, 0) + c]
            inverse = rsqrt(max(floor, pivot))
            L[at(j, j)] = inverse
            for a in range(j + 1, P):
                v = L[a * (a + 1) // 2 + j]
                for c in range(j):
                    v -= L[a * (a + 1) // 2 + c] * L[at(j, 0) + c]
                L[a * (a + 1) // 2 + j] = v * inverse

    @device
    def forward(L, out):  # type: ignore[no-untyped-def]
        """L out = out"""
        for a in fixed(P):
            v = out[a]
            for c in range(a):
                v -= L[at(a, 0) + c] * out[c]
            out[a] = v * L[at(a, a)]

    @device
    def backward(L, out):  # type: ignore[no-untyped-def]
        """L' out = out"""
        for k in fixed(P):
            v = out[P - 1 - k]
            for c in range(P - k, P):
                v -= L[c * (c + 1) // 2 + P - 1 - k] * out[c]
            out[P - 1 - k] = v * L[at(P - 1 - k, P - 1 - k)]

    @device
    def times(memory, home, u, out):  # type: ignore[no-untyped-def]
        """out = M u"""
        for a in fixed(P):
            total = ZERO
            for b in range(a):
                m = peek_float(memory, home, (at(a, 0) + b) * stride)
                total += m * u[b]
                out[b] += m * u[a]
            out[a] = total + peek_float(memory, home, at(a, a) * stride) * u[a]

    @device
    def quadratic(memory, home, v):  # type: ignore[no-untyped-def]
        """v'M v"""
        total = ZERO
        for a in fixed(P):
            row = ZERO
            for b in range(a):
                row += peek_float(memory, home, (at(a, 0) + b) * stride) * v[b]
            total += (row + row + peek_float(memory, home, at(a, a) * stride) * v[a]) * v[a]
        return total

    return toolbox(
        dot=dot, put=put, get=get, accumulate=accumulate, shifted=shifted,
        factor=factor, forward=forward, backward=backward, times=times, quadratic=quadratic,
    )  # fmt: skip
