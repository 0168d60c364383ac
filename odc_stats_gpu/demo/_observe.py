"""What a sensor delivers of a scene: bands with noise, clouds and gaps, and a class mask."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from odc_stats_gpu.demo._fields import Array, Places
from odc_stats_gpu.demo._landscape import Ground
from odc_stats_gpu.demo._schedule import Scene
from odc_stats_gpu.demo._sensors import Band, Sensor
from odc_stats_gpu.demo._sky import Sky, Sun
from odc_stats_gpu.demo._spectra import BANDS, CLOUD, SKYLIGHT

_LEAST_CLOUD = 0.11  # opacity from which a detector sees a cloud
_RED, _GREEN, _NIR = BANDS.index("red"), BANDS.index("green"), BANDS.index("nir_narrow")


@dataclass(frozen=True, slots=True)
class Observation:
    """Pixels of one scene, ready for files."""

    bands: Mapping[str, Array]
    mask: Array
    contiguity: Array | None
    shares: Mapping[str, float]
    """Percent of the seen pixels by class: clear, cloud, shadow, water."""


def observe(
    sensor: Sensor,
    bands: tuple[Band, ...],
    scene: Scene,
    ground: Ground,
    places: Places,
    sky: Sky,
    sun: Sun,
    margin: Array,
    seed: int,
) -> Observation:
    """Draw one scene; `margin` is the distance inside the swath in metres, (y, x)."""
    rng = np.random.default_rng([seed, 47, scene.number])
    opacity, light, shadow, missed = places.sample(sky.opacity, sky.light, sky.shadow, sky.missed)
    shadow *= 1 - opacity
    columns = sorted(
        {b.column for b in bands} | ({_RED, _GREEN, _NIR} if sensor.mask == "SCL" else set())
    )
    clear = ground.reflectance(scene.day, sun.vector, columns)
    seen = {c: _through(clear[c], c, opacity, light, shadow) for c in columns}
    gain = 1 + 0.012 * rng.standard_normal(len(BANDS)).astype(np.float32)
    tilt = np.linspace(-1, 1, margin.shape[1], dtype=np.float32)[None, :] * np.float32(
        rng.normal(0, 0.012)
    )
    gaps = _dropouts(rng, scene.number, len(bands), margin.shape)
    out: dict[str, Array] = {}
    holes = np.zeros(margin.shape, bool)
    for k, band in enumerate(bands):
        image = seen[band.column] * (gain[band.column] + tilt)
        # detectors are staggered along track: every band ends a little elsewhere
        lost = margin < (k % 3) * 0.7 * sensor.res
        if k in gaps:
            lost |= gaps[k]
        holes |= lost
        if band.step == 2:
            image, lost = _halve(image), lost[::2, ::2] | lost[1::2, 1::2]
        sigma = 4 + 0.008 * image
        image = image + sigma * rng.standard_normal(image.shape, np.float32)
        pixels = np.clip(np.rint(image), 1, 16_000).astype(sensor.dtype)
        pixels[lost] = sensor.nodata
        out[band.name] = pixels
    wet = ground.flooded(scene.day)
    dark = _shadowed(shadow, missed)
    unseen = margin < 0
    if sensor.mask == "SCL":
        mask = _scl(seen, opacity, missed, dark, wet, unseen, sky.kind)
    else:
        mask = np.where(wet, np.uint8(5), np.uint8(1))
        mask[dark] = 3
        mask[opacity > _LEAST_CLOUD + missed] = 2
        mask[unseen] = 0
    return Observation(
        out,
        mask,
        None if sensor.contiguity is None else (~holes).astype(np.uint8),
        _shares(sensor, mask),
    )


def _through(clear: Array, column: int, opacity: Array, light: Array, shadow: Array) -> Array:
    """Ground under shadow and cloud, as the sensor sees it."""
    out = clear * (1 - (1 - SKYLIGHT[column]) * shadow)
    top = light * CLOUD[column]
    top *= 0.72 + 0.36 * opacity
    out += opacity * (top - out)
    return out


def _shadowed(shadow: Array, missed: Array) -> Array:
    return shadow > 0.2 + np.maximum(missed, 0)


def _halve(image: Array) -> Array:
    """Mean of 2 x 2 pixels."""
    rows, cols = image.shape
    return image.reshape(rows // 2, 2, cols // 2, 2).mean(axis=(1, 3), dtype=np.float32)


def _dropouts(
    rng: np.random.Generator, number: int, count: int, shape: tuple[int, int]
) -> dict[int, Array]:
    """Every fourth scene one band loses a few slanted lines; band index to mask."""
    chosen, lines = int(rng.integers(count)), int(rng.integers(2, 5))
    starts = rng.uniform(0, shape[0], lines)
    if number % 4 != 2:
        return {}
    row = np.arange(shape[0], dtype=np.float32)[:, None]
    col = np.arange(shape[1], dtype=np.float32)[None, :]
    along = row + 0.19 * col
    lost = np.zeros(shape, bool)
    for start in starts:
        lost |= (along >= start) & (along < start + 2 + shape[0] // 160)
    return {chosen: lost}


def _scl(
    seen: Mapping[int, Array],
    opacity: Array,
    missed: Array,
    dark: Array,
    wet: Array,
    unseen: Array,
    kind: str,
) -> Array:
    """Scene classification at twice the pixel size."""
    red, nir, green = (_halve(seen[c]) for c in (_RED, _NIR, _GREEN))
    cover, wrong = _halve(opacity), _halve(missed)
    ndvi = (nir - red) / (nir + red)
    out = np.where(ndvi > 0.32, np.uint8(4), np.uint8(5))
    out[(nir < 900) & (ndvi <= 0.32)] = 2
    out[(ndvi < 0.32) & (ndvi > 0.26)] = 7
    out[wet[::2, ::2] & (green > nir)] = 6
    out[dark[::2, ::2]] = 3
    out[cover > _LEAST_CLOUD + wrong] = 10 if kind == "cirrus" else 8
    if kind != "cirrus":
        out[cover > 0.55] = 9
    out[green > 8_000] = 1
    out[unseen[::2, ::2] | unseen[1::2, 1::2]] = 0
    return out


def _shares(sensor: Sensor, mask: Array) -> dict[str, float]:
    """Percent of classes among the seen pixels."""
    count = np.bincount(mask.ravel(), minlength=16)
    total = max(int(count[1:].sum()), 1)
    classes: tuple[tuple[str, tuple[int, ...]], ...] = (
        ("cloud", (8, 9, 10) if sensor.mask == "SCL" else (2,)),
        ("cloud_shadow", (3,)),
        ("water", (6,) if sensor.mask == "SCL" else (5,)),
    )
    part = {name: round(100.0 * float(count[list(ids)].sum()) / total, 3) for name, ids in classes}
    part["clear"] = round(max(0.0, 100 - part["cloud"] - part["cloud_shadow"] - part["water"]), 3)
    return part
