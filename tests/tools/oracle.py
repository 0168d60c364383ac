"""The whole job once more, slowly and independently: GDAL's exact warp, float64 geomedian.

Nothing here imports the package. Scenes come from EO3 documents on disk; masks, fusing and the
order of steps follow the published rules, the arithmetic is plain NumPy in float64.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import rasterio
import yaml
from rasterio.enums import Resampling
from rasterio.warp import reproject


@dataclass(frozen=True)
class Recipe:
    """What to read and what to mask out."""

    product: str
    bands: tuple[str, ...]
    mask: str
    bad: tuple[int, ...]
    contiguity: str | None
    nodata: int
    resampling: Resampling = Resampling.bilinear


def read_scenes(folder: Path, recipe: Recipe) -> list[dict]:
    """Documents of one product in order of centre time, then id."""
    docs = []
    for path in sorted(Path(folder).rglob("*.odc-metadata.yaml")):
        doc = yaml.safe_load(path.read_text())
        if doc["product"]["name"] == recipe.product:
            props = doc["properties"]
            when = [
                datetime.fromisoformat(str(props[k])).replace(tzinfo=None)
                for k in ("dtr:start_datetime", "dtr:end_datetime")
                if k in props
            ] or [datetime.fromisoformat(str(props["datetime"])).replace(tzinfo=None)]
            doc["_time"] = when[0] + (when[-1] - when[0]) / 2
            doc["_folder"] = path.parent
            docs.append(doc)
    return sorted(docs, key=lambda d: (d["_time"], d["id"]))


def read_band(doc: dict, band: str) -> tuple[np.ndarray, rasterio.Affine, str]:
    """Pixels, transform and CRS of one band."""
    with rasterio.open(doc["_folder"] / doc["measurements"][band]["path"]) as src:
        return src.read(1), src.transform, src.crs.to_string()


def masked_scene(doc: dict, recipe: Recipe) -> tuple[np.ndarray, rasterio.Affine, str]:
    """(band, y, x) with nodata wherever mask or contiguity say so."""
    planes, transform, crs = [], None, ""
    for band in recipe.bands:
        plane, transform, crs = read_band(doc, band)
        planes.append(plane.copy())
    stack = np.stack(planes)
    bad = np.isin(read_band(doc, recipe.mask)[0], recipe.bad)
    if recipe.contiguity:
        bad |= read_band(doc, recipe.contiguity)[0] == 0
    stack[:, bad] = recipe.nodata
    return stack, transform, crs


def first_valid(stacks: list[np.ndarray], nodata: int) -> np.ndarray:
    """Per band and pixel the first value that is not nodata."""
    out = stacks[0].copy()
    for later in stacks[1:]:
        hole = out == nodata
        out[hole] = later[hole]
    return out


def mosaic(scenes: list[tuple[np.ndarray, rasterio.Affine]], nodata: int):
    """Fuse scenes that share CRS and pixel lattice on the union of their grids."""
    res = scenes[0][1].a
    left = min(t.c for _, t in scenes)
    top = max(t.f for _, t in scenes)
    right = max(t.c + s.shape[2] * res for s, t in scenes)
    bottom = min(t.f - s.shape[1] * res for s, t in scenes)
    shape = (scenes[0][0].shape[0], round((top - bottom) / res), round((right - left) / res))
    placed = []
    for stack, t in scenes:
        r, c = round((top - t.f) / res), round((t.c - left) / res)
        big = np.full(shape, nodata, stack.dtype)
        big[:, r : r + stack.shape[1], c : c + stack.shape[2]] = stack
        placed.append(big)
    return first_valid(placed, nodata), rasterio.Affine(res, 0, left, 0, -res, top)


def stack_of_days(
    folder: Path, recipe: Recipe, crs: str, transform, shape, utc_offset: int, year: int
) -> np.ndarray:
    """(day, band, y, x): every solar day of the year fused and warped onto the tile."""
    days: dict = defaultdict(lambda: defaultdict(list))
    for doc in read_scenes(folder, recipe):
        local = doc["_time"] + timedelta(hours=utc_offset)
        if local.year == year:
            stack, src_transform, src_crs = masked_scene(doc, recipe)
            days[local.date()][src_crs].append((stack, src_transform))
    out = []
    for groups in days.values():
        warped = []
        for src_crs, scenes in groups.items():
            native, src_transform = mosaic(scenes, recipe.nodata)
            dst = np.full((len(recipe.bands), *shape), recipe.nodata, native.dtype)
            for b in range(len(recipe.bands)):
                exact_warp(native[b], dst[b], src_transform, src_crs, transform, crs, recipe)
            warped.append(dst)
        out.append(first_valid(warped, recipe.nodata))
    return np.stack(out)


def exact_warp(src, dst, src_transform, src_crs, transform, crs, recipe: Recipe) -> None:
    """GDAL's warp without its approximations.

    `tolerance=0` asks for exact coordinates, but rasterio before 1.5 ignores it and interpolates
    along rows: over 16 columns that is exact to 2e-5 pixels, over 800 it is off by 0.04.
    """
    for x in range(0, dst.shape[1], 16):
        strip = np.full((dst.shape[0], min(16, dst.shape[1] - x)), recipe.nodata, dst.dtype)
        reproject(
            src, strip, src_transform=src_transform, src_crs=src_crs,
            dst_transform=transform * rasterio.Affine.translation(x, 0), dst_crs=crs,
            src_nodata=recipe.nodata, dst_nodata=recipe.nodata, resampling=recipe.resampling,
            tolerance=0, XSCALE=1, YSCALE=1,
        )  # fmt: skip
        dst[:, x : x + 16] = strip


def geomad(stack: np.ndarray, nodata: int, scale=1e-4, offset=-1e-4, rows: int = 16) -> dict:
    """Exact composite of a (day, band, y, x) stack; float64, NaN where nothing was seen."""
    parts = [
        _geomad_rows(stack[:, :, y : y + rows], nodata, scale, offset)
        for y in range(0, stack.shape[2], rows)
    ]
    return {k: np.concatenate([p[k] for p in parts], axis=-2) for k in parts[0]}


def _geomad_rows(stack, nodata, scale, offset):
    n, p, ny, nx = stack.shape
    x = stack.reshape(n, p, ny * nx).astype(np.float64)
    valid = (stack != nodata).all(axis=1).reshape(n, ny * nx)
    count = valid.sum(axis=0)
    y = geomedian(x, valid)
    d = x - y
    with np.errstate(all="ignore"):
        emad = _nanmedian(np.sqrt((d**2).sum(axis=1)), valid)
        xs, ys = x * scale + offset, y * scale + offset
        cos = (xs * ys).sum(axis=1) / np.sqrt((xs**2).sum(axis=1) * (ys**2).sum(axis=0))
        smad = _nanmedian(1 - cos, valid)
        bcmad = _nanmedian(np.abs(xs - ys).sum(axis=1) / np.abs(xs + ys).sum(axis=1), valid)
    flat = {"emad": emad, "smad": smad, "bcmad": bcmad, "count": count}
    out = {k: v.reshape(ny, nx) for k, v in flat.items()}
    out["geomedian"] = np.where(count, y, np.nan).reshape(p, ny, nx)
    return out


def _nanmedian(values, valid):
    values = np.where(valid & ~np.isnan(values), values, np.inf)
    n = np.isfinite(values).sum(axis=0)
    values = np.sort(values, axis=0)
    pick = np.take_along_axis
    low, high = np.maximum((n - 1) // 2, 0)[None], (n // 2).clip(max=len(values) - 1)[None]
    mid = (pick(values, low, 0)[0] + pick(values, high, 0)[0]) / 2
    return np.where(n > 0, mid, np.nan)


def geomedian(x: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Minimiser of the summed distances for (n, p, m) points: every sample tested, then Newton."""
    n, _, _ = x.shape
    w = valid.astype(np.float64)
    x = np.where(valid[:, None], x, 0.0)
    count = w.sum(axis=0)
    with np.errstate(all="ignore"):
        y = x.sum(axis=0) / count
        for _ in range(20):
            inv = w / np.maximum(np.sqrt(((x - y) ** 2).sum(axis=1)), 1e-12)
            y = np.where(count > 0, (x * inv[:, None]).sum(axis=0) / inv.sum(axis=0), y)
        y = _newton(x, w, y)
        for k in range(n):  # Vardi and Zhang: a sample is the median iff |R_k| <= multiplicity
            diff = x - x[k]
            dist = np.sqrt((diff**2).sum(axis=1))
            same = (dist == 0) & valid
            unit = np.where((dist > 0) & valid, 1 / np.where(dist > 0, dist, 1), 0)
            pull = np.sqrt(((diff * unit[:, None]).sum(axis=0) ** 2).sum(axis=0))
            at = valid[k] & (pull <= same.sum(axis=0)) & (count > 2)
            y = np.where(at, x[k], y)
        mean = x.sum(axis=0) / count
    return np.where(count <= 2, mean, y)


def _newton(x, w, y, steps: int = 40):
    p = x.shape[1]
    objective = _objective(x, w, y)
    for _ in range(steps):
        e = (x - y) * w[:, None]
        r = w / np.maximum(np.sqrt((e**2).sum(axis=1)), 1e-9)
        grad = (e * r[:, None]).sum(axis=0)
        scaled = e * (r**1.5)[:, None]
        hess = np.eye(p)[:, :, None] * r.sum(axis=0) - np.einsum("nam,nbm->abm", scaled, scaled)
        hess += np.eye(p)[:, :, None] * 1e-9 * (r.sum(axis=0) + 1)
        step = np.linalg.solve(hess.transpose(2, 0, 1), grad.T[:, :, None])[:, :, 0].T
        for _ in range(12):
            trial = y + step
            new = _objective(x, w, trial)
            better = new <= objective
            y = np.where(better, trial, y)
            objective = np.where(better, new, objective)
            step = np.where(better, 0.0, step * 0.4)
            if better.all():
                break
    return y


def _objective(x, w, y):
    return (np.sqrt(((x - y) ** 2).sum(axis=1)) * w).sum(axis=0)
