"""The base to extend: what a product reads, what it keeps of a scene, what it makes of a stack."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import xarray as xr

from odc_stats_gpu import kernels
from odc_stats_gpu.errors import ConfigError
from odc_stats_gpu.model import InputSpec, NativeBand, OutputBand, Product
from odc_stats_gpu.plugins._classes import known_band
from odc_stats_gpu.plugins._config import PluginConfig, hint
from odc_stats_gpu.plugins._planes import convert, empty_plane, empty_value, native_planes

Numerics = Literal["exact", "compat"]


class StatsPlugin(ABC):
    """A product. Only `reduce` must be written; docs/plugins.md shows one in a file of its own.

    Datasets are NumPy- or CuPy-backed, dims (y, x) for a scene and (time, y, x) for a stack; every
    variable has `nodata` in its attrs, None where every value counts. Methods keep no state between
    pixels: blocks are reduced in any order, by any number of workers.
    """

    Config: ClassVar[type[PluginConfig]] = PluginConfig
    """The keys of `plugin_config`; a subclass of PluginConfig adds its own."""
    name: str = ""
    """Default name of the output product."""
    short_name: str = ""
    """Default start of file names; empty: the name."""
    version: str = "0.0.0"
    product_family: str = ""
    planes: tuple[NativeBand, ...] = ()
    """What `native_transform` makes; empty: every band read, in its own type."""
    outputs: tuple[OutputBand, ...] = ()
    """What `reduce` makes; empty: the planes, or those of them that `measurements` lists."""
    config: PluginConfig

    def __init__(
        self,
        config: PluginConfig | Mapping[str, Any] | None = None,
        *,
        numerics: Numerics = "exact",
    ) -> None:
        """Check the configuration; raises ConfigError naming the key, the value and the remedy."""
        self.name = self.name or type(self).__name__.lower()
        self.short_name = self.short_name or self.name
        if not isinstance(config, PluginConfig):
            config = self.Config.parse(config, f"plugin_config of {self.name}")
        self.config = config
        self.numerics = numerics
        self.rgb_bands: tuple[str, str, str] | None = config.rgb_bands
        self.rgb_clamp: tuple[float, float] = config.rgb_clamp
        self._bound: tuple[NativeBand, ...] = ()

    # what is read -------------------------------------------------------------------------------

    def bands_of(self, product: Product) -> tuple[str, ...]:
        """Bands to read of a scene of that product, optional ones that it lacks included."""
        del product  # the same for every product
        return self.config.input_bands

    def optional_bands(self) -> frozenset[str]:
        """Bands that a product or a scene may lack."""
        return frozenset(self.config.optional_bands)

    def basis(self) -> str | None:
        """Band whose native grid the others are brought onto; None: the first."""
        return self.config.basis

    def margin(self) -> int:
        """Native pixels that `native_transform` and `native_fuse` look beyond a pixel."""
        return 0

    def inputs(self, product: Product) -> InputSpec:
        """What to read of a scene of this product.

        Raises:
            ConfigError: no band at all, or one that the product lacks, listing the known ones.
        """
        config = self.config
        bands = self.bands_of(product)
        if not bands:
            raise ConfigError(f"{self.name} reads no band", "give plugin_config.input_bands")
        basis = self.basis() or bands[0]
        optional = self.optional_bands()
        for band in (*bands, basis):
            if band not in optional:
                known_band(product, band)
        return InputSpec(
            bands=bands,
            basis=basis,
            optional=optional & frozenset(bands),
            resampling=config.resampling,
            group_by=config.group_by,
            margin=self.margin(),
            transform_code=config.transform_code,
            area_of_interest=config.area_of_interest,
        )

    # what is kept per scene ---------------------------------------------------------------------

    def stack_planes(self, products: Mapping[str, Product]) -> tuple[NativeBand, ...]:
        """Planes of the stack; default: `planes`, or every band in the first product's type."""
        if self.planes:
            return self.planes
        names = dict.fromkeys(b for p in products.values() for b in self.bands_of(p))
        return native_planes(names, products, self.optional_bands())

    def native_bands(self, products: Mapping[str, Product]) -> tuple[NativeBand, ...]:
        """Planes of the stack; remembered, so that scenes of every product come in these types."""
        self._bound = self.stack_planes(products)
        return self._bound

    def native_transform(self, scene: xr.Dataset, product: Product) -> xr.Dataset:
        """Mask one scene in native pixels: dims (y, x) in, the planes out; default: as read."""
        return self.as_planes(scene, product)

    def native_fuse(self, scenes: xr.Dataset) -> xr.Dataset:
        """Join scenes that share a pixel lattice: (time, y, x) in, (y, x) out; default: `fuse`."""
        return self.fuse(scenes)

    def fuse(self, scenes: xr.Dataset) -> xr.Dataset:
        """Join a day's scenes: (time, y, x) in, (y, x) out; default: per band the first valid one.

        Where a band has no nodata, the first value that isn't 0 (what lies outside a scene is 0).
        """
        return fused(scenes, kernels.first_valid)

    # what is made -------------------------------------------------------------------------------

    def output_bands(self, products: Mapping[str, Product]) -> tuple[OutputBand, ...]:
        """Bands of the product in file order; default: `outputs`, or the planes."""
        if self.outputs:
            return self.with_colours(self.outputs)
        planes = {plane.name: plane for plane in self.stack_planes(products)}
        out = []
        for name in self.config.measurements or planes:
            if name not in planes:
                raise ConfigError(
                    f"{self.name} has no output band {name!r}", f"known: {', '.join(planes)}"
                )
            plane = planes[name]
            found = next((m for p in products.values() if (m := p.find(name))), None)
            out.append(
                OutputBand(
                    name,
                    plane.dtype,
                    plane.nodata,
                    units=found.units if found else "1",
                    categorical=bool(found and found.flags),
                )
            )
        return self.with_colours(tuple(out))

    @abstractmethod
    def reduce(self, stack: xr.Dataset) -> xr.Dataset:
        """The product itself: (time, y, x) in, the output bands with dims (y, x) out."""

    # for subclasses -----------------------------------------------------------------------------

    def with_colours(self, bands: tuple[OutputBand, ...]) -> tuple[OutputBand, ...]:
        """The output bands, after a look for `rgb_bands` among them; raises ConfigError."""
        names = [band.name for band in bands]
        for name in self.rgb_bands or ():
            if name not in names:
                raise ConfigError(
                    f"rgb_bands: {name!r} is no output band of {self.name}", hint(name, names)
                )
        return bands

    def as_planes(self, scene: xr.Dataset, product: Product, bad: Any = None) -> xr.Dataset:
        """Keep the planes of a scene in their common type; nodata where `bad`, boolean (y, x), is.

        Variables that are no planes are dropped, optional planes that the scene lacks are nodata.
        `native_bands` decides what the planes are; before it was called they are those of the
        scene's product.
        """
        planes = self._bound or self.stack_planes({product.name: product})
        like = next(iter(scene.data_vars.values()))
        made = {}
        for plane in planes:
            if plane.name in scene:
                read = scene[plane.name].data
                data = convert(read, scene[plane.name].attrs.get("nodata"), plane)
                if bad is not None:
                    out = None if data is read else data  # what was read stays as it is
                    data = kernels.mask_where(data, bad, empty_value(plane), out=out)
            elif plane.name in self.optional_bands():
                data = empty_plane(like.data, plane)
            else:
                continue
            made[plane.name] = (like.dims, data, {"nodata": plane.nodata})
        return xr.Dataset(made, coords=scene.coords, attrs=scene.attrs)


def fused(scenes: xr.Dataset, join: Any) -> xr.Dataset:
    """Apply `join(array, nodata)` to every (time, y, x) variable; one scene passes as it is."""
    out = {}
    for name, variable in scenes.data_vars.items():
        data, nodata = variable.data, variable.attrs.get("nodata")
        plane = data[0, ...] if data.shape[0] == 1 else join(data, 0 if nodata is None else nodata)
        out[str(name)] = (variable.dims[1:], plane, dict(variable.attrs))
    return xr.Dataset(out, coords=flat_coords(scenes), attrs=scenes.attrs)


def flat_coords(stack: xr.Dataset) -> dict[str, Any]:
    """Coordinates that remain when the first dimension is gone."""
    first = next(iter(stack.data_vars.values())).dims[0]
    return {str(k): v for k, v in stack.coords.items() if first not in v.dims}
