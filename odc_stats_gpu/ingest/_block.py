"""From scenes to the stack of one block: read, mask, fuse, warp, on a pool of threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass, field
from typing import Any

import xarray as xr

from odc_stats_gpu.errors import DataError
from odc_stats_gpu.ingest._device import Device, Host
from odc_stats_gpu.ingest._plan import Scene, TilePlan
from odc_stats_gpu.ingest._resample import KERNELS, resample, taps
from odc_stats_gpu.ingest._scene import Piece, read_scene
from odc_stats_gpu.ingest._window import Window
from odc_stats_gpu.model import Block, NativeBand, as_stack
from odc_stats_gpu.telemetry import stage


def load_block(
    plan: TilePlan,
    block: Block,
    pool: Executor,
    *,
    device: Device | None = None,
    check: Callable[[], None] | None = None,
) -> xr.Dataset:
    """Read a block of the tile.

    Args:
        plan: from `plan_tile`.
        block: rectangle of the tile, in output pixels.
        pool: threads that read, mask and warp; their number bounds what is in memory.
        device: where the stack and the native planes live; None: NumPy.
        check: called often, between reads; may raise `Cancelled`, which ends the block at once.

    Returns:
        One variable (time, y, x) per NativeBand, with `nodata` in its attrs: views of one
        (band, time, y, x) allocation, which `model.as_stack` gives back. Coordinate `time`.
        A tile without scenes has one time step without data.

    Raises:
        DataError: an unusable file or document, by name. No thread works on the block any more.
        Cancelled: whatever `check` raised.
    """
    check = check or _go_on
    device = device or Host()
    shape = (len(plan.stack_bands), len(plan.times), *block.shape)
    slots = []
    with device.active():
        stack = device.empty(shape, plan.stack_dtype)
        for index in range(len(plan.times)):
            groups = plan.slots[index].groups if plan.slots else ()
            touching = [[s for s in group if plan.touches(s, block)] for group in groups]
            touching = [group for group in touching if group]
            if touching:
                slots.append(_Slot(plan, block, touching, stack[:, index], device))
            else:
                _blank(stack[:, index], plan.stack_bands)
    _run(slots, pool, check)
    variables = {
        band.name: xr.Variable(("time", "y", "x"), stack[i], {"nodata": band.nodata}, fastpath=True)
        for i, band in enumerate(plan.stack_bands)
    }
    return xr.Dataset(variables, coords={"time": plan.times})


def _go_on() -> None:
    """Nobody wants to cancel."""


def _blank(planes: Any, bands: tuple[NativeBand, ...]) -> None:
    for plane, band in zip(planes, bands, strict=True):
        plane[...] = 0 if band.nodata is None else band.nodata


@dataclass
class _Slot:
    """One time step at work: whichever thread brings the last scene joins and warps them all."""

    plan: TilePlan
    block: Block
    groups: list[list[Scene]]
    out: Any
    """(band, y, x) of the stack."""
    device: Device
    _pieces: dict[tuple[int, int], tuple[Piece, ...]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def places(self) -> list[tuple[int, int]]:
        """(group, scene) of every scene."""
        return [(g, s) for g, group in enumerate(self.groups) for s in range(len(group))]

    def work(self, place: tuple[int, int], check: Callable[[], None]) -> int:
        """Read one scene; when it was the last one, finish the slot: all its scenes are let go.

        Returns how many scenes that were.
        """
        group, scene = place
        with self.device.active():
            pieces = read_scene(
                self.plan, self.groups[group][scene], self.block, self.device, check
            )
            with self._lock:
                self._pieces[place] = pieces
                last = len(self._pieces) == sum(map(len, self.groups))
            if not last:
                return 0
            check()
            self._finish()
            count = len(self._pieces)
            self._pieces.clear()
            return count

    def _finish(self) -> None:
        if len(self.groups) == 1:
            self._warp(0, self.out)
            return
        bands = self.plan.stack_bands
        shape = (len(bands), len(self.groups), *self.block.shape)
        layers = self.device.empty(shape, self.plan.stack_dtype)
        for group in range(len(self.groups)):
            self._warp(group, layers[:, group])
        with stage("fuse"):
            variables = {
                b.name: xr.Variable(
                    ("time", "y", "x"), layers[i], {"nodata": b.nodata}, fastpath=True
                )
                for i, b in enumerate(bands)
            }
            fused = self.plan.plugin.fuse(xr.Dataset(variables))
            for i, band in enumerate(bands):
                self.out[i] = _given(fused, band.name, "fuse", self.plan.plugin.name).data

    def _warp(self, group: int, out: Any) -> None:
        """Join the scenes of a group in native pixels and warp them into `out` (band, y, x)."""
        scenes = self.groups[group]
        for number, plane in enumerate(scenes[0].planes):
            pieces = [self._pieces[group, s][number] for s in range(len(scenes))]
            names: set[Hashable] = set(pieces[0].variables)
            if number == 0:
                names -= {n for p in scenes[0].planes[1:] for n in p.names}
            bands = [b for b in self.plan.stack_bands if b.name in names]
            if not bands:
                continue
            with stage("fuse"):
                window, fused = self._join(pieces, bands, scenes[0])
            with stage("warp"):
                for first, run in _runs(self.plan.stack_bands, names, fused):
                    src = as_stack(fused, [b.name for b in run])
                    resample(
                        src,
                        out[first : first + len(run)],
                        frame=self.plan.frames[plane.frame],
                        window=window,
                        geobox=self.plan.task.geobox,
                        block=self.block,
                        resampling=scenes[0].spec.resampling,
                        nodata=fused[run[0].name].attrs.get("nodata", run[0].nodata),
                        fill=run[0].nodata,
                        upload=self.device.upload,
                    )

    def _join(
        self, pieces: list[Piece], bands: list[NativeBand], scene: Scene
    ) -> tuple[Window, xr.Dataset]:
        """`native_fuse` over the pieces, in order; where they lie together.

        Planes without nodata get a rim of zeros, and GDAL one of nodata: what a resampling sees
        beyond the edge of a scene must not depend on whether the block reaches another one.
        """
        window = pieces[0].window
        for piece in pieces[1:]:
            window = window.hull(piece.window)
        resampling = scene.spec.resampling
        if resampling not in KERNELS or any(b.nodata is None for b in bands):
            window = window.pad(scene.spec.margin + taps(resampling))
        variables = {}
        for band in bands:
            sources = [p.variables.pop(band.name) for p in pieces]  # not needed again
            attrs = {"nodata": band.nodata, **sources[0].attrs}
            if len(pieces) == 1 and pieces[0].window == window:
                layers = sources[0].data[None]
            else:
                shape = (len(pieces), *window.shape)
                layers = self.device.empty(shape, sources[0].dtype)
                layers[...] = 0 if attrs["nodata"] is None else attrs["nodata"]
                for layer, piece, source in zip(layers, pieces, sources, strict=True):
                    layer[piece.window.shift(-window.r0, -window.c0).slices] = source.data
            variables[band.name] = xr.Variable(("time", "y", "x"), layers, attrs, fastpath=True)
        fused = self.plan.plugin.native_fuse(xr.Dataset(variables))
        plugin = self.plan.plugin.name
        checked = {b.name: _given(fused, b.name, "native_fuse", plugin) for b in bands}
        return window, xr.Dataset(checked)


def _given(ds: xr.Dataset, name: str, hook: str, plugin: str) -> xr.Variable:
    variable = ds.variables.get(name)
    if variable is None or variable.ndim != 2:
        what = "none" if variable is None else f"one with dims {variable.dims}"
        raise DataError(
            f"{hook} of plugin {plugin} should return {name!r} of dims (y, x), it returned {what}",
            "correct the plugin",
        )
    return variable


def _runs(
    stack: tuple[NativeBand, ...], names: set[Hashable], fused: xr.Dataset
) -> Iterator[tuple[int, list[NativeBand]]]:
    """Those of the bands that one call of the warp can take together, and where they begin.

    They are neighbours in the stack: bands of another plane may lie between two of this one.
    """
    run: list[NativeBand] = []
    for place, band in enumerate(stack):
        if run and (band.name not in names or _kind(run[0], fused) != _kind(band, fused)):
            yield place - len(run), run
            run = []
        if band.name in names:
            run.append(band)
    if run:
        yield len(stack) - len(run), run


def _kind(band: NativeBand, fused: xr.Dataset) -> tuple[Any, ...]:
    variable = fused[band.name]
    return (variable.dtype, repr(variable.attrs.get("nodata", band.nodata)), repr(band.nodata))


def _run(slots: list[_Slot], pool: Executor, check: Callable[[], None]) -> None:
    """Keep the pool busy, slot by slot, without reading far ahead; stop at the first error.

    A thread's scene and the others of its slot are as much as is begun and not let go: what
    `TilePlan.transient_bytes` counts with. One more may wait for a thread.
    """
    stop = threading.Event()
    workers = int(getattr(pool, "_max_workers", 1))

    def checked() -> None:
        if stop.is_set():
            raise _Stopped
        check()

    running: set[Future[int]] = set()
    begun = 0
    try:
        for slot in slots:
            most = workers + max(1, len(slot.places()) - 1)
            for place in slot.places():
                while begun >= most:
                    running, gone = _reap(running)
                    begun -= gone
                check()
                running.add(pool.submit(slot.work, place, checked))
                begun += 1
        while running:
            running, _ = _reap(running)
    except BaseException:
        stop.set()
        for future in running:
            future.cancel()
        wait(running)  # nobody may write into the stack after this call
        raise


class _Stopped(Exception):  # noqa: N818 - ends a thread whose block is given up
    """Another scene of the block failed."""


def _reap(running: set[Future[int]]) -> tuple[set[Future[int]], int]:
    """Wait for one future at least; those left, and how many scenes were let go.

    Raises what a future raised.
    """
    done, rest = wait(running, return_when=FIRST_COMPLETED)
    return rest, sum(future.result() for future in done)
