"""What reading a block costs, from documents alone: for the memory plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

from odc_stats_gpu.errors import DataError
from odc_stats_gpu.ingest._resample import KERNELS
from odc_stats_gpu.ingest._sources import header_of, source_of
from odc_stats_gpu.ingest._tiff import TiffError
from odc_stats_gpu.model import Block

if TYPE_CHECKING:
    from odc_stats_gpu.ingest._plan import Scene, TilePlan

_MASKS = 12
"""Bytes of a pixel's masks: classes found, cleaned, united, and the work arrays of cleaning."""
_RIM = 8
"""Pixels that scenes may be given around them before they are joined."""
_SAME = 1e-6
"""Pixels."""


def transient_bytes(plan: TilePlan, shape: tuple[int, int], threads: int) -> int:
    """Upper estimate of the arrays that reading a block of (rows, columns) needs besides the stack.

    A scene is its bands as read, as masked, masks and their work arrays; then, until its slot is
    done, what was masked; at last all scenes of the slot as joined, fused and gathered. One scene
    per thread is read, the others of the fullest slot may wait for each other.
    """
    block = _middle(plan, shape)
    read: list[int] = []
    waiting: list[int] = []
    joined, fullest = 0, 1
    for slot in plan.slots:
        count = sum(map(len, slot.groups))
        fullest = max(fullest, count)
        for group in slot.groups:
            together = [_joined_bytes(plan, s, block, len(group)) for s in group]
            waiting += together
            read += [
                max(_read_bytes(plan, s, block), t) for s, t in zip(group, together, strict=True)
            ]
        if len(slot.groups) > 1:
            layers = (len(slot.groups) + 1) * _planes(plan) * block.shape[0] * block.shape[1]
            joined = max(joined, layers * (threads // count + 1))
    most = sum(sorted(read, reverse=True)[:threads])
    return most + sum(sorted(waiting, reverse=True)[: fullest - 1]) + joined


def decoding_bytes(plan: TilePlan, shape: tuple[int, int], threads: int) -> int:
    """Upper estimate of the host memory that reading takes when arrays live on a device.

    Every thread holds one band of a scene, in its own pixels and in those of the basis; what only
    GDAL resamples comes back as a whole.
    """
    block = _middle(plan, shape)
    costs = []
    for scene in plan.scenes:
        each = 2 * max(b.dtype.itemsize for b in scene.bands)
        if scene.spec.resampling not in KERNELS:
            each += 2 * _planes(plan)
        costs.append(_pixels(plan, scene, block) * each)
    return sum(sorted(costs, reverse=True)[:threads])


def stored_side(plan: TilePlan) -> int:
    """Pixels of the tile along the side of a block of the first scene's file; 0: of no use.

    Of use are blocks whose edges lie on those of the tile's own pixels, counted from its corner:
    then no block of the file has to be decoded twice. Opens that one file, and only if its grid is
    parallel to the tile's.
    """
    scene = next(iter(plan.scenes), None)
    if scene is None or plan.frames[scene.planes[0].frame].crs != plan.task.geobox.crs:
        return 0
    grid = scene.planes[0].grid
    a, b, c, d, e, f = tuple(~grid.transform * plan.task.geobox.transform)[:6]
    if max(abs(b), abs(d), abs(a - e)) > _SAME or a <= 0:
        return 0
    try:
        source = source_of(scene.bands[0].file.uri)
        header = None if source is None else header_of(source)
    except (DataError, TiffError, OSError):
        return 0  # whoever reads it will say so
    if header is None or header.block[0] != header.block[1]:
        return 0
    side = header.block[0]
    in_phase = all(abs(n - side * round(n / side)) < _SAME for n in (c, f))
    whole = abs(side / a - round(side / a)) < _SAME
    return round(side / a) if in_phase and whole else 0


def _planes(plan: TilePlan) -> int:
    """Bytes of a pixel of all planes."""
    return len(plan.stack_bands) * plan.stack_dtype.itemsize


def _read_bytes(plan: TilePlan, scene: Scene, block: Block) -> int:
    """What a scene takes while it is read and masked."""
    read = sum(b.dtype.itemsize for b in scene.bands)
    return _pixels(plan, scene, block) * (read + 2 * _planes(plan) + _MASKS)


def _joined_bytes(plan: TilePlan, scene: Scene, block: Block, together: int) -> int:
    """Its part of what so many scenes take that are joined, each layer as large as all of them.

    A fused and a gathered layer follow, and the work arrays of masks that are cleaned only then.
    """
    window = plan.reading(scene, block)
    if window is None:
        return 0
    layers = _planes(plan) * (together + 2) + _MASKS
    return window.pad(_RIM).size * layers // together if together > 1 else 0


def _pixels(plan: TilePlan, scene: Scene, block: Block) -> int:
    """Pixels to read of the basis grid."""
    window = plan.reading(scene, block)
    return 0 if window is None else min(window.size, scene.planes[0].extent.size)


def _middle(plan: TilePlan, shape: tuple[int, int]) -> Block:
    """A block of that shape in the middle of the tile."""
    rows, cols = plan.whole.shape
    h, w = min(shape[0], rows), min(shape[1], cols)
    y, x = (rows - h) // 2, (cols - w) // 2
    return Block(y, y + h, x, x + w)
