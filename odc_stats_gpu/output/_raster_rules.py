"""Is a picture file what its STAC asset says, and a strict COG?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import rasterio
from rasterio.errors import RasterioError
from rasterio.io import MemoryFile


def raster_problems(
    path: str, data: bytes, asset: Mapping[str, Any], properties: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    """(check, message) of everything that is wrong with a GeoTIFF or JPEG, given as bytes."""
    if path.endswith(".jpg"):
        yield from _jpeg_problems(data)
    if not path.endswith(".tif"):
        return
    try:
        with MemoryFile(data) as file:
            yield from _cog_problems(file.name)
            with file.open() as src:
                yield from _pixel_problems(src, asset, properties)
    except RasterioError as exc:
        yield "cog", f"GDAL can't read it: {exc}"


def _cog_problems(name: str) -> Iterator[tuple[str, str]]:
    from rio_cogeo.cogeo import cog_validate

    valid, errors, warnings = cog_validate(name, strict=True, quiet=True)
    if not valid:
        for line in (*errors, *warnings):
            yield "cog", str(line)


def _pixel_problems(
    src: Any, asset: Mapping[str, Any], properties: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    where = {**properties, **asset}  # an asset's own fields win
    shape = where.get("proj:shape")
    if shape is not None and tuple(shape) != src.shape:
        yield "pixels", f"is {src.shape[0]}x{src.shape[1]} pixels, the item says {shape}"
    transform = where.get("proj:transform")
    if transform is not None and not src.transform.almost_equals(
        rasterio.Affine(*transform[:6]), precision=1e-6
    ):
        yield "pixels", f"has the transform {tuple(src.transform)[:6]}, the item says {transform}"
    code = where.get("proj:code") or _epsg(where.get("proj:epsg"))
    if code and src.crs != rasterio.crs.CRS.from_user_input(code):
        yield "pixels", f"has the CRS {src.crs}, the item says {code}"
    bands = asset.get("raster:bands") or ([asset] if "data_type" in asset else [])
    if not bands:
        return
    if len(bands) != src.count:
        yield "pixels", f"has {src.count} bands, the item says {len(bands)}"
        return
    for band, dtype, nodata in zip(bands, src.dtypes, src.nodatavals, strict=True):
        if band.get("data_type", dtype) != dtype:
            yield "pixels", f"is {dtype}, the item says {band['data_type']}"
        wanted = band.get("nodata")
        if str(_number(wanted)) != str(_number(nodata)):
            yield "pixels", f"has nodata {nodata}, the item says {wanted}"
    try:
        src.read()
    except RasterioError as exc:
        yield "pixels", f"can't be decoded: {exc}"


def _jpeg_problems(data: bytes) -> Iterator[tuple[str, str]]:
    import imagecodecs

    try:
        imagecodecs.jpeg8_decode(data)
    except RuntimeError as exc:
        yield "pixels", f"can't be decoded: {exc}"


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _epsg(code: Any) -> str:
    return f"EPSG:{code}" if code else ""
