"""Newton's method on CUDA for the median of a pixel's observations, one pixel per group of lanes.

The method is that of `_kink`, in float32 and with the constants of the solver's study: the nearest
sample's norm is kept exact where it holds much of the weight. Every lane sums up its own samples, the
sums are added up over the group, and then all its lanes do the same algebra in registers. A group
that is done waits, harmlessly, for the others of its warp.
"""

from __future__ import annotations

from types import ModuleType

import numpy as np
from numba import cuda, float32

from odc_stats_gpu.kernels._cuda import device, fixed, peek_float, rsqrt, toolbox

MAX_PASSES = 40
PREDICTED_ERROR = np.float32(0.01)
"""of the result, in DN, at which a pixel is done: |s|^4 S2 / s'Hs, the size of the third-order term"""
SHORT_STEP = np.float32(1e-3)
"""DN; also the distance below which a sample coincides with y"""
TRUST = np.float32(0.5)
"""longest step, in harmonic mean distances"""
KINK_SHARE = np.float32(0.15)
"""share of W above which the nearest sample is a kink"""
SECULAR_STEPS = 3
NOISE = np.float32(3e-7)
"""of a sum of unit vectors, per observation"""


def newton(P: int, share: int, A: ModuleType, G: ModuleType, S: ModuleType) -> ModuleType:
    """Return device functions for P bands and `share` pixels per warp."""
    Q = P * (P + 1) // 2
    STRIDE = S.stride
    ZERO, HALF, ONE, TWO, TEN = (np.float32(v) for v in (0, 0.5, 1, 2, 10))
    FAR = np.float32(1e38)
    SLACK = FLOOR = np.float32(1e-6)
    LEAST_CUT, MOST_CUT, TENTH = np.float32(0.3), np.float32(0.7), np.float32(0.1)
    SETTLED = LEAST_CURVATURE = np.float32(1e-5)
    OPTIMAL = np.float32(1 + 2e-6)
    NOWHERE = np.int32(-1)
    AT_S, AT_Y, AT_G, AT_R, AT_U = (Q + k * P for k in range(5))

    @device
    def sums(words, first, end, y, coincident, g, M):  # type: ignore[no-untyped-def]
        """Read a lane's samples once: fill g, M; return W, sum 1/d^2, sum d, and of the nearest."""
        e = cuda.local.array(P, float32)
        W, S2, f = ZERO, ZERO, ZERO
        near, copies, place, met = FAR, ZERO, first, ZERO
        for b in range(P):
            g[b] = ZERO
        for q in range(Q):
            M[q] = ZERO
        at = first
        while at < end:
            S.unpack(words, at, e)
            d2 = ZERO
            for b in range(P):
                e[b] -= y[b]
                d2 += e[b] * e[b]
            r = rsqrt(max(d2, coincident))
            d = d2 * r
            r += HALF * r * (ONE - d * r)  # the hardware's approximation isn't quite enough
            if d2 <= coincident:
                met += ONE
                r, d = ZERO, ZERO
            if d2 == near:
                copies += ONE
            if d2 < near:
                near, copies, place = d2, ONE, at
            r2 = r * r
            W += r
            S2 += r2
            f += d
            A.accumulate(M, g, e, r, r2 * r)
            at = np.int32(at + STRIDE)
        return W, S2, f, near, copies, place, met

    @device
    def add_up(M, g):  # type: ignore[no-untyped-def]
        """Sum over the group"""
        for b in range(P):
            g[b] = G.total(g[b])
        for a in fixed(P):
            for b in range(a + 1):
                M[a * (a + 1) // 2 + b] = G.total(M[a * (a + 1) // 2 + b])

    @device
    def went_up(f, before, slope, expected, met):  # type: ignore[no-untyped-def]
        """Whether the last step has to be taken back."""
        slack = SLACK * before
        if met > ZERO:
            bad = f > before + slack
        else:
            level = (f > before - slack) & (slope < -HALF * expected)
            bad = (slope < ZERO) & ((f > before + slack) | level)
        return bad

    @device
    def secular(memory, home, W, pull, eta, mu, steps, v):  # type: ignore[no-untyped-def]
        """Minimise eta|v| - R.v + v'(W I - M + pull u u')v/2 by Newton on 1/|v| = mu/eta.

        One step with mu = 0 solves (W I - M)v = R, none gives v = 0.
        """
        L = cuda.local.array(Q, float32)
        w = cuda.local.array(P, float32)
        for b in range(P):
            v[b] = ZERO
        while steps > 0:
            A.get(memory, np.int32(home + AT_U * share), w)
            A.shifted(memory, home, W + mu, pull, w, L)
            A.factor(L, FLOOR * (W + mu))
            A.get(memory, np.int32(home + AT_R * share), v)
            A.forward(L, v)
            A.backward(L, v)
            steps = np.int32(steps - 1)
            if steps > 0:
                for b in range(P):
                    w[b] = v[b]
                A.forward(L, w)
                inverse = rsqrt(A.dot(v, v))
                gap = inverse - mu / eta
                tilt = A.dot(w, w) * inverse * inverse * inverse - ONE / eta
                new = mu - gap / tilt if tilt < ZERO else TWO * mu
                new = min(max(new, TENTH * mu), TEN * mu)
                if abs(new - mu) < SETTLED * mu:
                    steps = np.int32(0)
                mu = new

    @device
    def median(words, first, end, lane, n, unit, memory, home, y):  # type: ignore[no-untyped-def]
        """Move y from the mean of n > 2 samples to their geometric median."""
        at_y, at_s = np.int32(home + AT_Y * share), np.int32(home + AT_S * share)
        at_g, at_R = np.int32(home + AT_G * share), np.int32(home + AT_R * share)
        at_u = np.int32(home + AT_U * share)
        have, again = False, False  # a step to judge; one that was taken back altogether
        rejected, passes, refuted = np.int32(0), np.int32(0), NOWHERE
        expected, before = ZERO, ZERO
        active = n > 2
        while G.anyone(active):
            g = cuda.local.array(P, float32)
            M = cuda.local.array(Q, float32)
            coincident = (SHORT_STEP * unit) * (SHORT_STEP * unit)
            number = np.float32(n)
            stop = end if active else first
            W, S2, f, near, copies, place, met = sums(words, first, stop, y, coincident, g, M)
            W, S2, f, met = G.total(W), G.total(S2), G.total(f), G.total(met)
            near, copies, place = G.nearest(near, copies, place)
            add_up(M, g)
            passes = np.int32(passes + 1)
            if active:
                x = cuda.local.array(P, float32)
                v = cuda.local.array(P, float32)
                A.put_matrix(M, memory, home)
                A.put(g, memory, at_g)
                gg = A.dot(g, g)
                eta, distance = copies, ZERO
                if met > ZERO:
                    S.unpack(words, place, y)
                    eta = met
                    refuted = place
                    active = gg > (eta * OPTIMAL) * (eta * OPTIMAL)  # else no way leads down
                else:
                    distance = near * rsqrt(near)
                    active = gg > NOISE * NOISE * number * number
                A.put(y, memory, at_y)
                bad = False
                slope = ZERO
                if active & have:
                    for b in range(P):
                        slope += g[b] * peek_float(memory, at_s, b * share)
                    bad = went_up(f, before, slope, expected, met)
                if bad:
                    rejected = np.int32(rejected + 1)
                    cut = LEAST_CUT
                    if met == ZERO:
                        cut = min(max(expected / (expected - slope), LEAST_CUT), MOST_CUT)
                    if (rejected == 4) | (passes == MAX_PASSES):
                        cut = ZERO
                        have, again = False, True
                        rejected = np.int32(0)
                    expected *= cut
                    G.settle(lane)
                    for b in range(P):
                        s = peek_float(memory, at_s, b * share)
                        y[b] += (cut - ONE) * s
                        v[b] = cut * s
                    G.settle(lane)
                    A.put(v, memory, at_s)
                elif active & (again | (passes == MAX_PASSES)):  # a short step, always down
                    have, again = False, False
                    for b in range(P):
                        y[b] += g[b] / W
                elif active:
                    rejected = np.int32(0)
                    Wr, S2r, pull = W, S2, ZERO
                    kink = (met > ZERO) | (eta > KINK_SHARE * W * distance)
                    steps, mu = np.int32(1), ZERO
                    if kink:
                        for b in range(P):
                            v[b] = g[b]
                        if met == ZERO:  # take the nearest sample out, expand the rest at it
                            pull = eta / distance
                            S.unpack(words, place, x)
                            for b in range(P):
                                x[b] = (x[b] - y[b]) / distance
                            A.put(x, memory, at_u)
                            A.times(memory, home, x, v)
                            for b in range(P):
                                v[b] = g[b] - eta * x[b] - distance * (W * x[b] - v[b])
                            Wr = max(W - pull, FLOOR * W)
                            S2r = S2 - eta / near
                        S2r = max(S2r, Wr * Wr / number)
                        size2 = A.dot(v, v)
                        if size2 > eta * eta:
                            steps = np.int32(SECULAR_STEPS)
                            mu = pull
                            if met > ZERO:
                                size = size2 * rsqrt(size2)
                                least = Wr - A.quadratic(memory, home, v) / size2
                                mu = max(least, LEAST_CURVATURE * Wr) * eta / (size - eta)
                            A.put(v, memory, at_R)
                        elif (met == ZERO) & (place == refuted):
                            # this sample was tried and isn't optimal: step past it
                            Wr, S2r, pull = W, S2, ZERO
                            kink = False
                        else:
                            steps = np.int32(0)
                    if kink == False:  # noqa: E712 - Numba's `not` is a branch
                        A.put(g, memory, at_R)
                    if pull == ZERO:
                        for b in range(P):
                            x[b] = ZERO
                        A.put(x, memory, at_u)
                    probe = kink & (steps == 0) & (met == ZERO)  # the next pass decides
                    G.settle(lane)
                    secular(memory, home, Wr, pull, eta, mu, steps, v)
                    G.settle(lane)
                    A.get(memory, at_y, y)
                    A.get(memory, at_g, g)
                    if kink:
                        S.unpack(words, place, x)
                        for b in range(P):
                            v[b] += x[b] - y[b]
                        A.get(memory, at_u, x)
                        along = A.dot(x, v)
                        curvature = (
                            Wr * A.dot(v, v) - A.quadratic(memory, home, v) + pull * along * along
                        )
                    else:
                        curvature = A.dot(g, v)
                    length2 = A.dot(v, v)
                    limit = TRUST * number / W
                    whole = probe | (length2 <= limit * limit)
                    error = length2 * S2r * length2
                    bound = PREDICTED_ERROR * unit * max(curvature, FLOOR * W * length2)
                    certain = (error < bound) & (kink | (length2 < HALF * HALF * near))
                    done = whole & ((length2 < coincident) | certain)
                    active = probe | (done == False)  # noqa: E712
                    cut = ONE
                    if whole == False:  # noqa: E712
                        cut = limit * rsqrt(length2)
                    expected, before, have = cut * A.dot(g, v), f, met == ZERO
                    for b in range(P):
                        v[b] *= cut
                        y[b] += v[b]
                    A.put(v, memory, at_s)
                    if probe:
                        S.unpack(words, place, y)
                if passes == MAX_PASSES:
                    active = False
            G.meet()

    return toolbox(median=median)
