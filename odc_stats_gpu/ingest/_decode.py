"""Pixels of a window out of a parsed GeoTIFF: read, inflate, undo the predictor, cut out."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt

from odc_stats_gpu.ingest._tiff import Fetch, TiffError, TiffHeader
from odc_stats_gpu.ingest._window import Window
from odc_stats_gpu.telemetry import stage

_DECODERS: dict[str, Any] = {
    "deflate": imagecodecs.deflate_decode,  # libdeflate: twice the rate of GDAL's zlib path
    "zstd": imagecodecs.zstd_decode,
    "lzw": imagecodecs.lzw_decode,
}
_scratch = threading.local()
_KEPT = 1 << 24
"""Bytes of scratch memory that a thread keeps; larger blocks get theirs each time."""


def byte_ranges(header: TiffHeader, layer: int, window: Window) -> list[tuple[int, int]]:
    """(offset, length) of every block that `read_window` will fetch."""
    rows, cols = header.block
    found = (
        header.block_index(layer - 1, i, j)
        for i in range(window.r0 // rows, -(-window.r1 // rows))
        for j in range(window.c0 // cols, -(-window.c1 // cols))
    )
    return [(int(header.offsets[k]), int(header.counts[k])) for k in found if header.counts[k]]


def read_window(
    header: TiffHeader, fetch: Fetch, layer: int, window: Window, check: Callable[[], None]
) -> npt.NDArray[Any]:
    """Pixels of one band (`layer` counts from 1) in a window that lies inside the file.

    Raises:
        TiffError: missing bytes, a damaged stream, a block of the wrong size.
    """
    out = np.empty(window.shape, header.dtype)
    rows, cols = header.block
    for i in range(window.r0 // rows, -(-window.r1 // rows)):
        for j in range(window.c0 // cols, -(-window.c1 // cols)):
            check()
            inside = window.clip(Window(i * rows, (i + 1) * rows, j * cols, (j + 1) * cols))
            target = out[inside.shift(-window.r0, -window.c0).slices]
            _block(header, fetch, layer - 1, (i, j), inside.shift(-i * rows, -j * cols), target)
    return out


def _block(
    header: TiffHeader,
    fetch: Fetch,
    layer: int,
    at: tuple[int, int],
    inside: Window,
    target: npt.NDArray[Any],
) -> None:
    """Decode one block and copy its part `inside` to `target`."""
    index = header.block_index(layer, *at)
    offset, count = int(header.offsets[index]), int(header.counts[index])
    name = f"block {at[0]},{at[1]}"
    if count == 0:
        if offset:
            raise TiffError(f"{name} has an offset but no bytes")
        target.fill(0 if header.nodata is None else header.nodata)  # sparse, as GDAL fills it
        return
    with stage("read"):
        data = fetch(offset, count)
    if len(data) != count:
        raise TiffError(f"{name} has {len(data)} of {count} bytes: truncated")
    with stage("decode"):
        pixels = _inflate(header, data, header.block_shape(at[0]), name)
        sample = 0 if header.separate else layer
        target[...] = _part(header, pixels, inside, sample)


def _inflate(
    header: TiffHeader, data: bytes, shape: tuple[int, int, int], name: str
) -> npt.NDArray[Any]:
    """Bytes of a block as (rows, columns, samples), byte order and predictor as on disk."""
    need = int(np.prod(shape)) * header.dtype.itemsize
    if header.codec == "none":
        if len(data) < need:
            raise TiffError(f"{name} has {len(data)} bytes, {need} expected")
        return np.frombuffer(data, np.uint8, need).view(header.dtype).reshape(shape)
    # A writer may pad the last strip to its full height: room for it costs nothing.
    buffer = _buffer(max(need, header.block[0] * shape[1] * shape[2] * header.dtype.itemsize))
    try:
        got = _DECODERS[header.codec](data, out=buffer)
    except (RuntimeError, ValueError) as exc:
        raise TiffError(f"{name} is damaged: {exc}") from None
    if len(got) < need:
        raise TiffError(f"{name} holds {len(got)} bytes of pixels, {need} expected")
    return buffer[:need].view(header.dtype).reshape(shape)


def _part(
    header: TiffHeader, pixels: npt.NDArray[Any], inside: Window, sample: int
) -> npt.NDArray[Any]:
    """One band of the part `inside`; byte order and predictor are undone no further than needed."""
    part = pixels[inside.r0 : inside.r1]
    if header.predictor == 3:
        return _float_planes(part)[:, inside.c0 : inside.c1, sample]
    part = part[:, : inside.c1]
    if header.swapped:
        part = part.byteswap()
    if header.predictor == 2:
        differences = part.view(f"u{part.dtype.itemsize}")
        imagecodecs.delta_decode(differences, axis=1, out=differences)
    return part[:, inside.c0 :, sample]


def _float_planes(part: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Undo predictor 3: rows of differences over bytes, the most significant bytes first."""
    rows, cols, samples = part.shape
    if samples == 1:
        out = np.empty_like(part)
        imagecodecs.floatpred_decode(part[..., 0], out=out[..., 0])
        return out
    size = part.dtype.itemsize
    data = np.ascontiguousarray(part).view(np.uint8).reshape(rows, size * cols, samples)
    planes = data.cumsum(axis=1, dtype=np.uint8).reshape(rows, size, cols * samples)
    whole = np.ascontiguousarray(planes.transpose(0, 2, 1)).view(part.dtype.newbyteorder(">"))
    return whole.reshape(part.shape).astype(part.dtype)


def _buffer(size: int) -> npt.NDArray[np.uint8]:
    """Scratch memory of this thread, at least so large, cut to size."""
    if size > _KEPT:
        return np.empty(size, np.uint8)
    have: npt.NDArray[np.uint8] | None = getattr(_scratch, "buffer", None)
    if have is None or len(have) < size:
        have = _scratch.buffer = np.empty(size, np.uint8)
    return have[:size]
