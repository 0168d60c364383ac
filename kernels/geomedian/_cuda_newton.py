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

from odc_stats_gpu.kernels._cuda import (
    WARP,
    device,
    forget,
    peek,
    peek_float,
    poke,
    poke_float,
    rsqrt,
    toolbox,
)
from odc_stats_gpu.kernels.geomedian._cuda_plan import padded_sums, sums_per_pixel

MAX_PASSES = 40
PREDICTED_ERROR = np.float32(0.01)
"""of the result, in DN, at which a pixel is done: |s|^4 S2 / s'Hs, the size of the third-order term"""
NARROW = np.float32(2e-4)
"""the same in longest steps: where observations are a DN apart, a hundredth of one is a lot"""
SHORT_STEP = np.float32(1e-3)
"""DN; also the distance below which a sample coincides with y"""
TRUST = np.float32(0.5)
"""longest step, in harmonic mean distances"""
KINK_SHARE = np.float32(0.15)
"""share of W above which the nearest sample is a kink"""
SECULAR_STEPS = 3
NOISE = np.float32(3e-7)
"""of a sum of unit vectors, per observation"""


def newton(P: int, lanes: int, A: ModuleType, G: ModuleType, S: ModuleType) -> ModuleType:
    """Return device functions for P bands and `lanes` per pixel."""
    Q = P * (P + 1) // 2
    share = WARP // lanes
    STRIDE = S.stride
    ZERO, HALF, ONE, TWO, TEN = (np.float32(v) for v in (0, 0.5, 1, 2, 10))
    FAR = np.float32(1e38)
    SLACK = FLOOR = np.float32(1e-6)
    LEAST_CUT, MOST_CUT, TENTH = np.float32(0.3), np.float32(0.7), np.float32(0.1)
    SETTLED = LEAST_CURVATURE = np.float32(1e-5)
    OPTIMAL = np.float32(1 + 2e-6)
    NOWHERE = np.int32(-1)
    SIZE, VECTORS = sums_per_pixel(P), padded_sums(P, lanes)
    W_, S2_, F_, MET = (SIZE - k for k in (4, 3, 2, 1))
    G_ = Q * share
    S_, Y_, R_, U_ = ((VECTORS + k * P) * share for k in range(4))
    # a pixel's memory: the sums M, g, W, S2, f, met, vectors, and
    # what one pass tells the next, so that a pass has its registers to itself
    EXPECTED, BEFORE, REFUTED, REJECTED, NUMBER, PART = (
        (VECTORS + 4 * P + k) * share for k in range(6)
    )
    # steps taken back in a row, or:
    NEW, RETREATED = np.int32(-1), np.int32(-2)
    STEPPED = np.int32(0)

    @device
    def read(words, first, end, y, coincident, sums):  # type: ignore[no-untyped-def]
        """Add up M, g, W, sum 1/d^2, sum d and those at y of a lane's samples; return the nearest."""
        e = cuda.local.array(P, float32)
        near, copies, place = FAR, ZERO, first
        for q in range(SIZE):
            sums[q] = ZERO
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
                sums[MET] += ONE
                r, d = ZERO, ZERO
            if d2 == near:
                copies += ONE
            if d2 < near:
                near, copies, place = d2, ONE, at
            r2 = r * r
            sums[W_] += r
            sums[S2_] += r2
            sums[F_] += d
            A.accumulate(sums, e, r, r2 * r)
            at = np.int32(at + STRIDE)
        return near, copies, place

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
            forget()  # else the compiler keeps what it read in registers
            A.get(memory, home, U_, w)
            A.shifted(memory, home, W + mu, pull, w, L)
            A.factor(L, FLOOR * (W + mu))
            A.get(memory, home, R_, v)
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
    def median(words, first, end, lane, n, unit, memory, home, stage, y):  # type: ignore[no-untyped-def]
        """Move y from the mean of n > 2 samples to their geometric median."""
        poke(memory, home, REFUTED, NOWHERE)
        poke(memory, home, REJECTED, NEW)
        poke_float(memory, home, NUMBER, np.float32(n))
        passes = np.int32(0)
        active = n > 2
        while G.block_anyone(active):
            sums = cuda.local.array(SIZE, float32)
            g = cuda.local.array(P, float32)
            coincident = (SHORT_STEP * unit) * (SHORT_STEP * unit)
            stop = end if active else first
            near, copies, place = read(words, first, stop, y, coincident, sums)
            near, copies, place = G.nearest(near, copies, place, memory, stage, lane)
            G.add_up(sums, memory, home, stage, lane)
            passes = np.int32(passes + 1)
            forget()
            expected = peek_float(memory, home, EXPECTED)
            before = peek_float(memory, home, BEFORE)
            refuted = peek(memory, home, REFUTED)
            rejected = peek(memory, home, REJECTED)
            number = peek_float(memory, home, NUMBER)
            part = peek_float(memory, home, PART)
            A.get(memory, home, G_, g)
            W = peek_float(memory, home, W_ * share)
            S2 = peek_float(memory, home, S2_ * share)
            f = peek_float(memory, home, F_ * share)
            met = peek_float(memory, home, MET * share)
            slope = ZERO
            for b in range(P):
                slope += g[b] * peek_float(memory, home, S_ + b * share)
            slope *= part
            G.block_meet()  # all lanes of a group have read before the first of them writes
            if active:
                x = cuda.local.array(P, float32)
                v = cuda.local.array(P, float32)
                gg = A.dot(g, g)
                eta, distance = copies, ZERO
                if met > ZERO:
                    S.unpack(words, place, y)
                    eta = met
                    poke(memory, home, REFUTED, place)
                    active = gg > (eta * OPTIMAL) * (eta * OPTIMAL)  # else no way leads down
                else:
                    distance = near * rsqrt(near)
                    active = gg > NOISE * NOISE * number * number
                A.put(y, memory, home, Y_)
                bad = False
                if active & (rejected >= 0):
                    bad = went_up(f, before, slope, expected, met)
                if bad:
                    rejected = np.int32(rejected + 1)
                    cut = LEAST_CUT
                    if met == ZERO:
                        cut = min(max(expected / (expected - slope), LEAST_CUT), MOST_CUT)
                    if (rejected == 4) | (passes == MAX_PASSES):
                        cut = ZERO
                        rejected = RETREATED
                    for b in range(P):
                        y[b] += (cut - ONE) * part * peek_float(memory, home, S_ + b * share)
                    poke_float(memory, home, PART, cut * part)
                    poke_float(memory, home, EXPECTED, cut * expected)
                    poke(memory, home, REJECTED, rejected)
                elif active & ((rejected == RETREATED) | (passes == MAX_PASSES)):
                    for b in range(P):  # a short step, always down
                        y[b] += g[b] / W
                    poke(memory, home, REJECTED, NEW)
                elif active:
                    Wr, S2r, pull = W, S2, ZERO
                    kink = (met > ZERO) | (eta > KINK_SHARE * W * distance)
                    apart = kink & (met == ZERO)
                    steps, mu = np.int32(1), ZERO
                    if kink:
                        for b in range(P):
                            v[b] = g[b]
                        if apart:  # take the nearest sample out, expand the rest at it
                            pull = eta / distance
                            S.unpack(words, place, x)
                            for b in range(P):
                                x[b] = (x[b] - y[b]) / distance
                            A.put(x, memory, home, U_)
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
                            A.put(v, memory, home, R_)
                        elif (met == ZERO) & (place == refuted):
                            # this sample was tried and isn't optimal: step past it
                            Wr, S2r, pull = W, S2, ZERO
                            kink = False
                        else:
                            steps = np.int32(0)
                    if kink == False:  # noqa: E712 - Numba's `not` is a branch
                        A.put(g, memory, home, R_)
                    if apart == False:  # noqa: E712
                        for b in range(P):  # only here: a lane that lags must write what is there
                            x[b] = ZERO
                        A.put(x, memory, home, U_)
                    probe = kink & (steps == 0) & (met == ZERO)  # the next pass decides
                    secular(memory, home, Wr, pull, eta, mu, steps, v)
                    forget()
                    A.get(memory, home, Y_, y)
                    A.get(memory, home, G_, g)
                    if kink:
                        S.unpack(words, place, x)
                        for b in range(P):
                            v[b] += x[b] - y[b]
                        A.get(memory, home, U_, x)
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
                    bound = min(PREDICTED_ERROR * unit, NARROW * limit)
                    bound *= max(curvature, FLOOR * W * length2)
                    certain = (error < bound) & (kink | (length2 < HALF * HALF * near))
                    done = whole & ((length2 < coincident) | certain)
                    active = probe | (done == False)  # noqa: E712
                    cut = ONE
                    if whole == False:  # noqa: E712
                        cut = limit * rsqrt(length2)
                    poke_float(memory, home, EXPECTED, cut * A.dot(g, v))
                    poke_float(memory, home, BEFORE, f)
                    poke(memory, home, REJECTED, NEW if met > ZERO else STEPPED)
                    for b in range(P):
                        v[b] *= cut
                        y[b] += v[b]
                    A.put(v, memory, home, S_)
                    poke_float(memory, home, PART, ONE)
                    if probe:
                        S.unpack(words, place, y)
                if passes == MAX_PASSES:
                    active = False

    return toolbox(median=median)
