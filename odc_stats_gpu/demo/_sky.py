"""Sun and clouds of one day."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from odc_stats_gpu.demo._fields import Array, fractal
from odc_stats_gpu.demo._landscape import Landscape

_LATITUDE = np.radians(-33.0)
_CONVERGENCE = np.radians(8.1)  # true north lies this far east of Albers north at 150 E


@dataclass(frozen=True, slots=True)
class Sun:
    """Where the sun stands at a quarter past ten, local solar time."""

    azimuth: float
    """Degrees clockwise from north."""
    elevation: float
    """Degrees."""

    @classmethod
    def on(cls, day: int) -> Sun:
        """On a day of the year."""
        declination = np.radians(-23.44) * np.cos(2 * np.pi * (day + 10) / 365)
        hour = np.radians(-26.25)
        up = np.sin(_LATITUDE) * np.sin(declination)
        up += np.cos(_LATITUDE) * np.cos(declination) * np.cos(hour)
        east = -np.cos(declination) * np.sin(hour)
        north = np.cos(_LATITUDE) * np.sin(declination)
        north -= np.sin(_LATITUDE) * np.cos(declination) * np.cos(hour)
        return cls(
            float(np.degrees(np.arctan2(east, north)) % 360), float(np.degrees(np.arcsin(up)))
        )

    @property
    def vector(self) -> tuple[float, float]:
        """Horizontal (x, y) in the landscape's CRS towards the sun, over tan(elevation)."""
        a = np.radians(self.azimuth) + _CONVERGENCE
        reach = 1 / np.tan(np.radians(self.elevation))
        return float(np.sin(a) * reach), float(np.cos(a) * reach)


@dataclass(frozen=True, slots=True)
class Sky:
    """Clouds over the whole landscape; every field is float32 (n, n)."""

    kind: str
    opacity: Array
    """0 clear to 1 opaque."""
    light: Array
    """Brightness of the cloud top, near 1."""
    shadow: Array
    """Share of the direct sunlight kept from the ground, 0 to 1."""
    missed: Array
    """How far a cloud detector is off: its threshold rises by this."""


_KINDS = ("clear", "cumulus", "broken", "front", "cirrus", "haze", "overcast")
_ODDS = (0.20, 0.29, 0.17, 0.12, 0.10, 0.07, 0.05)


def sky_on(seed: int, day: int, land: Landscape, sun: Sun) -> Sky:
    """The clouds of a day, the same for every scene of it."""
    rng = np.random.default_rng([seed, 23, day])
    kind = str(rng.choice(_KINDS, p=_ODDS))
    n = max(land.n // 2, 64)
    cell = land.n * land.cell / n
    scale = max(land.scale, 0.18)
    grid = (rng, n, cell)
    wide = fractal(*grid, size=9_000 * scale, slope=2.2)
    puffs = fractal(*grid, size=1_700 * scale, slope=1.75)
    fine = fractal(*grid, size=500 * scale, slope=1.3)
    depth = _depth(kind, rng, wide, puffs, fine, land, n)
    opacity = (1 - np.exp(-depth)).astype(np.float32)
    sx, sy = sun.vector
    height = {"cumulus": 1_300, "broken": 1_700, "cirrus": 7_000}.get(kind, 2_300) * scale
    shift = (-round(sy * height / cell), -round(sx * height / cell))
    shadow = np.roll(opacity, shift, (0, 1))
    # cloud tops facing the sun are bright, the far sides grey
    body = np.minimum(depth, 3) + 0.25 * fine * (depth > 0)
    length = float(np.hypot(sx, sy)) or 1
    rise = -(np.roll(body, -1, 1) - np.roll(body, 1, 1)) * (sx / length)
    rise -= (np.roll(body, -1, 0) - np.roll(body, 1, 0)) * (sy / length)
    light = np.clip(0.80 + 0.05 * np.minimum(depth, 4) + 0.16 * rise + 0.03 * fine, 0.55, 1.25)
    missed = np.clip((wide + 0.4 * puffs - 1.1) * 0.5, 0, 0.35) + 0.02 * fine
    return Sky(kind, opacity, light.astype(np.float32), shadow, missed.astype(np.float32))


def _depth(
    kind: str,
    rng: np.random.Generator,
    wide: Array,
    puffs: Array,
    fine: Array,
    land: Landscape,
    n: int,
) -> Array:
    """Optical depth of the day's clouds, float32 (n, n)."""
    none = np.zeros((n, n), np.float32)
    if kind == "clear":
        return none
    if kind == "haze":
        return np.clip(0.05 + 0.035 * wide, 0, 0.16).astype(np.float32)
    if kind == "cirrus":
        cell = land.n * land.cell / n
        angle = float(rng.uniform(0.2, 1.2))
        veil = fractal(rng, n, cell, size=5_000 * land.scale, slope=1.8, stretch=5, angle=angle)
        return (0.42 * np.clip(veil + 0.5 * wide - 0.35, 0, 2)).astype(np.float32)
    if kind == "front":
        ramp = np.linspace(-1.9, 1.9, n, dtype=np.float32)
        angle = float(rng.uniform(0, 2 * np.pi))
        slab = ramp[None, :] * np.cos(angle) + ramp[:, None] * np.sin(angle)
        field = 1.4 * slab + 0.55 * wide + 0.45 * puffs + 0.12 * fine
        cover = float(rng.uniform(0.35, 0.6))
    else:
        field = 0.75 * puffs + 0.5 * wide + 0.16 * fine
        low, high = {"cumulus": (0.06, 0.28), "broken": (0.4, 0.68), "overcast": (0.93, 0.995)}[
            kind
        ]
        cover = float(rng.uniform(low, high))
    edge = np.quantile(field[::2, ::2], 1 - cover)
    return (2.6 * np.clip(field - edge, 0, 3) ** 1.25).astype(np.float32)
