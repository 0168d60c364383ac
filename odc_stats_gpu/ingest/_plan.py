"""What a tile will read, decided from documents alone: no file is opened here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from odc_stats_gpu.errors import ConfigError, DataError
from odc_stats_gpu.ingest._bands import SceneBand, resolve_bands, scene_bands
from odc_stats_gpu.ingest._cost import decoding_bytes, transient_bytes
from odc_stats_gpu.ingest._frames import Frame, Frames
from odc_stats_gpu.ingest._outline import Outline, outline
from odc_stats_gpu.ingest._resample import check_resampling, taps
from odc_stats_gpu.ingest._window import Window
from odc_stats_gpu.model import Block, Dataset, Grid, InputSpec, NativeBand, Plugin, Product, Task

_ALIGNMENT = 64


@dataclass(frozen=True, slots=True)
class Plane:
    """Bands of a scene that are warped from one pixel grid."""

    grid: Grid
    frame: int
    """Index into `TilePlan.frames`."""
    row: int
    """Row of the frame in which the grid's first pixel lies."""
    col: int
    """Its column."""
    names: frozenset[str]
    """Variables of the plane; of the first one all that no other plane has."""

    @property
    def extent(self) -> Window:
        """The whole grid, in pixels of the frame."""
        rows, cols = self.grid.shape
        return Window(self.row, self.row + rows, self.col, self.col + cols)


@dataclass(frozen=True, slots=True)
class Scene:
    """One dataset, ready to be read."""

    dataset: Dataset
    product: Product
    spec: InputSpec
    bands: tuple[SceneBand, ...]
    """Basis band first."""
    planes: tuple[Plane, ...]
    """Basis grid first; more with `native_bands: own` only."""
    outline: Outline | None
    """Valid-data footprint in pixels of the basis frame."""

    @property
    def group(self) -> tuple[Any, ...]:
        """Scenes of a slot with the same key are joined before the warp."""
        key = tuple((p.frame, tuple(sorted(p.names))) for p in self.planes)
        return (*key, self.spec.resampling)


@dataclass(frozen=True, slots=True)
class Slot:
    """Scenes that become one time step of the stack."""

    time: datetime
    """Centre time of the first scene, naive UTC."""
    groups: tuple[tuple[Scene, ...], ...]
    """Scenes that share CRS and pixel lattice, groups in the order of their first scene."""


@dataclass(frozen=True)
class TilePlan:
    """Everything that reading a tile's blocks needs, and what it will cost."""

    task: Task
    plugin: Plugin
    slots: tuple[Slot, ...]
    """Time steps in order; none when no scene touches the tile."""
    frames: tuple[Frame, ...] = field(repr=False)
    stack_bands: tuple[NativeBand, ...]
    """Planes of the stack, in order."""
    stack_dtype: np.dtype[Any]
    """Type of the one allocation that holds them."""
    threads: int
    """Threads that `transient_bytes` reckons with unless told otherwise."""
    alignment: int = _ALIGNMENT
    """Block edges should be multiples of this, in output pixels."""
    _needs: dict[tuple[int, Block, int], Window | None] = field(
        default_factory=dict, repr=False, compare=False
    )

    @cached_property
    def times(self) -> npt.NDArray[np.datetime64]:
        """Time of every step of the stack; a tile without scenes has one empty step."""
        times = [s.time for s in self.slots] or [self.task.period.center]
        return np.array(times, dtype="datetime64[ns]")

    @cached_property
    def scenes(self) -> tuple[Scene, ...]:
        """All scenes that touch the tile, in order of slot, group, time and id."""
        return tuple(s for slot in self.slots for group in slot.groups for s in group)

    @property
    def days(self) -> int:
        """Different solar days."""
        offset = self.task.utc_offset
        return len({(s.dataset.time + offset).date() for s in self.scenes})

    @property
    def whole(self) -> Block:
        """The tile as one block."""
        rows, cols = self.task.geobox.shape
        return Block(0, int(rows), 0, int(cols))

    def need(self, scene: Scene, plane: Plane, block: Block) -> Window | None:
        """Frame pixels of a plane that the warp of a block reads, the margin not included."""
        reach = taps(scene.spec.resampling)
        key = (plane.frame, block, reach)
        if key not in self._needs:
            self._needs[key] = self.frames[plane.frame].need(block, reach)
        return self._needs[key]

    def reading(self, scene: Scene, block: Block) -> Window | None:
        """Pixels of the basis frame to read for a block, with the margin, not yet clipped."""
        base = scene.planes[0]
        window = self.need(scene, base, block)
        if window is None:
            return None
        for plane in scene.planes[1:]:
            own = self.need(scene, plane, block)
            if own is not None:
                window = window.hull(own.mapped(plane.extent, base.extent))
        return window.pad(scene.spec.margin)

    def touches(self, scene: Scene, block: Block) -> bool:
        """Whether a scene can give a pixel of the block a value: by its grid, then its outline."""
        window = self.reading(scene, block)
        if window is None or not window.clip(scene.planes[0].extent).size:
            return False
        return scene.outline is None or scene.outline.meets(window)

    def touching(self, block: Block) -> tuple[Scene, ...]:
        """Scenes that will be opened for a block."""
        return tuple(s for s in self.scenes if self.touches(s, block))

    def stack_bytes(self, shape: tuple[int, int]) -> int:
        """Size of the stack of a block of (rows, columns)."""
        pixels = shape[0] * shape[1]
        return len(self.stack_bands) * len(self.times) * pixels * self.stack_dtype.itemsize

    def transient_bytes(self, shape: tuple[int, int], threads: int | None = None) -> int:
        """Upper estimate of what reading such a block takes besides the stack, where that is."""
        return transient_bytes(self, shape, threads or self.threads)

    def decoding_bytes(self, shape: tuple[int, int], threads: int | None = None) -> int:
        """Upper estimate of host memory for reading when the stack is on a device."""
        return decoding_bytes(self, shape, threads or self.threads)

    def describe(self) -> Mapping[str, int]:
        """Counts for a dry run: datasets, days, slots, files to open, native bytes to decode."""
        pixels = 0.0
        for scene in self.scenes:
            window = self.reading(scene, self.whole)
            if window is not None:
                size = window.clip(scene.planes[0].extent).size
                pixels += sum(_share(b, scene) * size * b.dtype.itemsize for b in scene.bands)
        return {
            "datasets": len(self.scenes),
            "days": self.days,
            "slots": len(self.slots),
            "reads": sum(len(s.bands) for s in self.scenes),
            "native_bytes": int(pixels),
            "crs": len({f.crs for f in self.frames}),
        }


def _share(band: SceneBand, scene: Scene) -> float:
    """Pixels of a band per pixel of the basis grid."""
    area = abs(scene.planes[0].grid.transform.determinant)
    return area / abs(band.grid.transform.determinant)


def plan_tile(task: Task, plugin: Plugin, *, threads: int = 1) -> TilePlan:
    """Decide what a tile reads, in which order it is joined, and where it falls.

    Opens no file. Scenes that don't touch the tile are dropped.

    Raises:
        ConfigError: a band that a product lacks, listing the known ones; unknown resampling.
        DataError: a dataset of a product without definition, without a needed band or with an
            unusable CRS, by name.
    """
    stack_bands = plugin.native_bands(task.products)
    if not stack_bands:
        raise ConfigError(f"plugin {plugin.name} makes no bands", "list some under `bands`")
    frames = Frames(task.geobox)
    specs: dict[str, tuple[Product, InputSpec, Any]] = {}
    scenes = []
    for dataset in sorted(task.datasets, key=lambda d: (d.time, d.id)):
        if dataset.product not in specs:
            specs[dataset.product] = _spec(task, plugin, dataset)
        product, spec, bands = specs[dataset.product]
        scenes.append(_scene(dataset, product, spec, scene_bands(dataset, bands), frames))
    draft = TilePlan(
        task=task,
        plugin=plugin,
        slots=(),
        frames=frames.made,
        stack_bands=tuple(stack_bands),
        stack_dtype=np.result_type(*(np.dtype(b.dtype) for b in stack_bands)),
        threads=max(threads, 1),
    )
    kept = [s for s in scenes if draft.touches(s, draft.whole)]
    slots = tuple(_slots(kept, task))
    return TilePlan(**{**_fields(draft), "slots": slots})


def _fields(plan: TilePlan) -> dict[str, Any]:
    names = ("task", "plugin", "slots", "frames", "stack_bands", "stack_dtype", "threads")
    return {n: getattr(plan, n) for n in names}


def _spec(task: Task, plugin: Plugin, dataset: Dataset) -> tuple[Product, InputSpec, Any]:
    product = task.products.get(dataset.product)
    if product is None:
        raise DataError(
            f"dataset {dataset.id} is of product {dataset.product!r}, whose definition is missing",
            f"known: {', '.join(sorted(task.products)) or 'none'}; save the tasks again",
        )
    spec = plugin.inputs(product)
    check_resampling(spec)
    return product, spec, resolve_bands(product, spec)


def _scene(
    dataset: Dataset,
    product: Product,
    spec: InputSpec,
    bands: tuple[SceneBand, ...],
    frames: Frames,
) -> Scene:
    basis = bands[0].grid
    grids = [basis]
    if spec.native_bands == "own":
        grids += [b.grid for b in bands if b.grid != basis and b.name in spec.bands]
    planes = []
    for grid in dict.fromkeys(grids):
        names = frozenset(b.name for b in bands if b.grid == grid)
        planes.append(Plane(grid, *frames.place(dataset, grid, spec), names))
    shape = outline(dataset, frames.made[planes[0].frame], planes[0].extent)
    if len(planes) == 1:  # masks that the plugin makes itself have names of their own
        planes = [Plane(basis, planes[0].frame, planes[0].row, planes[0].col, frozenset())]
    return Scene(dataset, product, spec, bands, tuple(planes), shape)


def _slots(scenes: list[Scene], task: Task) -> list[Slot]:
    """Scenes in order of time and id, gathered by slot and by group."""
    keys: dict[str, Callable[[Dataset], Any]] = {
        "solar_day": lambda d: (d.time + task.utc_offset).date(),
        "time": lambda d: d.time,
        "idx": lambda d: d.id,
    }
    found: dict[Any, dict[Any, list[Scene]]] = {}
    for scene in scenes:
        slot = found.setdefault(keys[scene.spec.group_by](scene.dataset), {})
        slot.setdefault(scene.group, []).append(scene)
    return [
        Slot(next(iter(groups.values()))[0].dataset.time, tuple(tuple(g) for g in groups.values()))
        for groups in found.values()
    ]
