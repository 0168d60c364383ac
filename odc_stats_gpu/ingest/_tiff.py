"""The header of a GeoTIFF: enough of TIFF 6, BigTIFF and GeoTIFF to find and decode pixels.

What this parser does not know is `Unsupported`, and GDAL reads that file instead. What it knows
to be broken (offsets past the end, impossible sizes) is a `TiffError`: never zeros.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from affine import Affine

from odc_stats_gpu.ingest._window import moved

Fetch = Callable[[int, int], bytes]
"""(offset, length) -> bytes, fewer at the end of the file."""

CODECS = {1: "none", 5: "lzw", 8: "deflate", 32946: "deflate", 50000: "zstd"}
_TYPES = {1: "B", 2: "s", 3: "H", 4: "I", 6: "b", 7: "B", 8: "h", 9: "i", 11: "f", 12: "d"}
_TYPES |= {13: "I", 16: "Q", 17: "q", 18: "Q"}
_SIZES = {k: struct.calcsize(v) for k, v in _TYPES.items()} | {5: 8, 10: 8}
_USER_DEFINED = 32767
_MAX_BLOCKS = 1 << 26
_MAX_BLOCK_BYTES = 1 << 30


class Unsupported(Exception):  # noqa: N818 - not an error: the file goes to another reader
    """A valid file of a kind that this parser leaves to GDAL."""


class TiffError(ValueError):
    """A file that nobody can read: the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TiffHeader:
    """Where the full-resolution pixels of a file lie and how they are packed."""

    shape: tuple[int, int]
    """Rows, columns."""
    layers: int
    """Bands."""
    block: tuple[int, int]
    """Rows, columns of a tile or strip."""
    tiled: bool
    dtype: np.dtype[Any]
    """Native byte order."""
    swapped: bool
    """Whether the bytes on disk are in the other order."""
    codec: str
    """none, deflate, zstd or lzw."""
    predictor: int
    """1 none, 2 differences, 3 floating point."""
    separate: bool
    """Bands in planes of their own rather than pixel by pixel."""
    offsets: npt.NDArray[np.uint64] = field(repr=False)
    counts: npt.NDArray[np.uint64] = field(repr=False)
    nodata: float | int | None
    transform: Affine | None
    """Pixel to CRS; None when the file has none."""
    epsg: int | None
    """Code of the CRS; None when the file names none."""

    @property
    def grid(self) -> tuple[int, int]:
        """Blocks down and across."""
        return tuple(-(-n // b) for n, b in zip(self.shape, self.block, strict=True))  # type: ignore[return-value]

    def block_index(self, layer: int, row: int, col: int) -> int:
        """Place of a block in `offsets`; `layer` counts from 0."""
        down, across = self.grid
        plane = layer if self.separate else 0
        return (plane * down + row) * across + col

    def block_shape(self, row: int) -> tuple[int, int, int]:
        """Rows, columns, samples that a block decodes to. The last strip is cut, tiles never."""
        rows = (
            self.block[0] if self.tiled else min(self.block[0], self.shape[0] - row * self.block[0])
        )
        return rows, self.block[1], 1 if self.separate else self.layers


def parse_tiff(fetch: Fetch, size: int) -> TiffHeader:
    """Read the first directory of a file of `size` bytes.

    Raises:
        Unsupported: left to GDAL.
        TiffError: broken.
    """
    tags = _Tags(fetch, size)
    width, height = tags.one(256), tags.one(257)
    if width < 1 or height < 1:
        raise TiffError(f"its header says {height} rows x {width} columns")
    codec = CODECS.get(tags.one(259, 1))
    tiled = 322 in tags
    layers = tags.one(277, 1)
    separate = tags.one(284, 1) == 2 and layers > 1
    predictor = tags.one(317, 1)
    dtype = _dtype(tags, layers)
    if codec is None or tags.one(254, 0) & 1 or tags.one(266, 1) != 1 or tags.one(274, 1) != 1:
        raise Unsupported
    if predictor not in (1, 2, 3) or (predictor == 3 and dtype.kind != "f"):
        raise Unsupported
    if predictor != 1 and codec == "none":
        predictor = 1  # as libtiff, which knows predictors in codecs only
    block = (tags.one(323), tags.one(322)) if tiled else (min(tags.one(278, height), height), width)
    if min(block) < 1:
        raise TiffError(f"its header says blocks of {block[0]} x {block[1]}")
    n_blocks = -(-height // block[0]) * -(-width // block[1]) * (layers if separate else 1)
    if n_blocks > _MAX_BLOCKS or block[0] * block[1] * layers * dtype.itemsize > _MAX_BLOCK_BYTES:
        raise Unsupported
    offsets = tags.array(324 if tiled else 273, n_blocks)
    counts = tags.array(325 if tiled else 279, n_blocks)
    ends = offsets.astype(float) + counts.astype(float)
    if ends.max() > size:
        raise TiffError(f"it has {size} bytes of at least {ends.max():.0f}: truncated")
    transform, epsg = _georeference(tags)
    return TiffHeader(
        shape=(height, width),
        layers=layers,
        block=block,
        tiled=tiled,
        dtype=dtype,
        swapped=tags.order != ("<" if np.little_endian else ">") and dtype.itemsize > 1,
        codec=codec,
        predictor=predictor,
        separate=separate,
        offsets=offsets,
        counts=counts,
        nodata=_nodata(tags, dtype),
        transform=transform,
        epsg=epsg,
    )


class _Tags:
    """The tags of the first directory, values fetched when asked for."""

    def __init__(self, fetch: Fetch, size: int) -> None:
        self._fetch, self._size = fetch, size
        self._head = fetch(0, 16384)
        self.order = {b"II": "<", b"MM": ">"}.get(self._head[:2], "")
        if len(self._head) < 16 or not self.order:
            raise Unsupported if len(self._head) >= 16 else TiffError(f"it has {size} bytes only")
        magic = self._unpack("H", 2)
        if magic == 42:
            self._word, start, entry, n_entries = "I", self._unpack("I", 4), 12, "H"
        elif magic == 43 and self._unpack("H", 4) == 8:
            self._word, start, entry, n_entries = "Q", self._unpack("Q", 8), 20, "Q"
        else:
            raise Unsupported
        count = self._unpack(n_entries, start)
        first = start + struct.calcsize(n_entries)
        if count > 4096:
            raise TiffError(f"its header says {count} tags")
        body = self._bytes(first, count * entry)
        self._entries: dict[int, tuple[int, int, int]] = {}
        for i in range(count):
            tag, kind = struct.unpack_from(self.order + "HH", body, i * entry)
            (number,) = struct.unpack_from(self.order + self._word, body, i * entry + 4)
            at = first + i * entry + 4 + struct.calcsize(self._word)
            if number * _SIZES.get(kind, 1) > struct.calcsize(self._word):
                at = self._unpack(self._word, at)
            self._entries.setdefault(tag, (kind, number, at))

    def __contains__(self, tag: int) -> bool:
        return tag in self._entries

    def _bytes(self, offset: int, length: int) -> bytes:
        if offset + length <= len(self._head):
            return self._head[offset : offset + length]
        if offset + length > self._size:
            raise TiffError(
                f"its header points to bytes {offset}..{offset + length} of {self._size}: truncated"
            )
        data = self._fetch(offset, length)
        if len(data) != length:
            raise TiffError(f"it ends inside its header, at byte {offset + len(data)}")
        return data

    def _unpack(self, code: str, offset: int) -> int:
        return int(struct.unpack(self.order + code, self._bytes(offset, struct.calcsize(code)))[0])

    def values(self, tag: int) -> npt.NDArray[Any]:
        """All values of a tag; empty when it is absent."""
        if tag not in self._entries:
            return np.empty(0)
        kind, number, at = self._entries[tag]
        if kind not in _TYPES:
            raise Unsupported
        data = self._bytes(at, number * _SIZES[kind])
        code = "S1" if kind == 2 else self.order + _TYPES[kind]
        return np.frombuffer(data, dtype=code)

    def one(self, tag: int, default: int | None = None) -> int:
        """A tag with one integer, or as many equal ones as there are bands."""
        found = self.values(tag)
        if not found.size:
            if default is None:
                raise TiffError(f"its header lacks the tag {tag}")
            return default
        return int(found[0])

    def array(self, tag: int, length: int) -> npt.NDArray[np.uint64]:
        """Offsets or byte counts."""
        found = self.values(tag)
        if not found.size and tag in (279, 325):
            raise Unsupported  # uncompressed strips of old writers may lack their sizes
        if len(found) < length:
            raise TiffError(f"its header lists {len(found)} blocks of {length}")
        return found[:length].astype(np.uint64)

    def text(self, tag: int) -> str:
        """An ASCII tag."""
        return self.values(tag).tobytes().split(b"\0")[0].decode("latin-1").strip()


def _dtype(tags: _Tags, layers: int) -> np.dtype[Any]:
    bits, kinds = tags.values(258), tags.values(339)
    if not bits.size or len(set(bits.tolist())) != 1 or len(set(kinds.tolist())) > 1 or layers < 1:
        raise Unsupported
    kind = {1: "u", 2: "i", 3: "f"}.get(int(kinds[0]) if kinds.size else 1)
    size = int(bits[0])
    if kind is None or size not in (8, 16, 32, 64) or (kind == "f" and size < 32):
        raise Unsupported
    return np.dtype(f"{kind}{size // 8}")


def _nodata(tags: _Tags, dtype: np.dtype[Any]) -> float | int | None:
    """GDAL_NODATA; None where no pixel of that type can have the value."""
    if 42113 not in tags:
        return None
    text = tags.text(42113)
    try:
        value = float(text)
        if dtype.kind == "f":
            return float(dtype.type(value)) if math.isfinite(value) else value
        number = int(text) if text.lstrip("+-").isdigit() else int(value)
    except (ValueError, OverflowError):
        return None
    info = np.iinfo(dtype)
    return number if info.min <= number <= info.max and number == value else None


def _georeference(tags: _Tags) -> tuple[Affine | None, int | None]:
    keys = tags.values(34735).reshape(-1).astype(int)
    entries = {
        int(k): (int(where), int(n), int(v))
        for k, where, n, v in keys[4 : 4 + 4 * (len(keys[4:]) // 4)].reshape(-1, 4)
    }

    def key(code: int) -> int | None:
        where, _, value = entries.get(code, (1, 0, 0))
        return value if where == 0 and value not in (0, _USER_DEFINED) else None

    model = entries.get(1024, (0, 0, 0))[2]
    epsg = key(3072) if model == 1 else key(2048) if model == 2 else None
    if entries and epsg is None:
        epsg = -1
    scale, tie, matrix = tags.values(33550), tags.values(33922), tags.values(34264)
    if matrix.size >= 16:
        m = matrix.astype(float)
        transform = Affine(m[0], m[1], m[3], m[4], m[5], m[7])
    elif scale.size >= 2 and tie.size == 6 and scale[0] > 0 and scale[1] > 0:
        t = tie.astype(float)
        sx, sy = float(scale[0]), float(scale[1])
        transform = Affine(sx, 0.0, t[3] - t[0] * sx, 0.0, -sy, t[4] + t[1] * sy)
    elif tie.size:
        raise Unsupported  # control points, south-up scales
    else:
        return None, epsg
    if entries.get(1025, (0, 0, 1))[2] == 2:  # the model point is the pixel's centre
        transform = moved(transform, -0.5, -0.5)
    return transform, epsg
