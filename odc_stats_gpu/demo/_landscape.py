"""A made-up countryside: hills, forest, paddocks, a river that floods, a lake and a town.

It is a function of Albers coordinates, so scenes in different UTM zones see the same ground.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from odc_stats_gpu.demo._fields import Array, Places, fractal, hashed, soften
from odc_stats_gpu.demo._spectra import (
    CODE,
    CROPS,
    end_members,
    season,
    spectrum,
    water_level,
)


@dataclass(frozen=True, slots=True)
class Ground:
    """What lies under the pixels of one raster; every array is (y, x)."""

    cover: Array
    """Code of the cover, uint8."""
    tone: Array
    """Brightness against the cover's typical one, float32 near 1."""
    vigour: Array
    """Growth ahead of (+) or behind (-) the season, float32."""
    wet: Array
    """Water level from which the pixel is flooded, float32; below 0 always water."""
    slope: tuple[Array, Array]
    """Eastward and northward steepness, float32."""

    def window(self, rows: slice, cols: slice) -> Ground:
        """A part of it."""
        at = (rows, cols)
        slope = (self.slope[0][at], self.slope[1][at])
        return Ground(self.cover[at], self.tone[at], self.vigour[at], self.wet[at], slope)

    def flooded(self, day: int) -> Array:
        """Which pixels are water on that day, bool."""
        return self.wet < water_level(day)

    def reflectance(
        self, day: int, sun: tuple[float, float], bands: Sequence[int]
    ) -> dict[int, Array]:
        """Cloud-free reflectance x 10000 of the asked bands, float32, as a sensor blurs it.

        `sun` is the horizontal vector towards the sun over the tangent of its elevation.
        """
        dormant, growing = end_members()
        level = water_level(day)
        share = np.clip(season(day)[self.cover] + self.vigour, 0, 1)
        lit = 1 + np.float32(0.16) * (self.slope[0] * sun[0] + self.slope[1] * sun[1])
        lit = np.clip(lit, 0.55, 1.35) * self.tone
        water = np.flatnonzero(self.wet < level)
        shore = np.flatnonzero((self.wet >= level) & (self.wet < level + 0.12) & (self.wet < 0.6))
        silt = np.clip(0.25 + level * 0.9 + self.vigour.ravel()[water] * 1.5, 0, 1)
        out = {}
        for b in bands:
            image = (growing[:, b] - dormant[:, b])[self.cover]
            image *= share
            image += dormant[:, b][self.cover]
            image *= lit
            flat = image.ravel()
            flat[shore] = 0.35 * flat[shore] + 0.65 * spectrum("mud")[b]
            flat[water] = spectrum("water")[b] * (1 - silt) + spectrum("turbid")[b] * silt
            out[b] = soften(image)
        return out


class Landscape:
    """The countryside around a centre, for a square of `extent` metres."""

    def __init__(
        self, seed: Sequence[int], centre: tuple[float, float], extent: float, res: float
    ) -> None:
        """Draw the smooth fields; `res` is the finest pixel size that will look at them."""
        rng = np.random.default_rng([*seed, 11])
        self.centre = centre
        self.scale = float(np.clip(extent / 27_000, 0.12, 1.0))  # small places get small features
        self.n = int(2 ** np.ceil(np.log2(np.clip(extent / res, 64, 1024))))
        self.cell = max(res, 1.1 * extent / self.n)
        half = self.n * self.cell / 2
        self.origin = (centre[0] - half, centre[1] - half)
        big = 9_000 * self.scale
        grid = (rng, self.n, self.cell)
        self.relief = fractal(*grid, size=big, slope=2.6)
        self.patches = fractal(*grid, size=big / 3, slope=2.0)
        self.grain = fractal(*grid, size=big / 12, slope=1.1)
        self.growth = fractal(*grid, size=big / 9, slope=1.7)
        step = self.cell / (400 * self.scale)
        self.east = (np.roll(self.relief, -1, 1) - np.roll(self.relief, 1, 1)) / (2 * step)
        self.north = (np.roll(self.relief, -1, 0) - np.roll(self.relief, 1, 0)) / (2 * step)
        self.phase = rng.uniform(0, 2 * np.pi, 4)
        self.seed = int(rng.integers(1 << 30))
        turn = rng.uniform(0, 2 * np.pi)
        self.lake = _around(rng.uniform(7_500, 9_500), turn)
        self.town = _around(rng.uniform(3_500, 7_000), turn + rng.uniform(1.5, 4.8))
        self.road = float(rng.uniform(-0.9, 0.9))

    def survey(self, x: Array, y: Array) -> Ground:
        """Ground under pixel centres given in the landscape's CRS, (y, x) float64 each."""
        here = Places.of(x, y, self.origin, self.n, self.cell)
        relief, patches, grain, growth, east, north = here.sample(
            self.relief, self.patches, self.grain, self.growth, self.east, self.north
        )
        u = ((x - self.centre[0]) / self.scale).astype(np.float32)
        v = ((y - self.centre[1]) / self.scale).astype(np.float32)
        channel = self._river(u, v) + 60 * grain
        height = relief - 1.1 * np.exp(-((channel / 3_500) ** 2))
        cover, tone, vigour = self._paddocks(u, v, patches)
        hilly = height + 0.35 * patches
        for name, where in (
            ("pasture", hilly > 0.25),
            ("woodland", hilly > 0.62),
            ("scrub", (hilly > 0.62) & (patches < -0.7)),
            ("forest", (hilly > 1.0) & (patches > -0.9)),
        ):
            cover[where] = CODE[name]
        wild = cover < CROPS[0]
        tone[wild], vigour[wild] = 1, 0
        trees = (np.abs(channel) < 190 + 60 * patches) & (grain > -0.3)
        cover[trees] = CODE["woodland"]
        self._town(u, v, patches, cover, tone)
        tone *= 1 + 0.045 * grain
        vigour += 0.07 * growth
        flat = np.clip(1.6 * np.maximum(relief, -0.6) + 1.2, 0.3, 4)
        wet = (np.abs(channel) - 75) / (1_500 + 500 * patches) * flat
        lake = np.hypot(u - self.lake[0], v - self.lake[1]) + 520 * patches + 200 * relief
        wet = np.minimum(wet, (lake - 1_500) / 900)
        vigour = np.where(wet < 0.05, 0.1 * patches, vigour)  # there it is the water's silt
        return Ground(cover, tone, vigour, wet.astype(np.float32), (np.tanh(east), np.tanh(north)))

    def _river(self, u: Array, v: Array) -> Array:
        """Signed distance to the channel, metres at full scale."""
        p = self.phase
        bends = (
            2_100 * np.sin(u / 5_300 + p[0])
            + 620 * np.sin(u / 1_450 + p[1])
            + 210 * np.sin(u / 520 + p[2])
        )
        lean = (
            2_100 / 5_300 * np.cos(u / 5_300 + p[0])
            + 620 / 1_450 * np.cos(u / 1_450 + p[1])
            + 210 / 520 * np.cos(u / 520 + p[2])
        )
        return (v + 1_500 + 0.12 * u - bends) / np.hypot(1, lean)

    def _paddocks(self, u: Array, v: Array, patches: Array) -> tuple[Array, Array, Array]:
        """Fenced fields of two road grids: cover, tone, vigour."""
        turn = np.where(patches + 0.0002 * u > 0.2, np.float32(0.21), np.float32(-0.08))
        width, depth = 980.0, 760.0
        a = (u * np.cos(turn) + v * np.sin(turn)) / width
        b = (v * np.cos(turn) - u * np.sin(turn)) / depth
        i, j = np.floor(a).astype(np.int32), np.floor(b).astype(np.int32)
        kind = (turn > 0).astype(np.int32)
        cut = hashed(i, j, kind, self.seed)
        fa, fb = a - i, b - j
        strip = np.where(
            cut < 0.35,
            np.floor(fa * 2),
            np.where(cut < 0.65, np.floor(fb * 3), np.floor(fa * 2) * 2 + np.floor(fb * 2)),
        ).astype(np.int32)
        strip[cut > 0.88] = 0
        lot = (i, j, kind, strip, self.seed)
        crops = np.array(CROPS, np.uint8)
        cover = crops[(hashed(*lot, 1) * len(crops)).astype(np.int32)]
        pivot = (cut > 0.88) & (np.hypot((fa - 0.5) * width, (fb - 0.5) * depth) < 345)
        cover[cut > 0.88] = CODE["grazing"]
        cover[pivot] = np.where(hashed(*lot, 5)[pivot] < 0.6, CODE["cotton"], CODE["lucerne"])
        tone = 0.86 + 0.28 * hashed(*lot, 2)
        vigour = 0.36 * (hashed(*lot, 3) - 0.5)
        edge = np.minimum(np.minimum(fa, 1 - fa) * width, np.minimum(fb, 1 - fb) * depth)
        lane = hashed(i // 3, j // 3, kind, self.seed, 4) < 0.5
        cover[(edge < 22) & lane] = CODE["woodland"]
        return cover, tone.astype(np.float32), vigour.astype(np.float32)

    def _town(self, u: Array, v: Array, patches: Array, cover: Array, tone: Array) -> None:
        """Streets and roofs, and the highway through them; in place."""
        du, dv = u - self.town[0], v - self.town[1]
        blocks = np.hypot(du / 1.3, dv) + 420 * patches
        town = blocks < 1_250
        house = hashed(np.floor(u / 45), np.floor(v / 45), self.seed, 6)
        cover[town] = np.where(house[town] < 0.28, CODE["woodland"], CODE["town"])
        tone[town] = (0.72 + 0.6 * hashed(np.floor(u / 45), np.floor(v / 45), self.seed, 7))[town]
        street = town & ((np.mod(du, 230) < 26) | (np.mod(dv, 180) < 24))
        highway = np.abs(dv - self.road * du - 260 * np.sin(du / 4_100)) < 24
        cover[street | highway] = CODE["road"]
        tone[street] = 0.7
        tone[highway] = 0.95


def _around(distance: float, angle: float) -> tuple[float, float]:
    """A place at some distance from the centre, metres at full scale."""
    return float(distance * np.cos(angle)), float(distance * np.sin(angle))
