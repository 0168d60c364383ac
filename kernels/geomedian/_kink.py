"""The careful path, one pixel in float64: Newton with the nearest sample's norm exact.

Near a sample the quadratic model is wrong: |y - x_k| has a kink there. Where the nearest sample
holds more than a share of W = sum 1/d, the model `eta |v| - R.v + v'H v/2`, v = y - x_k, is
minimised instead, R and H of the others. Its solution is v = 0 iff |R| <= eta, the optimality
condition of Vardi and Zhang (2000): jumping to a sample, leaving it and approaching it are
one formula. Tolerances are in units of 1 DN.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from odc_stats_gpu.kernels._jit import inlined

MAX_PASSES = 60
PREDICTED_ERROR = 1e-6
COINCIDENT = 1e-9
SHORT_STEP = 1e-5
TRUST = 0.5
KINK_SHARE = 0.15
SECULAR_STEPS = 4


@inlined
def copy(a: Any, b: Any) -> None:
    """Put a into b; a slice assignment would compile a shape check and its message."""
    for k in range(b.size):
        b[k] = a[k]


@inlined
def fill(a: Any, value: Any) -> None:
    """Put a number into every element."""
    for k in range(a.size):
        a[k] = value


@inlined
def dot(a: Any, b: Any) -> Any:
    """Return a.b."""
    total = 0.0
    for k in range(a.size):
        total += a[k] * b[k]
    return total


@inlined
def times_hessian(M: Any, W: Any, v: Any, out: Any) -> None:
    """Return (W I - M) v in `out`."""
    for a in range(v.size):
        total = W * v[a]
        for b in range(v.size):
            total -= M[a, b] * v[b]
        out[a] = total


@inlined
def factor(M: Any, W: Any, L: Any) -> None:
    """Cholesky factor of W I - M, pivots floored; its diagonal holds the inverses."""
    floor = 1e-9 * W
    for a in range(L.shape[0]):
        for b in range(a + 1):
            v = W - M[a, a] if a == b else -M[a, b]
            for c in range(b):
                v -= L[a, c] * L[b, c]
            L[a, b] = 1.0 / math.sqrt(max(v, floor)) if a == b else v * L[b, b]


@inlined
def solve(L: Any, right: Any, out: Any) -> None:
    """Solve L L' out = right."""
    P = right.size
    for a in range(P):
        v = right[a]
        for c in range(a):
            v -= L[a, c] * out[c]
        out[a] = v * L[a, a]
    for a in range(P - 1, -1, -1):
        v = out[a]
        for c in range(a + 1, P):
            v -= L[c, a] * out[c]
        out[a] = v * L[a, a]


@inlined
def shift_kink(M: Any, u: Any, by: Any) -> None:
    """Add `by` times u u' to M."""
    for a in range(u.size):
        for b in range(u.size):
            M[a, b] += by * u[a] * u[b]


@inlined
def kink_step(M: Any, L: Any, W: Any, R: Any, eta: Any, mu: Any, v: Any, w: Any) -> None:
    """Minimise eta|v| - R.v + v'(W I - M)v/2 where |R| > eta.

    Newton on the secular equation 1/|v| = mu/eta, (W I - M + mu I) v = R.
    """
    for k in range(SECULAR_STEPS):
        factor(M, W + mu, L)
        solve(L, R, v)
        if k == SECULAR_STEPS - 1:
            break
        solve(L, v, w)
        size = math.sqrt(dot(v, v))
        gap = 1.0 / size - mu / eta
        slope = dot(v, w) / (size * size * size) - 1.0 / eta
        new = mu - gap / slope if slope < 0 else 2 * mu
        new = min(max(new, 0.1 * mu), 10 * mu)
        if abs(new - mu) < 1e-7 * mu:
            break
        mu = new


@inlined
def sums(x: Any, n: Any, y: Any, coincident: Any, e: Any, g: Any, M: Any) -> Any:
    """Read the samples once and fill g and M.

    Returns W, sum 1/d^2, f, the least d^2, its sample, its copies, and samples at y itself.
    """
    P = y.size
    W, S2, f, nearest, k, copies, met = 0.0, 0.0, 0.0, np.inf, 0, 0, 0
    fill(g, 0.0)
    for a in range(P):
        fill(M[a], 0.0)
    for i in range(n):
        d2 = 0.0
        for b in range(P):
            e[b] = x[i, b] - y[b]
            d2 += e[b] * e[b]
        if d2 <= coincident:
            if met == 0:
                k = i
            met += 1
            continue
        if met == 0:
            if d2 < nearest:
                nearest, k, copies = d2, i, 1
            elif d2 == nearest:
                copies += 1
        r = 1.0 / math.sqrt(d2)
        r3 = r / d2
        W += r
        S2 += r * r
        f += d2 * r
        for a in range(P):
            g[a] += e[a] * r
            te = e[a] * r3
            for b in range(a + 1):
                M[a, b] += te * e[b]
    for a in range(P):
        for b in range(a):
            M[b, a] = M[a, b]
    return W, S2, f, nearest, k, copies, met


@inlined
def kink_newton(x: Any, n: Any, unit: Any, y: Any, room: Any) -> Any:
    """Move `y` to the geometric median of the first n > 2 samples x (., p).

    unit: length of 1 DN. room: scratch (2p + 9, p).
    """
    P = y.size
    M, L = room[:P], room[P : 2 * P]
    g, gp, s, yp, u = (
        room[2 * P],
        room[2 * P + 1],
        room[2 * P + 2],
        room[2 * P + 3],
        room[2 * P + 4],
    )
    R, v, w, e = room[2 * P + 5], room[2 * P + 6], room[2 * P + 7], room[2 * P + 8]
    coincident = (COINCIDENT * unit) ** 2
    Wp, fp, have, rejected, refuted = 0.0, 0.0, False, 0, -1
    copy(y, yp)
    fill(gp, 0.0)
    fill(s, 0.0)
    for _ in range(MAX_PASSES):
        W, S2, f, nearest, k, copies, met = sums(x, n, y, coincident, e, g, M)
        distance = 0.0 if met else math.sqrt(nearest)
        gg = dot(g, g)
        eta = float(copies)
        if met:
            copy(x[k], y)
            eta = float(met)
            refuted = k
            if math.sqrt(gg) <= eta * (1 + 1e-10):
                return  # no step away from this sample goes down
        elif gg <= 1e-28 * n * n:
            return
        if have:  # take the last step back if it went up
            a, b, slack = dot(gp, s), dot(g, s), 1e-12 * fp
            if met:
                bad = f > fp + slack
            else:
                bad = b < 0 and (f > fp + slack or (f > fp - slack and b < -0.5 * a))
            if bad:
                rejected += 1
                have = rejected < 4
                part = 0.3 if met else min(max(a / (a - b), 0.3), 0.7)
                for j in range(P):
                    s[j] = s[j] * part if have else gp[j] / Wp  # the latter always goes down
                    y[j] = yp[j] + s[j]
                if not have:
                    rejected = 0
                continue
        rejected = 0
        W0, S2r = W, S2
        kink = met > 0 or eta > KINK_SHARE * W * distance
        at_sample = False
        if kink:
            copy(g, R)
            if not met:  # take the nearest sample out of g, W and M; expand the rest at that sample
                pull = eta / distance
                for j in range(P):
                    u[j] = (x[k, j] - y[j]) / distance
                W = max(W - pull, 1e-9 * W0)
                shift_kink(M, u, -pull)
                times_hessian(M, W, u, w)
                for j in range(P):
                    R[j] -= eta * u[j] + distance * w[j]
                S2r = S2 - eta / nearest
            S2r = max(S2r, W * W / n)
            size = math.sqrt(dot(R, R))
            at_sample = size <= eta
            if at_sample:
                fill(v, 0.0)
            else:
                times_hessian(M, W, R, w)
                if met:
                    mu = max(dot(R, w) / (size * size), 1e-5 * W) * eta / (size - eta)
                else:
                    mu = eta / distance
                kink_step(M, L, W, R, eta, mu, v, w)
        if not kink or (at_sample and not met and k == refuted):
            if kink:  # this sample was tried and is not optimal: put it back, step past it
                shift_kink(M, u, eta / distance)
                W, kink, at_sample = W0, False, False
            factor(M, W, L)
            solve(L, g, s)
            curvature = dot(g, s)
        else:
            for j in range(P):
                s[j] = x[k, j] - y[j] + v[j]
            times_hessian(M, W, s, w)
            curvature = dot(s, w)
        length2 = dot(s, s)
        length = math.sqrt(length2)
        limit = TRUST * n / W0
        probe = kink and at_sample and not met and k != refuted
        whole = probe or length <= limit
        part = 1.0 if whole else limit / length
        for j in range(P):
            s[j] *= part
            yp[j] = y[j]
            gp[j] = g[j]
            y[j] = x[k, j] if probe else y[j] + s[j]
        Wp, fp, have = W0, f, met == 0
        if probe:
            continue  # the next pass decides whether the sample is the median
        error = length2 * S2r * length2
        bound = PREDICTED_ERROR * unit * max(curvature, 1e-9 * W0 * length2)
        if whole and (
            length < SHORT_STEP * unit or (error < bound and (kink or length < 0.5 * distance))
        ):
            return
    for j in range(P):  # budget spent: last accepted point and one step that goes down
        y[j] = yp[j] + gp[j] / Wp if Wp > 0 else y[j]
