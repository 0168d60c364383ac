"""One scene, one window: bands read onto the basis grid, then masked by the plugin."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from odc_stats_gpu import kernels
from odc_stats_gpu.errors import DataError
from odc_stats_gpu.ingest._bands import SceneBand, usable
from odc_stats_gpu.ingest._device import Device
from odc_stats_gpu.ingest._patience import called_off_by
from odc_stats_gpu.ingest._plan import Plane, Scene, TilePlan
from odc_stats_gpu.ingest._reader import BandReader
from odc_stats_gpu.ingest._window import Window, apply
from odc_stats_gpu.model import Block, Grid, NativeBand
from odc_stats_gpu.telemetry import stage

_EDGE = 1e-6
"""Pixels: a centre that close before an edge lies on it (as in the warp)."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Variables of one plane of one scene after `native_transform`."""

    window: Window
    """Where they lie in the plane's frame."""
    variables: dict[str, xr.Variable]


def read_scene(
    plan: TilePlan, scene: Scene, block: Block, device: Device, check: Callable[[], None]
) -> tuple[Piece, ...]:
    """Read and mask what a block needs of a scene: one piece per plane.

    Raises:
        DataError: a file that is missing, damaged or not what its document says, by name.
    """
    base = scene.planes[0]
    reading = plan.reading(scene, block)
    window = base.extent if reading is None else reading.clip(base.extent)
    native = window.shift(-base.row, -base.col)
    found: dict[str, xr.Variable] = {}
    for band, (pixels, nodata) in zip(
        scene.bands, _read(scene, native, base.grid, check), strict=True
    ):
        found[band.name] = _variable(device.upload(pixels), band, nodata)
    dataset = xr.Dataset(found, attrs={"id": str(scene.dataset.id), "product": scene.product.name})
    with stage("mask"):
        made = plan.plugin.native_transform(dataset, scene.product)
    variables = {b.name: _made(made, b, plan.plugin.name, window.shape) for b in plan.stack_bands}
    pieces = [Piece(window, variables)]
    for plane in scene.planes[1:]:
        pieces.append(_own_piece(plan, scene, plane, block, pieces[0], device, check))
    return tuple(pieces)


def _read(
    scene: Scene, native: Window, onto: Grid, check: Callable[[], None]
) -> Iterator[tuple[npt.NDArray[Any], float | int | None]]:
    """Band after band in a window of the grid `onto`, with the nodata value that holds for it."""
    for band in scene.bands:
        check()
        with called_off_by(check):
            read = _band(band, scene, native, onto, check)
        yield read


def _band(
    band: SceneBand, scene: Scene, native: Window, onto: Grid, check: Callable[[], None]
) -> tuple[npt.NDArray[Any], float | int | None]:
    reader = BandReader(band.file.uri, band.file.layer, band.grid, scene.dataset.crs)
    nodata = band.nodata
    if band.measurement.nodata is None and reader.facts.nodata is not None:
        nodata = usable(reader.facts.nodata, band.dtype)
    if band.grid == onto:
        return _typed(reader.read(native, check), band), nodata
    fill = 0 if nodata is None else nodata
    rows, cols = _lookup(onto, band.grid, native)
    inside = Window(
        int(rows.min()), int(rows.max()) + 1, int(cols.min()), int(cols.max()) + 1
    ).clip(Window(0, band.grid.shape[0], 0, band.grid.shape[1]))
    if not inside.size:
        return np.full(native.shape, fill, band.dtype), nodata
    pixels = _typed(reader.read(inside, check), band)
    with stage("decode"):
        if rows.ndim == 1:
            at = (rows - inside.r0, cols - inside.c0)
            return kernels.nearest_onto(pixels, *at, fill=fill), nodata
        return _gather(pixels, rows - inside.r0, cols - inside.c0, fill), nodata


def _lookup(
    onto: Grid, grid: Grid, native: Window
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Row and column of `grid` under every pixel centre of a window of `onto`.

    One dimension each where the grids are parallel, two dimensions otherwise.
    """
    r = np.arange(native.r0, native.r1) + 0.5
    c = np.arange(native.c0, native.c1) + 0.5
    a, b, _, d, e, _ = tuple(~grid.transform * onto.transform)[:6]
    if max(abs(b), abs(d)) * max(native.shape) > _EDGE:
        c, r = np.meshgrid(c, r)
    elif max(abs(a), abs(e)) == 0:
        raise DataError(f"grids {onto} and {grid} have nothing in common")
    cols, _ = apply(~grid.transform, *apply(onto.transform, c, r[:1] if r.ndim == 1 else r))
    _, rows = apply(~grid.transform, *apply(onto.transform, c[:1] if c.ndim == 1 else c, r))
    return (
        np.floor(rows + _EDGE).astype(np.int64),
        np.floor(cols + _EDGE).astype(np.int64),
    )


def _gather(
    pixels: npt.NDArray[Any],
    rows: npt.NDArray[np.int64],
    cols: npt.NDArray[np.int64],
    fill: float,
) -> npt.NDArray[Any]:
    """Nearest between grids that are rotated against each other."""
    h, w = pixels.shape
    inside = (rows >= 0) & (rows < h) & (cols >= 0) & (cols < w)
    found = pixels[np.clip(rows, 0, h - 1), np.clip(cols, 0, w - 1)]
    return np.where(inside, found, pixels.dtype.type(fill))


def _typed(pixels: npt.NDArray[Any], band: SceneBand) -> npt.NDArray[Any]:
    """Pixels in the type of the product definition; raises DataError where values don't fit."""
    if pixels.dtype == band.dtype:
        return pixels
    with np.errstate(invalid="ignore"):
        cast = pixels.astype(band.dtype)
    if not np.array_equal(cast.astype(pixels.dtype), pixels, equal_nan=pixels.dtype.kind == "f"):
        raise DataError(
            f"{band.file.uri} holds {pixels.dtype} values that don't fit {band.dtype}, the type of"
            f" {band.measurement.name} in the product definition",
            "correct the definition or the file",
        )
    return cast


def _variable(pixels: Any, band: SceneBand, nodata: float | None) -> xr.Variable:
    attrs = {
        "nodata": nodata,
        "units": band.measurement.units,
        "flags_definition": band.measurement.flags,
    }
    return xr.Variable(("y", "x"), pixels, attrs, fastpath=True)


def _made(made: xr.Dataset, band: NativeBand, plugin: str, shape: tuple[int, int]) -> xr.Variable:
    """A variable that the plugin made, held against what it promised."""
    variable = made.variables.get(band.name)
    if variable is None or variable.shape != shape:
        what = "none" if variable is None else f"one of shape {variable.shape}"
        raise DataError(
            f"native_transform of plugin {plugin} should return {band.name!r} of shape {shape},"
            f" it returned {what}",
            "correct the plugin",
        )
    return variable


def _own_piece(
    plan: TilePlan,
    scene: Scene,
    plane: Plane,
    block: Block,
    basis: Piece,
    device: Device,
    check: Callable[[], None],
) -> Piece:
    """Bands on their own grid, missing where the basis pixel under their centre is."""
    need = plan.need(scene, plane, block)
    window = plane.extent if need is None else need.within(plane.extent)
    native = window.shift(-plane.row, -plane.col)
    base = scene.planes[0]
    rows, cols = _lookup(plane.grid, base.grid, native)
    rows, cols = rows + base.row - basis.window.r0, cols + base.col - basis.window.c0
    variables = {}
    for band in (b for b in scene.bands if b.name in plane.names and b.name in basis.variables):
        pixels, _ = _band(band, scene, native, plane.grid, check)
        masked = basis.variables[band.name]
        nodata = masked.attrs.get("nodata")
        if nodata is None:
            continue
        with stage("mask"):
            under = kernels.nearest_onto(masked.data, rows, cols, fill=nodata)
            bad = under != under if nodata != nodata else under == nodata  # noqa: PLR0124 - NaN
            planes = kernels.mask_where(device.upload(pixels), bad, nodata)
        variables[band.name] = xr.Variable(("y", "x"), planes, masked.attrs, fastpath=True)
    return Piece(window, variables)
