"""The fast path: Newton's method on eight pixels in lock-step, for medians that are near no sample.

Minimises f(y) = sum |x_i - y| with gradient -g, g = sum e/|e|, and Hessian H = W I - M,
W = sum 1/|e|, M = sum e e'/|e|^3, e = x_i - y. Lanes that meet a kink (a sample that holds much of
W), an ill-conditioned H or a step that has to be taken back are given up here and left to `_kink`.
A lane never sees its neighbours.
"""

from __future__ import annotations

from typing import Any

from odc_stats_gpu.kernels._jit import inlined
from odc_stats_gpu.kernels._lanes import any_of, f8, invert, load, rows, select, sqrt, triangle

UNROLL = 4
"""dates per pass over the accumulators; packed dates are padded to a multiple of it"""
MAX_PASSES = 16
PREDICTED_ERROR = 0.001
"""of the result, in DN, at which a lane stops: |s|^4 S2 / s'Hs, the size of the third-order term"""
SHORT_STEP = 1e-3
"""DN; also the distance below which a sample coincides with y"""
TRUST = 0.5
"""longest step, in harmonic mean distances"""
KINK_SHARE = 0.7
"""share of W above which the nearest sample is a kink. Above 0.15 the careful path's model is the
better one, but Newton still converges and its stopping rule refuses what it may not certify"""
SOUND_PIVOT = 0.02
"""least pivot of H, in W, that float32 is trusted with: below it the order of the dates starts to
show, by more than 0.001 DN. 99.8 % of real pixels are above"""


@inlined
def mean(bands: Any, x: Any, dates: Any, y: Any) -> Any:
    """Put the mean of the valid dates into `y`, NaN where there are none; return their number."""
    P = len(bands)
    count = f8(0.0)
    for b in range(P):
        y[b] = count
    for t in range(dates):
        count += load(x, t * (P + 1) + P)
        for b in range(P):
            y[b] = y[b] + load(x, t * (P + 1) + b)
    for b in range(P):
        y[b] = y[b] / count
    return count


@inlined
def dot(bands: Any, a: Any, b: Any) -> Any:
    """Return a.b."""
    total = a[0] * b[0]
    for k in range(1, len(bands)):
        total += a[k] * b[k]
    return total


@inlined
def sums(bands: Any, x: Any, dates: Any, y: Any, coincident: Any, g: Any, M: Any) -> Any:
    """Read the dates once and fill g and M.

    Returns W, sum 1/d^2, f, the least d^2, its copies, and the number of dates at y itself.
    """
    P = len(bands)
    e = rows(bands, 4)
    r3 = rows((0,), 4)
    te = rows((0,), 4)
    zero = f8(0.0)
    W, S2, f, copies, met = zero, zero, zero, zero, zero
    nearest = zero + 1e38
    for b in range(P):
        g[b] = zero
    for q in range(P * (P + 1) // 2):
        M[q] = zero
    for t in range(0, dates, UNROLL):
        for u in range(UNROLL):
            d2 = zero
            for b in range(P):
                v = load(x, (t + u) * (P + 1) + b) - y[b]
                e[u * P + b] = v
                d2 += v * v
            w = load(x, (t + u) * (P + 1) + P)
            apart = d2 > coincident
            r = select(apart, w / sqrt(d2), zero)
            met += select(apart, zero, w)
            near = select(r > 0.0, d2, 2e38)
            copies = select(near < nearest, 1.0, copies + select(near == nearest, 1.0, zero))
            nearest = select(near < nearest, near, nearest)
            W += r
            S2 += r * r
            f += d2 * r
            r3[u] = r * r * r
            for b in range(P):
                g[b] = g[b] + e[u * P + b] * r
        q = 0
        for a in range(P):
            for u in range(UNROLL):
                te[u] = e[u * P + a] * r3[u]
            for b in range(a + 1):
                total = M[q]
                for u in range(UNROLL):
                    total += te[u] * e[u * P + b]
                M[q] = total
                q += 1
    return W, S2, f, nearest, copies, met


@inlined
def newton_step(bands: Any, M: Any, W: Any, g: Any, L: Any, inverse: Any, s: Any) -> Any:
    """Solve (W I - M) s = g by Cholesky, pivots floored; return whether all pivots are sound."""
    P = len(bands)
    floor = W * SOUND_PIVOT
    sound = W > 0.0
    for a in range(P):
        row = a * (a + 1) // 2
        for b in range(a):
            v = M[row + b] * -1.0
            for c in range(b):
                v -= L[row + c] * L[b * (b + 1) // 2 + c]
            L[row + b] = v * inverse[b]
        v = W - M[row + a]
        for c in range(a):
            v -= L[row + c] * L[row + c]
        sound = sound & (v > floor)
        inverse[a] = 1.0 / sqrt(select(v > floor, v, floor))
        v = g[a]
        for c in range(a):
            v -= L[row + c] * s[c]
        s[a] = v * inverse[a]
    for k in range(P):
        a = P - 1 - k
        v = s[a]
        for c in range(a + 1, P):
            v -= L[c * (c + 1) // 2 + a] * s[c]
        s[a] = v * inverse[a]
    return sound


@inlined
def newton(bands: Any, x: Any, dates: Any, unit: Any, count: Any, y: Any) -> Any:
    """Move `y` from the mean to the geometric median; return the lanes that didn't get there."""
    P = len(bands)
    g, s, inverse = rows(bands, 1), rows(bands, 1), rows(bands, 1)
    M, L = triangle(bands), triangle(bands)
    short = (SHORT_STEP * unit) * (SHORT_STEP * unit)
    zero = f8(0.0)
    for b in range(P):
        s[b] = zero
    expected, before = zero, zero + 1e38
    active = count > 2.0
    odd = count < 0.0
    for k in range(MAX_PASSES):
        if not any_of(active):
            break
        W, S2, f, nearest, copies, met = sums(bands, x, dates, y, short, g, M)
        share = KINK_SHARE * W
        kink = (met > 0.0) | (copies * copies > share * share * nearest)
        if k > 0:
            slope = dot(bands, g, s)
            worse = (f > before * (1.0 + 1e-6)) | (
                (f > before * (1.0 - 1e-6)) & (slope < expected * -0.5)
            )
            kink = kink | ((slope < 0.0) & worse)
        kink = kink | invert(newton_step(bands, M, W, g, L, inverse, s))
        odd = odd | (active & kink)
        active = active & invert(kink)
        expected = dot(bands, g, s)
        length2 = dot(bands, s, s)
        limit = TRUST * count / W
        whole = length2 <= limit * limit
        curvature = 1e-6 * W * length2
        curvature = select(expected > curvature, expected, curvature)
        close = (length2 * S2 * length2 < PREDICTED_ERROR * unit * curvature) & (
            length2 < 0.25 * nearest
        )
        part = select(whole, zero + 1.0, sqrt(limit * limit / length2))
        for b in range(P):
            s[b] = s[b] * part
            y[b] = select(active, y[b] + s[b], y[b])
        expected = expected * part
        before = f
        active = active & invert(whole & (close | (length2 < short)))
    return odd | active
