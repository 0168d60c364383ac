"""The own reader against GDAL, on what GDAL writes."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import rasterio
from affine import Affine

from odc_stats_gpu.errors import DataError
from odc_stats_gpu.ingest import close_readers
from odc_stats_gpu.ingest._reader import BandReader
from odc_stats_gpu.ingest._window import Window
from odc_stats_gpu.model import Grid

CRS = "EPSG:32655"
T = Affine(30, 0, 500000, 0, -30, 6_000_000)
SHAPE = (133, 171)


@pytest.fixture(autouse=True)
def _fresh():
    close_readers()
    yield
    close_readers()


def content(dtype, shape=SHAPE, layers=1):
    rng = np.random.default_rng(7)
    y, x = np.mgrid[: shape[0], : shape[1]]
    base = 1000 + 800 * np.sin(x / 9) * np.cos(y / 11)
    stack = np.stack([base + 31 * i + rng.normal(0, 20, shape) for i in range(layers)])
    if dtype == "uint8":
        stack = stack / 10
    if dtype == "int8":
        stack = stack / 30
    return stack.astype(dtype)


def write(path, pixels, **options):
    with rasterio.open(
        path, "w", driver="GTiff", height=pixels.shape[1], width=pixels.shape[2],
        count=pixels.shape[0], dtype=pixels.dtype, crs=CRS, transform=T, **options,
    ) as dst:  # fmt: skip
        dst.write(pixels)
    return f"file://{path}"


def read(uri, window=None, layer=1, shape=SHAPE):
    reader = BandReader(uri, layer, Grid(shape, T), CRS)
    return reader, reader.read(window or Window(0, shape[0], 0, shape[1]), lambda: None)


TILED = {"tiled": True, "blockxsize": 64, "blockysize": 48}
VARIANTS = {
    **{
        f"{dtype}-{codec}-{predictor}": (dtype, TILED | {"compress": codec, "predictor": predictor})
        for dtype in ("uint8", "int8", "int16", "uint16", "int32", "uint32", "float32", "float64")
        for codec in ("deflate", "zstd", "lzw")
        for predictor in (1, 2, 3)
        if predictor == 1 or (predictor == 3) == dtype.startswith("float")
    },
    "float32-horizontal": ("float32", {**TILED, "compress": "deflate", "predictor": 2}),
    "raw": ("int16", TILED),
    "raw-strips": ("uint16", {}),
    "strips-deflate": ("int16", {"compress": "deflate", "predictor": 2, "blockysize": 16}),
    "strips-lzw": ("float32", {"compress": "lzw", "predictor": 3, "blockysize": 50}),
    "one-strip": ("int16", {"compress": "deflate", "blockysize": 4096}),
    "bigtiff": ("int16", {**TILED, "compress": "deflate", "predictor": 2, "bigtiff": "yes"}),
    "big-endian": ("int16", {**TILED, "compress": "deflate", "predictor": 2, "endianness": "big"}),
    "big-endian-raw": ("float64", {**TILED, "endianness": "big"}),
    "big-endian-float": (
        "float32", {**TILED, "compress": "deflate", "predictor": 3, "endianness": "big"},
    ),
    "nodata": ("int16", {**TILED, "compress": "deflate", "nodata": -999}),
    "nodata-nan": ("float32", {**TILED, "compress": "deflate", "nodata": "nan"}),
}  # fmt: skip
WINDOWS = [
    Window(0, 133, 0, 171), Window(10, 11, 20, 21), Window(40, 100, 60, 130),
    Window(132, 133, 170, 171), Window(0, 48, 0, 64), Window(96, 133, 3, 171),
]  # fmt: skip


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize(("layers", "interleave"), [(1, "pixel"), (3, "pixel"), (3, "band")])
def test_reads_what_gdal_reads(tmp_path, name, layers, interleave):
    dtype, options = VARIANTS[name]
    pixels = content(dtype, layers=layers)
    uri = write(tmp_path / "a.tif", pixels, interleave=interleave, **options)
    for layer in range(1, layers + 1):
        for window in WINDOWS:
            reader, got = read(uri, window, layer)
            assert reader._header is not None, "went through GDAL"
            assert got.dtype == pixels.dtype
            np.testing.assert_array_equal(got, pixels[layer - 1][window.slices])
    with rasterio.open(uri) as src:
        facts = reader.facts
        assert facts.transform.almost_equals(src.transform)
        assert facts.crs == src.crs.to_string()
        np.testing.assert_equal(facts.nodata, src.nodata)


def test_cog_with_overviews_and_leaders(tmp_path):
    pixels = content("int16", (600, 700))
    with rasterio.open(
        tmp_path / "a.tif", "w", driver="COG", height=600, width=700, count=1, dtype="int16",
        crs=CRS, transform=T, compress="deflate", predictor="yes", blocksize=128,
    ) as dst:  # fmt: skip
        dst.write(pixels)
    reader, got = read(f"file://{tmp_path}/a.tif", shape=(600, 700))
    assert reader._header is not None
    np.testing.assert_array_equal(got, pixels[0])


@pytest.mark.parametrize("nodata", [None, -999])
def test_sparse_tiles_are_nodata(tmp_path, nodata):
    path = tmp_path / "a.tif"
    options = {} if nodata is None else {"nodata": nodata}
    with rasterio.open(
        path, "w", driver="GTiff", height=200, width=200, count=1, dtype="int16", crs=CRS,
        transform=T, **TILED, compress="deflate", sparse_ok=True, **options,
    ) as dst:  # fmt: skip
        dst.write(np.full((48, 64), 7, "int16"), 1, window=((48, 96), (64, 128)))
    with rasterio.open(path) as src:
        expected = src.read(1)
    reader, got = read(str(path), shape=(200, 200))
    assert reader._header is not None
    np.testing.assert_array_equal(got, expected)
    assert got[0, 0] == (nodata or 0)


def test_pixel_is_point(tmp_path):
    """Such a file gives the place of pixel centres."""
    path = tmp_path / "a.tif"
    write(path, content("int16"), **TILED)
    with rasterio.open(path, "r+") as dst:
        dst.update_tags(AREA_OR_POINT="Point")
    with rasterio.open(path) as src:
        assert src.transform == T
    reader, _ = read(str(path))
    assert reader._header is not None
    assert reader.facts.transform.almost_equals(T)


def test_rotated_transform(tmp_path):
    turned = Affine(28, 5, 500000, 6, -29, 6_000_000)
    path = tmp_path / "a.tif"
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=9,
        width=8,
        count=1,
        dtype="int16",
        crs=CRS,
        transform=turned,
    ) as dst:
        dst.write(content("int16", (9, 8)))
    reader = BandReader(str(path), 1, Grid((9, 8), turned), CRS)
    assert reader._header is not None
    assert reader.facts.transform.almost_equals(turned)


@pytest.mark.parametrize(
    "options", [{"compress": "lzma"}, {"compress": "packbits"}, {"nbits": 12}, {"compress": "lerc"}]
)
def test_odd_codecs_go_through_gdal(tmp_path, options):
    pixels = content("uint16")
    uri = write(tmp_path / "a.tif", pixels, **TILED, **options)
    reader, got = read(uri, Window(5, 77, 60, 171))
    assert reader._header is None
    np.testing.assert_array_equal(got, pixels[0][5:77, 60:171])


def test_custom_crs_is_compared_by_place(tmp_path):
    """User-defined keys have no EPSG code: the file is believed if it means the same place."""
    import pyproj

    wkt = pyproj.CRS.from_proj4("+proj=utm +zone=55 +datum=WGS84 +units=m +no_defs").to_wkt()
    path = tmp_path / "a.tif"
    with rasterio.open(
        path, "w", driver="GTiff", height=133, width=171, count=1, dtype="int16", transform=T,
        crs="+proj=tmerc +lat_0=0 +lon_0=147 +k=0.9996 +x_0=500000 +y_0=0 +datum=WGS84 +units=m",
    ) as dst:  # fmt: skip
        dst.write(content("int16"))
    BandReader(str(path), 1, Grid(SHAPE, T), wkt)
    with pytest.raises(DataError, match=r"a\.tif is in .* says EPSG:32654"):
        BandReader(str(path), 1, Grid(SHAPE, T), "EPSG:32654")


def test_a_document_that_lies_is_found_out(tmp_path):
    uri = write(tmp_path / "a.tif", content("int16"), **TILED)
    with pytest.raises(DataError, match=r"a\.tif has 133 rows x 171 columns, .* 133 x 170"):
        BandReader(uri, 1, Grid((133, 170), T), CRS)
    with pytest.raises(DataError, match=r"a\.tif lies 1.00 pixels off"):
        BandReader(uri, 1, Grid(SHAPE, Affine(30, 0, 500030, 0, -30, 6_000_000)), CRS)
    with pytest.raises(DataError, match=r"a\.tif is in EPSG:32655, its document says EPSG:32654"):
        BandReader(uri, 1, Grid(SHAPE, T), "EPSG:32654")
    with pytest.raises(DataError, match=r"has 1 bands, its document asks for number 2"):
        BandReader(uri, 2, Grid(SHAPE, T), CRS)


@pytest.mark.parametrize("name", ["with space.tif", "50%.tif", "a%20b.tif", "x#1?.tif"])
def test_odd_names_are_read_as_written_or_escaped(tmp_path, name):
    pixels = content("int16")
    write(tmp_path / name, pixels, **TILED)
    for uri in (f"file://{tmp_path}/{name}", (tmp_path / name).as_uri(), str(tmp_path / name)):
        _, got = read(uri)
        np.testing.assert_array_equal(got, pixels[0])


def test_a_literal_name_joined_to_an_escaped_folder(tmp_path):
    """What a document at an escaped address says of the file beside it."""
    folder = tmp_path / "100 % é"
    folder.mkdir()
    pixels = content("int16")
    write(folder / "a%20b.tif", pixels, **TILED)
    _, got = read(f"{folder.as_uri()}/a%20b.tif")
    np.testing.assert_array_equal(got, pixels[0])


def test_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"no such file: file://.*/b\.tif"):
        read(f"file://{tmp_path}/b.tif")
    (tmp_path / "c.tif").mkdir()
    with pytest.raises(DataError, match=r"can't read .*c\.tif: Is a directory"):
        read(f"file://{tmp_path}/c.tif")


@pytest.mark.parametrize("data", [b"", b"II*\0", b"not a tiff at all, only text" * 9])
def test_something_else_is_named(tmp_path, data):
    (tmp_path / "a.tif").write_bytes(data)
    with pytest.raises(DataError, match=r"can't read .*a\.tif: .+"):
        read(f"file://{tmp_path}/a.tif")


@pytest.mark.parametrize("codec", ["deflate", "zstd", "lzw", None])
@pytest.mark.parametrize("tiled", [True, False])
def test_truncation_never_gives_pixels(tmp_path, codec, tiled):
    options = {**(TILED if tiled else {}), **({"compress": codec} if codec else {})}
    path = tmp_path / "a.tif"
    write(path, content("int16"), **options)
    data = path.read_bytes()
    for keep in (len(data) - 1, len(data) // 2, 700, 300, 100, 9):
        path.write_bytes(data[:keep])
        with pytest.raises(DataError, match=r"can't read .*a\.tif: .+"):
            read(str(path))


@pytest.mark.parametrize("codec", ["deflate", "zstd"])
def test_flipped_bits_surface(tmp_path, codec):
    """Deflate streams carry a checksum: any flipped bit of the pixels is an error.

    GDAL writes zstd frames without one, so there only the stream's own structure can tell.
    """
    path = tmp_path / "a.tif"
    pixels = content("int16")
    write(path, pixels, **TILED, compress=codec, predictor=2)
    header = read(str(path))[0]._header
    data = path.read_bytes()
    rng = np.random.default_rng(3)
    silent = 0
    for _ in range(60):
        i = int(rng.integers(len(header.offsets)))
        at = int(header.offsets[i]) + int(rng.integers(int(header.counts[i])))
        broken = bytearray(data)
        broken[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(bytes(broken))
        try:
            _, got = read(str(path))
        except DataError:
            continue
        silent += not np.array_equal(got, pixels[0])
    assert silent == 0 or codec == "zstd"


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_fuzzed_headers_give_pixels_or_an_error(tmp_path):
    """Whatever bytes stand in a header, nothing but DataError comes out."""
    path = tmp_path / "a.tif"
    write(
        path,
        content("int16", (60, 70)),
        tiled=True,
        blockxsize=32,
        blockysize=32,
        compress="deflate",
    )
    data = path.read_bytes()
    rng = np.random.default_rng(5)
    for _ in range(300):
        broken = bytearray(data)
        for at in rng.integers(0, min(len(data), 700), 3):
            broken[at] = int(rng.integers(256))
        path.write_bytes(bytes(broken))
        close_readers()
        try:
            _, got = read(str(path), shape=(60, 70))
        except DataError:
            continue
        assert got.shape == (60, 70)


def test_a_tile_without_bytes_is_an_error(tmp_path):
    path = tmp_path / "a.tif"
    write(path, content("int16"), **TILED, compress="deflate")
    reader, _ = read(str(path))
    data = path.read_bytes()
    counts = reader._header.counts.astype("<u4").tobytes()
    if counts not in data:
        counts = reader._header.counts.astype("<u2").tobytes()
    at = data.index(counts)
    width = len(counts) // len(reader._header.counts)
    path.write_bytes(data[:at] + struct.pack("<I", 0)[:width] + data[at + width :])
    with pytest.raises(DataError, match="block 0,0 has an offset but no bytes"):
        read(str(path))


def test_a_replaced_file_is_read_anew(tmp_path):
    path = tmp_path / "a.tif"
    write(path, content("int16"), **TILED, compress="deflate")
    read(str(path))
    fresh = content("int16") + 5
    write(path, fresh, compress="zstd", tiled=True, blockxsize=32, blockysize=32)
    _, got = read(str(path))
    np.testing.assert_array_equal(got, fresh[0])
