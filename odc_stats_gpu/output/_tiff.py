"""The bytes of a cloud optimised GeoTIFF around tiles that are already compressed.

Layout as GDAL's COG driver writes it: header, ghost area, all IFDs, then the tiles of the smallest
overview up to those of the full image, each between its size and its last 4 bytes repeated.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from rasterio.io import MemoryFile

from odc_stats_gpu.output._codec import Codec
from odc_stats_gpu.output._spool import Span, Spool

_GHOST_BODY = (
    b"LAYOUT=IFDS_BEFORE_DATA\nBLOCK_ORDER=ROW_MAJOR\nBLOCK_LEADER=SIZE_AS_UINT4\n"
    b"BLOCK_TRAILER=LAST_4_BYTES_REPEATED\nKNOWN_INCOMPATIBLE_EDITION=NO\n "
)
GHOST = b"GDAL_STRUCTURAL_METADATA_SIZE=%06d bytes\n" % len(_GHOST_BODY) + _GHOST_BODY
_SHORT, _LONG, _LONG8, _ASCII, _DOUBLE = 3, 4, 16, 2, 12
_SIZES = {1: 1, _ASCII: 1, _SHORT: 2, _LONG: 4, _DOUBLE: 8, _LONG8: 8}
_GEO_TAGS = (33550, 33922, 34264, 34735, 34736, 34737)
_SAMPLE_FORMAT = {"u": 1, "i": 2, "f": 3}
_CLASSIC_LIMIT = 2**32 - 1


@dataclass(frozen=True, slots=True)
class Entry:
    """One tag: number, TIFF type, count of values, their bytes."""

    tag: int
    kind: int
    count: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Image:
    """One resolution of the file."""

    shape: tuple[int, int]
    block: tuple[int, int]
    spans: Sequence[Span]
    """Where its compressed tiles lie in the spool, row by row."""


def cog_chunks(
    images: Sequence[Image],
    spool: Spool,
    codec: Codec,
    dtype: np.dtype[Any],
    nodata: float | None,
    geo: Sequence[Entry],
) -> tuple[int, Iterator[bytes]]:
    """Size of the file and its bytes in order; `images` from full resolution to the smallest."""
    tags = [_tags(image, i > 0, codec, dtype, nodata) for i, image in enumerate(images)]
    tags[0] += geo
    total = sum(span.size + 8 for image in images for span in image.spans)
    big = total + _head_size(images, tags, big=True) > _CLASSIC_LIMIT
    start = _head_size(images, tags, big=big)
    offsets: list[list[int]] = [[] for _ in images]
    at = start
    for number in reversed(range(len(images))):
        for span in images[number].spans:
            offsets[number].append(at + 4)
            at += span.size + 8
    return at, _stream(_head(images, tags, offsets, big=big), images, spool)


def _stream(head: bytes, images: Sequence[Image], spool: Spool) -> Iterator[bytes]:
    yield head
    for image in reversed(images):
        for span in image.spans:
            data = spool.read(span)
            yield b"".join((struct.pack("<I", span.size), data, data[-4:].rjust(4, b"\0")))


def _tags(
    image: Image, overview: bool, codec: Codec, dtype: np.dtype[Any], nodata: float | None
) -> list[Entry]:
    height, width = image.shape
    out = [
        _number(256, width),
        _number(257, height),
        _number(258, dtype.itemsize * 8),
        _number(259, codec.tag),
        _number(262, 1),  # min is black
        _number(277, 1),  # samples per pixel
        _number(284, 1),  # contiguous
        _number(322, image.block[1]),
        _number(323, image.block[0]),
        _number(339, _SAMPLE_FORMAT[dtype.kind]),
    ]
    if overview:
        out.append(_number(254, 1))
    if codec.predictor != 1:
        out.append(_number(317, codec.predictor))
    if nodata is not None:
        text = b"nan\0" if nodata != nodata else b"%.17g\0" % nodata  # noqa: PLR0124 - NaN
        out.append(Entry(42113, _ASCII, len(text), text))
    return out


def _number(tag: int, value: int) -> Entry:
    if value < 2**16:
        return Entry(tag, _SHORT, 1, struct.pack("<H", value))
    return Entry(tag, _LONG, 1, struct.pack("<I", value))


def _tables(image: Image, offsets: Sequence[int], big: bool) -> list[Entry]:
    count = len(image.spans)
    kind, code = (_LONG8, "Q") if big else (_LONG, "I")
    sizes = [span.size for span in image.spans]
    return [
        Entry(324, kind, count, struct.pack(f"<{count}{code}", *offsets)),
        Entry(325, _LONG, count, struct.pack(f"<{count}I", *sizes)),
    ]


def _head_size(images: Sequence[Image], tags: Sequence[Sequence[Entry]], *, big: bool) -> int:
    zeros = [[0] * len(image.spans) for image in images]
    return len(_head(images, tags, zeros, big=big))


def _head(
    images: Sequence[Image],
    tags: Sequence[Sequence[Entry]],
    offsets: Sequence[Sequence[int]],
    *,
    big: bool,
) -> bytes:
    """Header, ghost area and all IFDs, each with its longer values after it."""
    prefix = b"II\x2b\0\x08\0\0\0" if big else b"II\x2a\0"
    out = bytearray(prefix + b"\0" * (8 if big else 4) + GHOST)
    link = len(prefix)
    for number, image in enumerate(images):
        out += b"\0" * (-len(out) % 16)
        struct.pack_into("<Q" if big else "<I", out, link, len(out))
        entries = sorted(
            [*tags[number], *_tables(image, offsets[number], big)], key=lambda e: e.tag
        )
        link = _ifd(out, entries, big)
    out += b"\0" * (-len(out) % 16)
    return bytes(out)


def _ifd(out: bytearray, entries: Sequence[Entry], big: bool) -> int:
    """Append one IFD; returns where the offset of the next one has to go."""
    inline = 8 if big else 4
    start = len(out)
    size = (8 + 20 * len(entries) + 8) if big else (2 + 12 * len(entries) + 4)
    body = bytearray(struct.pack("<Q" if big else "<H", len(entries)))
    extra = bytearray()
    for entry in entries:
        body += struct.pack("<HHQ" if big else "<HHI", entry.tag, entry.kind, entry.count)
        if len(entry.data) <= inline:
            body += entry.data.ljust(inline, b"\0")
        else:
            body += struct.pack("<Q" if big else "<I", start + size + len(extra))
            extra += entry.data + b"\0" * (-len(entry.data) % 8)
    link = start + len(body)
    out += body + b"\0" * inline + extra
    return link


@lru_cache(maxsize=32)
def geo_tags(crs: Any, transform: Affine) -> tuple[Entry, ...]:
    """Pixel scale, tie point and GeoKeys as GDAL writes them, read back from a file of its own."""
    profile = {"driver": "GTiff", "width": 16, "height": 16, "count": 1, "dtype": "uint8"}
    with rasterio.Env(), MemoryFile() as file:
        with file.open(**profile, crs=crs, transform=transform):
            pass
        data = bytes(file.getbuffer())
    (at,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, at)
    out = []
    for i in range(count):
        where = at + 2 + 12 * i
        tag, kind, number = struct.unpack_from("<HHI", data, where)
        if tag in _GEO_TAGS:
            size = _SIZES[kind] * number
            first = where + 8 if size <= 4 else struct.unpack_from("<I", data, where + 8)[0]
            out.append(Entry(tag, kind, number, data[first : first + size]))
    return tuple(out)
