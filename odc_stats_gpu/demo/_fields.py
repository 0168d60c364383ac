"""Smooth random fields and the places where a raster looks at them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def fractal(
    rng: np.random.Generator,
    n: int,
    cell: float,
    *,
    size: float,
    slope: float,
    stretch: float = 1.0,
    angle: float = 0.0,
) -> Array:
    """Periodic Gaussian field, float32 (n, n), mean 0 and deviation 1.

    Features up to `size` metres across; above that wavenumber the amplitude falls as k**-slope.
    `stretch` > 1 draws the features out along `angle` (radians from the x axis).
    """
    kx = np.fft.rfftfreq(n, cell).astype(np.float32)[None, :]
    ky = np.fft.fftfreq(n, cell).astype(np.float32)[:, None]
    along = (kx * np.cos(angle) + ky * np.sin(angle)) * stretch
    across = -kx * np.sin(angle) + ky * np.cos(angle)
    amplitude = (along**2 + across**2 + (1 / size) ** 2) ** np.float32(-slope / 2)
    amplitude[0, 0] = 0
    noise = np.fft.rfft2(rng.standard_normal((n, n), np.float32))
    out = np.fft.irfft2(noise * amplitude, s=(n, n)).astype(np.float32)
    out -= out.mean()
    return out / max(float(out.std()), 1e-9)


@dataclass(frozen=True, slots=True)
class Places:
    """Where the pixels of a raster fall on a periodic square field of `n` cells a side."""

    n: int
    row: Array
    """Cell above each pixel centre, int32 (y, x)."""
    col: Array
    fy: Array
    """Way to the next cell, float32 (y, x)."""
    fx: Array

    @classmethod
    def of(cls, x: Array, y: Array, origin: tuple[float, float], n: int, cell: float) -> Places:
        """Places of pixel centres (metres of the landscape's CRS)."""
        u, v = (x - origin[0]) / cell, (y - origin[1]) / cell
        col, row = np.floor(u), np.floor(v)
        return cls(
            n,
            row.astype(np.int32) % n,
            col.astype(np.int32) % n,
            (v - row).astype(np.float32),
            (u - col).astype(np.float32),
        )

    def window(self, rows: slice, cols: slice) -> Places:
        """The same for a part of the raster."""
        at = (rows, cols)
        return Places(self.n, self.row[at], self.col[at], self.fy[at], self.fx[at])

    def sample(self, *fields: Array) -> list[Array]:
        """Bilinear values of fields, float32 (y, x) each."""
        wide = self.n + 1
        start = self.row * np.int32(wide) + self.col
        out = []
        for field in fields:
            flat = np.pad(field, ((0, 1), (0, 1)), mode="wrap").ravel()
            top = flat.take(start)
            top += (flat.take(start + 1) - top) * self.fx
            low = flat.take(start + wide)
            low += (flat.take(start + (wide + 1)) - low) * self.fx
            low -= top
            low *= self.fy
            low += top
            out.append(low)
        return out


def hashed(*parts: Array | int) -> Array:
    """Uniform numbers in 0..1 that depend only on the integers given, float32."""
    h: Any = np.uint32(2166136261)
    with np.errstate(over="ignore"):
        for part in parts:
            value = np.asarray(part).astype(np.int64).astype(np.uint32)
            h = (h ^ value) * np.uint32(16777619)
            h = (h ^ (h >> np.uint32(15))) * np.uint32(0x85EBCA6B)
            h = h ^ (h >> np.uint32(13))
    return (np.asarray(h) >> np.uint32(8)).astype(np.float32) / np.float32(1 << 24)


def soften(image: Array) -> Array:
    """A sensor's blur: the separable 1-2-1 filter, edges repeated; float32 (y, x)."""
    out = image * np.float32(0.5)
    quarter = image * np.float32(0.25)
    out[:, 1:] += quarter[:, :-1]
    out[:, :-1] += quarter[:, 1:]
    out[:, 0] += quarter[:, 0]
    out[:, -1] += quarter[:, -1]
    quarter = out * np.float32(0.25)
    out *= np.float32(0.5)
    out[1:] += quarter[:-1]
    out[:-1] += quarter[1:]
    out[0] += quarter[0]
    out[-1] += quarter[-1]
    return out
