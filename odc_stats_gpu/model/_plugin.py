"""The contract between plugins, ingest and output: what a product reads, makes and how."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from array_api_compat import array_namespace

if TYPE_CHECKING:
    import xarray as xr

    from odc_stats_gpu.model._dataset import Product

Resampling = Literal["nearest", "bilinear", "cubic", "average"]


@dataclass(frozen=True, slots=True)
class InputSpec:
    """What a plugin needs read from every scene."""

    bands: tuple[str, ...]
    """Bands to load, names or aliases of the product definition; datasets carry these names."""
    basis: str = ""
    """Band whose native grid the others are brought onto; empty: the first of `bands`."""
    optional: frozenset[str] = frozenset()
    """Bands that a product may lack; their absence is one warning."""
    resampling: str = "bilinear"
    """For every output of `native_transform`; names a kernel lacks go through GDAL."""
    group_by: Literal["solar_day", "time", "idx"] = "solar_day"
    margin: int = 0
    """Native pixels read around a window so that mask cleaning sees past its edge."""
    native_bands: Literal["basis", "own"] = "basis"
    """`own` warps each band from its own grid instead of from the basis grid."""
    transform_code: str | None = None
    """PROJ operation between scene and tile CRS, e.g. EPSG:9688; None lets PROJ choose."""
    area_of_interest: tuple[float, float, float, float] | None = None
    """West, south, east, north in degrees, for PROJ's choice of an operation."""


@dataclass(frozen=True, slots=True)
class NativeBand:
    """One variable that `native_transform` (and `fuse`) returns: a plane of the stack."""

    name: str
    dtype: str
    nodata: float | int | None
    """None: every pixel counts, and what lies outside the scenes is 0."""


@dataclass(frozen=True, slots=True)
class OutputBand:
    """One band of the product."""

    name: str
    dtype: str
    nodata: float | int | None
    """None: no nodata tag (counts)."""
    units: str = "1"
    categorical: bool = False
    """Counts and classes: overviews by nearest or mode, never by average."""


class Plugin(Protocol):
    """What the engine asks of a plugin; `odc_stats_gpu.plugins.StatsPlugin` is the base to extend.

    Datasets are `xarray.Dataset`s, NumPy- or CuPy-backed, dims (y, x) for a scene, (time, y, x)
    for a stack whose variables are views of one (band, time, y, x) allocation.
    Every variable has `nodata` in its attrs (None where every value counts).
    """

    name: str
    """As output product default, e.g. gm_ls_annual."""
    short_name: str
    version: str
    product_family: str
    rgb_bands: tuple[str, str, str] | None
    rgb_clamp: tuple[float, float]

    def inputs(self, product: Product) -> InputSpec:
        """What to read of a scene of this product; raises ConfigError for unknown bands/classes."""

    def native_bands(self, products: Mapping[str, Product]) -> tuple[NativeBand, ...]:
        """Planes of the stack."""

    def output_bands(self, products: Mapping[str, Product]) -> tuple[OutputBand, ...]:
        """Bands of the product in file order."""

    def native_transform(self, scene: xr.Dataset, product: Product) -> xr.Dataset:
        """Mask one scene in native pixels: dims (y, x) in, the NativeBands out."""

    def native_fuse(self, scenes: xr.Dataset) -> xr.Dataset:
        """Join the scenes of a group that share a pixel lattice: (time, y, x) in, (y, x) out.

        Called before the warp, also when the group has one scene.
        """

    def fuse(self, scenes: xr.Dataset) -> xr.Dataset:
        """Join the CRS groups of one solar day after the warp: (time, y, x) in, (y, x) out."""

    def reduce(self, stack: xr.Dataset) -> xr.Dataset:
        """The product itself: (time, y, x) in, the OutputBands with dims (y, x) out."""


@dataclass(frozen=True, slots=True)
class Block:
    """A rectangle of the tile in output pixels: rows y0..y1, columns x0..x1, half open."""

    y0: int
    y1: int
    x0: int
    x1: int

    @property
    def shape(self) -> tuple[int, int]:
        """Rows, columns."""
        return (self.y1 - self.y0, self.x1 - self.x0)

    @property
    def slices(self) -> tuple[slice, slice]:
        """To index an array of the tile."""
        return (slice(self.y0, self.y1), slice(self.x0, self.x1))


@dataclass(frozen=True, slots=True)
class RunInfo:
    """Facts about the run that end in the metadata of every tile."""

    software: Mapping[str, str] = field(default_factory=dict)
    device: str = "cpu"
    config_hash: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)


def as_stack(ds: xr.Dataset, names: Sequence[str] | None = None) -> Any:
    """The variables as one (band, time, y, x) array, NumPy or CuPy as they are.

    Args:
        ds: Dataset of a block, as `ingest.load_block` gives it to `reduce`.
        names: Bands wanted, in this order; default all in the dataset's order.

    Returns:
        A view of the one allocation behind the variables where they are neighbours in it
        (always so for all bands of a block); a stacked copy otherwise.
    """
    arrays = [ds[name].data for name in (names if names is not None else list(ds.data_vars))]
    first, space = arrays[0], array_namespace(arrays[0])  # CuPy's arrays don't tell theirs
    at = [_address(a) for a in arrays]
    step = at[1] - at[0] if len(at) > 1 else first.nbytes
    if first.base is not None and all(
        a.base is first.base
        and (a.shape, a.strides, a.dtype) == (first.shape, first.strides, first.dtype)
        and where == at[0] + i * step
        for i, (a, where) in enumerate(zip(arrays, at, strict=True))
    ):
        stack = space.lib.stride_tricks.as_strided(
            first, shape=(len(at), *first.shape), strides=(step, *first.strides)
        )
    else:
        stack = space.stack(arrays)
    return stack if type(stack) is type(first) else stack.view(type(first))  # simulated device


def _address(array: Any) -> int:
    """Where the first element lies, in host or device memory."""
    facts = getattr(array, "__cuda_array_interface__", None) or array.__array_interface__
    return int(facts["data"][0])
