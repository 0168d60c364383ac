"""Typical surface reflectances (x 10000) and how ground covers change through a southern year."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from odc_stats_gpu.demo._fields import Array

BANDS = (
    "blue",
    "green",
    "red",
    "red_edge_1",
    "red_edge_2",
    "red_edge_3",
    "nir",
    "nir_narrow",
    "swir_1",
    "swir_2",
)
"""Columns of the table below: 490, 560, 665, 705, 740, 783, 842, 865, 1610, 2190 nm."""

SPECTRA = {
    "water": (310, 400, 260, 215, 165, 150, 130, 115, 60, 45),
    "turbid": (620, 930, 1040, 990, 560, 520, 440, 400, 110, 75),
    "mud": (640, 850, 1010, 1160, 1260, 1320, 1370, 1420, 1210, 880),
    "forest": (240, 390, 310, 740, 1580, 1880, 2030, 2130, 1260, 640),
    "woodland": (420, 640, 760, 1150, 1650, 1880, 2030, 2150, 2150, 1350),
    "lush": (250, 600, 290, 930, 3250, 4200, 4450, 4550, 1900, 860),
    "canola": (420, 1180, 830, 1500, 3100, 3800, 4050, 4150, 1950, 930),
    "green_grass": (350, 700, 480, 1060, 2550, 3050, 3250, 3380, 2160, 1160),
    "dry_grass": (690, 1030, 1440, 1820, 2130, 2330, 2520, 2680, 3380, 2330),
    "stubble": (850, 1240, 1730, 2110, 2370, 2570, 2780, 2930, 3880, 2980),
    "red_soil": (560, 860, 1620, 1900, 2060, 2210, 2360, 2500, 3400, 2950),
    "grey_soil": (560, 760, 980, 1150, 1260, 1370, 1490, 1600, 2200, 1980),
    "roof": (1250, 1400, 1520, 1620, 1740, 1830, 1930, 1990, 2130, 1930),
    "gravel": (1080, 1330, 1600, 1780, 1900, 2000, 2100, 2190, 2680, 2380),
}
CLOUD = np.array((6100, 5900, 5850, 5950, 6100, 6250, 6350, 6350, 4600, 3400), np.float32)
"""Thick water cloud."""
SKYLIGHT = np.array((0.46, 0.41, 0.36, 0.34, 0.31, 0.30, 0.29, 0.28, 0.22, 0.20), np.float32)
"""Share of the light that still reaches the ground in a cloud's shadow."""


@dataclass(frozen=True, slots=True)
class Cover:
    """A ground cover: two end members and the season that moves between them."""

    name: str
    dormant: str
    growing: str
    peak: int
    """Day of year of the greenest moment."""
    width: int
    """Days from the peak to 1/e of it."""
    low: float
    """Share of the growing end member in the off season."""
    high: float


COVERS = (
    Cover("pasture", "dry_grass", "green_grass", 250, 80, 0.12, 0.85),
    Cover("woodland", "woodland", "forest", 270, 90, 0.15, 0.55),
    Cover("forest", "forest", "green_grass", 290, 90, 0.03, 0.16),
    Cover("scrub", "red_soil", "woodland", 270, 90, 0.45, 0.75),
    Cover("town", "roof", "forest", 270, 120, 0.12, 0.28),
    Cover("road", "gravel", "dry_grass", 270, 120, 0.05, 0.25),
    Cover("wheat", "stubble", "lush", 238, 48, 0.02, 0.95),
    Cover("canola", "stubble", "canola", 248, 42, 0.02, 0.95),
    Cover("barley", "grey_soil", "lush", 222, 45, 0.04, 0.85),
    Cover("cotton", "grey_soil", "lush", 35, 48, 0.0, 0.95),
    Cover("lucerne", "dry_grass", "lush", 330, 120, 0.35, 0.8),
    Cover("fallow", "grey_soil", "green_grass", 280, 45, 0.0, 0.2),
    Cover("red fallow", "red_soil", "dry_grass", 290, 60, 0.05, 0.45),
    Cover("stubble", "stubble", "green_grass", 260, 50, 0.0, 0.3),
    Cover("grazing", "dry_grass", "green_grass", 240, 85, 0.1, 0.95),
)
CODE = {cover.name: code for code, cover in enumerate(COVERS)}
CROPS = tuple(code for code, cover in enumerate(COVERS) if code >= CODE["wheat"])
"""What a paddock may carry."""


def spectrum(name: str) -> Array:
    """One row of the table, float32 (10,)."""
    return np.array(SPECTRA[name], np.float32)


def end_members() -> tuple[Array, Array]:
    """Dormant and growing reflectance of every cover, each float32 (cover, band)."""
    return (
        np.stack([spectrum(c.dormant) for c in COVERS]),
        np.stack([spectrum(c.growing) for c in COVERS]),
    )


def season(day: int) -> Array:
    """Share of the growing end member of every cover on a day of the year, float32 (cover,)."""
    peak = np.array([c.peak for c in COVERS], np.float32)
    width = np.array([c.width for c in COVERS], np.float32)
    low = np.array([c.low for c in COVERS], np.float32)
    high = np.array([c.high for c in COVERS], np.float32)
    away = np.abs((day - peak + 182.5) % 365 - 182.5)
    return (low + (high - low) * np.exp(-((away / width) ** 2))).astype(np.float32)


def water_level(day: int) -> float:
    """How far water stands above the permanent channel, 0 (late summer) to about 0.75 (flood)."""
    spring = np.exp(-(((day - 262) / 24.0) ** 2))
    winter = 0.25 * np.exp(-(((day - 215) / 60.0) ** 2))
    return float(0.05 + 0.7 * spring + winter)
