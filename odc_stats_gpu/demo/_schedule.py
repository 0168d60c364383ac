"""Which scenes a year has: days, orbits, zones, footprints."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

import numpy as np
from shapely.geometry import Polygon, box

from odc_stats_gpu.demo._sensors import Kind
from odc_stats_gpu.errors import ConfigError

ZONES = (55, 56)
_TILT = math.radians(11.0)  # the ground track leans this far from grid north
_REVISIT = {"landsat": (5, 16, 7), "sentinel2": (4, 10, 5)}  # first day, cycle, second orbit after
MOST_DATES = 40


@dataclass(frozen=True, slots=True)
class Scene:
    """One file set of the archive before it is drawn."""

    number: int
    day: int
    """Local day of the year, from 1."""
    time: datetime
    """Centre time, UTC."""
    orbit: int
    """0: the western swath, 1: the eastern one."""
    zone: int
    """UTM zone, 55 or 56."""
    row: str
    """full, north or south."""
    drift: float
    """Shift of the swath's edge, share of the region's side."""

    @property
    def crs(self) -> str:
        """Southern UTM zone."""
        return f"epsg:327{self.zone}"


def plan_year(kind: Kind, year: int, dates: int, seed: int) -> list[Scene]:
    """Scenes of a year in order of time; every third day has two; raises ConfigError."""
    first, cycle, second = _REVISIT[kind]
    days = [list(range(first + orbit * second, 350, cycle)) for orbit in (0, 1)]
    if not 2 <= dates <= MOST_DATES:
        raise ConfigError(f"the archive can't have {dates} dates", f"choose 2 to {MOST_DATES}")
    rng = np.random.default_rng([seed, 31])
    share = (dates - dates // 2, dates // 2)
    chosen = sorted(
        (days[orbit][int(i)], orbit)
        for orbit in (0, 1)
        for i in np.linspace(0, len(days[orbit]) - 1, share[orbit]).round()
    )
    scenes: list[Scene] = []
    pairs = 0
    for i, (day, orbit) in enumerate(chosen):
        drift = float(rng.uniform(-0.04, 0.04))
        # ten o'clock local is about midnight UTC here: some pairs fall on two UTC days
        late = 18 if i % 2 else 420
        start = datetime(year, 1, 1) + timedelta(days=day - 1, seconds=-late)
        parts: Sequence[tuple[int, str]] = ((ZONES[orbit], "full"),)
        if i % 3 == 1:
            cross = pairs % 3 == 2  # every third pair: two zones, one swath
            other = ZONES[1 - orbit] if cross else ZONES[orbit]
            parts = ((ZONES[orbit], "north"), (other, "south"))
            pairs += 1
        for k, (zone, row) in enumerate(parts):
            time = start + timedelta(seconds=24 * k, milliseconds=int(rng.integers(1000)))
            scenes.append(Scene(len(scenes), day, time, orbit, zone, row, drift))
    return scenes


def footprint(
    kind: Kind, scene: Scene, bounds: tuple[float, float, float, float]
) -> tuple[Polygon, Polygon]:
    """Swath (where the sensor looked) and frame (where the files reach), in the scene's CRS.

    `bounds` is the region that all scenes of the zone share, in that CRS.
    """
    west, south, east, north = bounds
    cx, cy, side = (west + east) / 2, (south + north) / 2, max(east - west, north - south)
    far, lap = 1.2 * side, 0.09 * side
    edge = (0.29 + scene.drift) * side
    s0, s1 = (-far, edge) if scene.orbit == 0 else (-edge, far)
    a0, a1 = {"full": (-far, far), "north": (-lap, far), "south": (-far, lap)}[scene.row]
    frame = box(*bounds)
    if kind == "sentinel2":  # granules are upright squares: the array ends, the swath goes on
        if scene.row != "full":
            frame = box(west, cy - lap if scene.row == "north" else south,
                        east, cy + lap if scene.row == "south" else north)  # fmt: skip
        a0, a1 = -far, far
        reach = cx + 0.33 * side if scene.zone == ZONES[0] else cx - 0.33 * side
        left, low, right, high = frame.bounds
        frame = (
            box(left, low, min(right, reach), high)
            if scene.zone == ZONES[0]
            else box(max(left, reach), low, right, high)
        )
    cross, along = (math.cos(_TILT), -math.sin(_TILT)), (math.sin(_TILT), math.cos(_TILT))
    corners = [(s0, a0), (s1, a0), (s1, a1), (s0, a1)]
    swath = Polygon(
        (cx + s * cross[0] + a * along[0], cy + s * cross[1] + a * along[1]) for s, a in corners
    )
    return swath, frame


def inside(swath: Polygon, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Signed distance of pixel centres to the swath's nearest edge, metres, positive inside.

    `x` is (1, n), `y` is (m, 1); float32 (m, n).
    """
    ring = list(swath.normalize().exterior.coords)
    centre = swath.centroid
    out = np.full(np.broadcast_shapes(x.shape, y.shape), np.inf, np.float32)
    for (x0, y0), (x1, y1) in pairwise(ring):
        length = math.hypot(x1 - x0, y1 - y0)
        nx, ny = -(y1 - y0) / length, (x1 - x0) / length
        if nx * (centre.x - x0) + ny * (centre.y - y0) < 0:
            nx, ny = -nx, -ny
        np.minimum(out, ((x - x0) * nx + (y - y0) * ny).astype(np.float32), out=out)
    return out
