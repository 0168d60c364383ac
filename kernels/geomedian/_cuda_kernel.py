"""The CUDA kernel: validity, compaction, geometric median and three MADs of a pixel, all on chip.

A group of 1 to 32 lanes shares a pixel. They read its dates once, keep the valid ones in shared
memory as they came (16-bit integers stay that), and go through them a few times: the mean, Newton
passes, distances, bisections. Every lane sums its own observations; sums are added up over the group
and every lane then does the pixel's algebra in registers. Newton's method is the one of `_kink`, in
float32: the nearest sample's norm is kept exact where it holds much of the weight.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from numba import cuda, float32, int32

from odc_stats_gpu.kernels._cuda import WARP, chained, rsqrt
from odc_stats_gpu.kernels.geomedian._cuda_algebra import algebra
from odc_stats_gpu.kernels.geomedian._cuda_groups import groups
from odc_stats_gpu.kernels.geomedian._cuda_mads import mads
from odc_stats_gpu.kernels.geomedian._cuda_samples import samples

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


def vectors(P: int) -> int:
    """float32 numbers per pixel that stay in shared memory: the Hessian and the last step."""
    return P * (P + 1) // 2 + P


@cache
def geomad_kernel(P: int, lanes: int, kind: str, *, on_chip: bool) -> Callable[..., None]:
    """Return the kernel for P bands, `lanes` per pixel, stacks of `kind`, as a plain function.

    Its arguments:
        stack: (band, date, y, x), any strides; float32 as int32 bits.
        missing: tuple of P int32: a band's missing value (float32: its bits), or one it can't have.
        unit: length of 1 DN. shift: offset/scale.
        scratch: int32, where observations go if not on chip: as many words per warp.
        geomedian, smad, emad, bcmad: float32 (band, pixel) and (pixel,). count: uint16 (pixel,).

    Any grid and any block of whole warps will do. Dynamic shared memory: `warp_words` of `_cuda_plan`
    per warp.
    """
    Q = P * (P + 1) // 2
    share = WARP // lanes  # pixels of a warp
    A, G, S, D = algebra(P, share), groups(lanes), samples(P, kind), mads(P, lanes, kind)

    def add_up_row(a):  # type: ignore[no-untyped-def]
        row = a * (a + 1) // 2

        def add_up_row(M, g):  # type: ignore[no-untyped-def]
            g[a] = G.total(g[a])
            for b in range(a + 1):
                M[row + b] = G.total(M[row + b])

        return add_up_row

    add_up = chained(add_up_row, P)
    STRIDE = S.stride
    WORDS = STRIDE // WARP
    NUMBERS = vectors(P) * share
    ZERO, ONE, HALF = np.float32(0), np.float32(1), np.float32(0.5)
    FAR = np.float32(1e38)
    NAN = np.float32(np.nan)
    LITTLE = np.float32(1e-6)
    TENTH, TEN, TWO = np.float32(0.1), np.float32(10), np.float32(2)
    LEAST_CUT, MOST_CUT = np.float32(0.3), np.float32(0.7)
    SETTLED, LEAST_CURVATURE, OPTIMAL = np.float32(1e-5), np.float32(1e-5), np.float32(1 + 2e-6)
    SLACK = np.float32(1e-6)

    def kernel(stack, missing, unit, shift, scratch, geomedian, smad, emad, bcmad, count):  # type: ignore[no-untyped-def]
        shared = cuda.shared.array(0, int32)
        memory = cuda.shared.array(0, float32)
        lane = cuda.threadIdx.x % WARP
        warp = cuda.threadIdx.x // WARP
        warps = cuda.blockDim.x // WARP
        sub = lane % lanes
        dates, height, width = stack.shape[1], stack.shape[2], stack.shape[3]
        pixels = height * width
        capacity = (dates + lanes - 1) // lanes * STRIDE
        if on_chip:
            words = shared
            base = warp * (capacity + NUMBERS)
            home = base + capacity + lane // lanes
        else:
            words = scratch
            base = (cuda.blockIdx.x * warps + warp) * capacity
            home = warp * NUMBERS + lane // lanes
        mine = base + lane * WORDS
        step_home = home + Q * share
        x = cuda.local.array(P, float32)
        y = cuda.local.array(P, float32)
        g = cuda.local.array(P, float32)
        R = cuda.local.array(P, float32)
        v = cuda.local.array(P, float32)
        w = cuda.local.array(P, float32)
        M = cuda.local.array(Q, float32)
        value = cuda.local.array(P, int32)
        coincident = (SHORT_STEP * unit) * (SHORT_STEP * unit)

        tile = cuda.blockIdx.x
        while tile * warps * share < pixels:
            pixel = (tile * warps + warp) * share + lane // lanes
            inside = pixel < pixels
            tile += cuda.gridDim.x

            # -- read the dates once, keep the valid ones
            n = 0
            i, j = pixel // width, pixel % width
            G.meet()
            for t0 in range(0, dates, lanes):
                t = t0 + sub
                valid = False
                if inside and t < dates:
                    valid = S.read(stack, t, i, j, missing, value)
                before_me, found = G.place(valid, lane)
                if valid:
                    slot = n + before_me
                    S.pack(
                        value,
                        words,
                        base + slot // lanes * STRIDE + (lane - sub + slot % lanes) * WORDS,
                    )
                n += found
            G.meet()
            own = (n - sub + lanes - 1) // lanes if n > sub else 0
            end = mine + own * STRIDE

            # -- the mean: the start, and the result of one or two
            for b in range(P):
                y[b] = ZERO
            at = mine
            while at < end:
                S.unpack(words, at, x)
                for b in range(P):
                    y[b] += x[b]
                at += STRIDE
            number = np.float32(n)
            part = HALF if n == 2 else (ONE / number if n > 2 else ONE)
            for b in range(P):
                y[b] = G.total(y[b]) * part

            # -- Newton passes
            active = n > 2
            if P == 1:
                y[0] = D.ordinary_median(words, mine, end)
                active = False
            have, again = False, False  # a step to judge; a step to take back altogether
            rejected, refuted = 0, -1
            expected, before = ZERO, ZERO
            passes = 0
            while G.anyone(active):
                W, S2, f = ZERO, ZERO, ZERO
                near, copies, place, met = FAR, 0, 0, 0
                for b in range(P):
                    g[b] = ZERO
                for q in range(Q):
                    M[q] = ZERO
                at = mine if active else end
                while at < end:
                    S.unpack(words, at, x)
                    d2 = ZERO
                    for b in range(P):
                        x[b] -= y[b]
                        d2 += x[b] * x[b]
                    r = rsqrt(d2)
                    d = d2 * r
                    r += HALF * r * (ONE - d * r)
                    if d2 <= coincident:
                        met += 1
                        r = ZERO
                        d = ZERO
                    if d2 == near:
                        copies += 1
                    if d2 < near:
                        near, copies, place = d2, 1, at
                    W += r
                    r2 = r * r
                    S2 += r2
                    f += d
                    A.accumulate(M, g, x, r, r2 * r)
                    at += STRIDE
                W, S2, f = G.total(W), G.total(S2), G.total(f)
                met = G.total(met)
                near, copies, place = G.nearest(near, copies, place)
                add_up(M, g)
                if active:
                    passes += 1
                    last = passes == MAX_PASSES
                    A.store(M, memory, home)
                    gg = A.dot(g, g)
                    distance = ZERO
                    eta = np.float32(copies)
                    S.unpack(words, place, x)  # the nearest sample
                    if met > 0:
                        for b in range(P):
                            y[b] = x[b]
                        eta = np.float32(met)
                        refuted = place
                        # no step away from this sample goes down?
                        active = gg > (eta * OPTIMAL) * (eta * OPTIMAL)
                    else:
                        distance = near * rsqrt(near)
                        active = gg > NOISE * NOISE * number * number
                    bad = False
                    if active and have:
                        slope = ZERO
                        for b in range(P):
                            slope += g[b] * memory[step_home + b * share]
                        slack = SLACK * before
                        if met > 0:
                            bad = f > before + slack
                        else:
                            bad = slope < ZERO and (
                                f > before + slack
                                or (f > before - slack and slope < -HALF * expected)
                            )
                    if bad:  # take the last step back, or most of it
                        rejected += 1
                        cut = LEAST_CUT
                        if met == 0:
                            cut = expected / (expected - slope)
                            cut = min(max(cut, LEAST_CUT), MOST_CUT)
                        if rejected == 4 or last:
                            cut = ZERO
                            have, again = False, True
                            rejected = 0
                        for b in range(P):
                            s = memory[step_home + b * share]
                            y[b] += (cut - ONE) * s
                            memory[step_home + b * share] = cut * s
                        expected *= cut
                    elif active and (again or last):  # a step that always goes down
                        again = False
                        have = False
                        for b in range(P):
                            y[b] += g[b] / W
                    elif active:
                        rejected = 0
                        W0, S2r = W, S2
                        kink = met > 0 or eta > KINK_SHARE * W * distance
                        steps = 1
                        mu = ZERO
                        size = ZERO
                        for b in range(P):
                            R[b] = g[b]
                        if kink:
                            if met == 0:  # take the nearest sample out, expand the rest at it
                                pull = eta / distance
                                for b in range(P):
                                    v[b] = (x[b] - y[b]) / distance
                                W = max(W - pull, LITTLE * W0)
                                A.shift(memory, home, v, -pull)
                                A.times(memory, home, W, v, w)
                                for b in range(P):
                                    R[b] -= eta * v[b] + distance * w[b]
                                S2r = S2 - eta / near
                            S2r = max(S2r, W * W / number)
                            size2 = A.dot(R, R)
                            size = size2 * rsqrt(size2) if size2 > ZERO else ZERO
                            if size <= eta:
                                steps = 0
                                if met == 0 and place == refuted:
                                    # tried and not optimal: put it back, step past it
                                    A.shift(memory, home, v, pull)
                                    W = W0
                                    kink = False
                                    steps = 1
                                    for b in range(P):
                                        R[b] = g[b]
                            else:
                                steps = SECULAR_STEPS
                                if met > 0:
                                    mu = A.quadratic(memory, home, W, R) / size2
                                    mu = max(mu, LEAST_CURVATURE * W) * eta / (size - eta)
                                else:
                                    mu = eta / distance
                        at_sample = kink and steps == 0
                        for b in range(P):
                            v[b] = ZERO
                        while steps > 0:
                            A.load(memory, home, W + mu, M)
                            A.factor(M, LITTLE * (W + mu))
                            A.solve(M, R, v)
                            steps -= 1
                            if steps > 0:  # secular equation 1/|v| = mu/eta
                                A.solve(M, v, w)
                                inverse = rsqrt(A.dot(v, v))
                                gap = inverse - mu / eta
                                tilt = A.dot(v, w) * inverse * inverse * inverse - ONE / eta
                                new = mu - gap / tilt if tilt < ZERO else TWO * mu
                                new = min(max(new, TENTH * mu), TEN * mu)
                                if abs(new - mu) < SETTLED * mu:
                                    steps = 0
                                mu = new
                        if kink:
                            for b in range(P):
                                v[b] += x[b] - y[b]
                            curvature = A.quadratic(memory, home, W, v)
                        else:
                            curvature = A.dot(g, v)
                        length2 = A.dot(v, v)
                        limit = TRUST * number / W0
                        probe = at_sample and met == 0
                        whole = probe or length2 <= limit * limit
                        error = length2 * S2r * length2
                        bound = PREDICTED_ERROR * unit * max(curvature, LITTLE * W0 * length2)
                        close = length2 < coincident or (
                            error < bound and (kink or length2 < HALF * HALF * near)
                        )
                        active = probe or not (whole and close)
                        cut = ONE if whole else limit * rsqrt(length2)
                        for b in range(P):
                            s = cut * v[b]
                            memory[step_home + b * share] = s
                            y[b] = x[b] if probe else y[b] + s
                        expected = cut * A.dot(g, v)
                        before = f
                        have = met == 0
                    if last:
                        active = False

            # -- the distances take the observations' place; their medians
            D.distances(words, mine, end, y, shift)
            spread, angle, ratio = D.medians(words, mine, end)
            if inside and sub == 0:
                for b in range(P):
                    geomedian[b, pixel] = y[b] if n > 0 else NAN
                smad[pixel] = angle
                emad[pixel] = spread
                bcmad[pixel] = ratio
                count[pixel] = n

    kernel.__name__ = f"geomad_{kind}_{P}_bands_{lanes}_lanes{'' if on_chip else '_off_chip'}"
    return kernel

