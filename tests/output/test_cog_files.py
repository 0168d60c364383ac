"""COGs: what other software reads from them."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import rasterio
from rasterio.enums import MaskFlags, Resampling
from rasterio.io import MemoryFile
from rio_cogeo import cog_validate

from odc_stats_gpu.errors import ConfigError, DataError
from odc_stats_gpu.model import OutputBand
from odc_stats_gpu.output import TileWriter, open_store

NAN = float("nan")
DTYPES = [
    ("uint8", 255), ("uint8", None), ("int8", -1), ("int16", -999), ("uint16", 0), ("uint16", None),
    ("int32", -999), ("uint32", 0), ("float32", NAN), ("float32", -9999.0), ("float64", NAN),
]  # fmt: skip


def one_band(kit, tmp_path, dtype, nodata, shape, cog=None, *, categorical=False, **kw):
    bands = (OutputBand("b", dtype, nodata, categorical=categorical),)
    ds = kit.pixels(shape, bands)
    store = open_store(str(tmp_path))
    kit.write(store, kit.task(shape), ds, bands, cog=cog, rgb=False, **kw).commit()
    return ds["b"].values, next(Path(tmp_path).rglob("*_b.tif"))


def levels(path):
    with rasterio.open(path) as src:
        count = len(src.overviews(1))
    out = []
    for i in range(count):
        with rasterio.open(path, overview_level=i) as src:
            out.append(src.read(1))
    return out


def gdal_levels(pixels, nodata, resampling, factors):
    """Overviews as gdaladdo makes them in a plain GeoTIFF."""
    profile = {
        "driver": "GTiff", "width": pixels.shape[1], "height": pixels.shape[0], "count": 1,
        "dtype": pixels.dtype.name, "nodata": nodata, "transform": rasterio.Affine.scale(2),
    }  # fmt: skip
    with MemoryFile() as file:
        with file.open(**profile) as dst:
            dst.write(pixels, 1)
            dst.build_overviews(factors, Resampling[resampling])
        out = []
        for i in range(len(factors)):
            with file.open(overview_level=i) as src:
                out.append(src.read(1))
    return out


@pytest.mark.parametrize(("dtype", "nodata"), DTYPES)
@pytest.mark.parametrize("shape", [(48, 70), (528, 513)])
def test_pixels_and_tags_come_back(kit, tmp_path, dtype, nodata, shape):
    pixels, path = one_band(kit, tmp_path, dtype, nodata, shape)
    with rasterio.open(path) as src:
        np.testing.assert_array_equal(src.read(1), pixels)
        assert src.dtypes == (dtype,)
        expected = NAN if nodata is None and dtype.startswith("float") else nodata
        assert repr(src.nodata) == repr(expected if expected is None else float(expected))
        assert src.crs.to_epsg() == 3577
        assert src.transform == kit.task(shape).geobox.transform
        assert src.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert len(src.overviews(1)) == (0 if shape[0] < 512 else 5)
    assert cog_validate(path, strict=True, quiet=True) == (True, [], [])


@pytest.mark.parametrize(
    ("options", "compression"),
    [
        ({"zlevel": 9}, "DEFLATE"),
        ({"zlevel": 1, "predictor": 1}, "DEFLATE"),
        ({"compress": "zstd", "zstd_level": 3}, "ZSTD"),
        ({"compress": "LZW"}, "LZW"),
        ({"compress": None}, None),
        ({"compression": "deflate", "blocksize": 250, "ovr_blocksize": 128}, "DEFLATE"),
        ({"compress": "LERC_ZSTD", "max_z_error": 0}, "LERC_ZSTD"),
        ({"compress": "PACKBITS"}, "PACKBITS"),
        ({"overview_levels": [3, 5]}, "DEFLATE"),
        ({"overview_resampling": "mode"}, "DEFLATE"),
        ({"overview_resampling": "bilinear"}, "DEFLATE"),
    ],
)
@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_every_option_gives_a_strict_cog_with_equal_pixels(
    kit, tmp_path, options, compression, dtype
):
    nodata = NAN if dtype == "float32" else -999
    pixels, path = one_band(kit, tmp_path, dtype, nodata, (544, 520), options)
    with rasterio.open(path) as src:
        np.testing.assert_array_equal(src.read(1), pixels)
        structure = src.tags(ns="IMAGE_STRUCTURE")
        assert structure.get("COMPRESSION") == compression
        if "blocksize" in options:
            assert src.block_shapes == [(256, 256)]
    assert cog_validate(path, strict=True, quiet=True) == (True, [], [])


@pytest.mark.parametrize(
    ("resampling", "shape"),
    [
        ("average", (512, 544)),  # halves evenly all the way
        ("average", (1000, 520)),  # odd from the third overview on
        ("average", (801, 523)),  # odd from the start
        ("average", (700, 40)),  # narrow: the smallest overview is 2 pixels wide
        ("nearest", (512, 544)),
        ("nearest", (803, 521)),
        ("mode", (522, 514)),
        ("bilinear", (513, 520)),
    ],
)
def test_overviews_equal_those_of_gdal(kit, tmp_path, resampling, shape):
    bands = (
        OutputBand("a", "int16", -999), OutputBand("b", "uint16", None),
        OutputBand("c", "uint8", 0), OutputBand("d", "float32", NAN),
    )  # fmt: skip
    ds = kit.pixels(shape, bands)
    cog = {b.name: {"overview_resampling": resampling} for b in bands}
    kit.write(open_store(str(tmp_path)), kit.task(shape), ds, bands, cog=cog, rgb=False).commit()
    for band in bands:
        path = next(tmp_path.rglob(f"*_{band.name}.tif"))
        expected = gdal_levels(ds[band.name].values, band.nodata, resampling, [2, 4, 8, 16, 32])
        found = levels(path)
        assert len(found) == len(expected)
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_array_equal(a, b)
        assert cog_validate(path, strict=True, quiet=True)[0]


def test_an_average_never_becomes_nodata(kit, tmp_path):
    """GDAL lets a mean that rounds to nodata through: a valid overview pixel would vanish."""
    bands = (OutputBand("b", "int16", -999),)
    ds = kit.pixels((512, 512), bands)
    ds["b"].values[:] = np.where(np.indices((512, 512)).sum(0) % 2, -998, -1000)
    kit.write(open_store(str(tmp_path)), kit.task((512, 512)), ds, bands, rgb=False).commit()
    first = levels(next(tmp_path.rglob("*_b.tif")))[0]
    assert (first == -998).all()


def test_counts_and_classes_are_never_averaged_unless_their_own_override_says_so(kit, tmp_path):
    average = {"overview_resampling": "average"}
    for name, nodata, categorical in (("count", None, False), ("class", 0, True)):
        pixels, path = one_band(
            kit, tmp_path / name, "uint16", nodata, (512, 512), average, categorical=categorical
        )
        np.testing.assert_array_equal(levels(path)[0], pixels[::2, ::2])
    pixels, path = one_band(kit, tmp_path / "own", "uint16", None, (512, 512), {"b": average})
    np.testing.assert_array_equal(levels(path)[0], gdal_levels(pixels, None, "average", [2])[0])


def test_bytes_do_not_depend_on_blocks_order_or_threads(kit, tmp_path):
    shape = (700, 531)
    ds = kit.pixels(shape)
    cog = {"overrides": {"rgba": {"compress": "JPEG", "jpeg_quality": 90}}}
    runs = [
        {"size": 1000, "threads": 1},
        {"size": 256, "threads": 3},
        {"size": 100, "threads": 2, "order": lambda n: random.Random(1).sample(range(n), n)},
        {"size": 37, "threads": 4, "order": lambda n: list(range(n))[::-1]},
    ]
    digests = []
    for i, run in enumerate(runs):
        store = open_store(str(tmp_path / str(i)))
        kit.write(store, kit.task(shape), ds, cog=cog, **run).commit()
        files = sorted(p for p in (tmp_path / str(i)).rglob("*") if p.suffix in (".tif", ".jpg"))
        digests.append({p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in files})
    assert len(digests[0]) == 7
    assert all(d == digests[0] for d in digests[1:])


def test_a_small_image_gets_a_small_block_as_the_incumbent_makes_it(kit, tmp_path):
    _, path = one_band(kit, tmp_path, "int16", -999, (100, 100))
    with rasterio.open(path) as src:
        assert src.block_shapes == [(112, 112)]


def test_options_of_a_band_come_from_overrides_and_from_any_dict_valued_key(kit, tmp_path):
    shape = (96, 80)
    cog = {"compress": "lzw", "green": {"compress": "zstd"},
           "overrides": {"blue": {"compress": "deflate"}}}  # fmt: skip
    kit.write(open_store(str(tmp_path)), kit.task(shape), kit.pixels(shape), cog=cog).commit()
    found = {}
    for band in ("red", "green", "blue"):
        with rasterio.open(next(tmp_path.rglob(f"*_{band}.tif"))) as src:
            found[band] = src.compression.name
    assert found == {"red": "lzw", "green": "zstd", "blue": "deflate"}


@pytest.mark.parametrize(
    "crs", ["EPSG:32655", "EPSG:4326", "EPSG:6933", "+proj=sinu +R=6371007.181"]
)
def test_georeference_is_what_gdal_would_write(kit, tmp_path, crs):
    res = 0.01 if crs == "EPSG:4326" else 30
    task = kit.task((64, 48), crs, (10, 20), res)
    kit.write(open_store(str(tmp_path)), task, kit.pixels((64, 48)), rgb=False).commit()
    path = next(tmp_path.rglob("*_red.tif"))
    with rasterio.open(path) as src, MemoryFile() as file:
        wanted = rasterio.crs.CRS.from_user_input(crs)
        profile = {"driver": "GTiff", "width": 48, "height": 64, "count": 1, "dtype": "int16"}
        with file.open(**profile, crs=wanted, transform=task.geobox.transform):
            pass
        with file.open() as other:
            assert src.crs == other.crs
            assert src.transform == other.transform


@pytest.mark.parametrize("compress", ["JPEG", "WEBP", "DEFLATE"])
def test_rgba_has_the_colours_and_the_transparency(kit, tmp_path, compress):
    shape = (600, 528)
    ds = kit.pixels(shape)
    valid = np.ones(shape, bool)
    valid[:200, :132] = False
    for i, name in enumerate(("red", "green", "blue")):  # smooth, so that JPEG can be compared
        ramp = np.broadcast_to(np.linspace(0, 3500, shape[1], dtype=np.int16), shape)
        ds[name].values[:] = np.where(valid, ramp // (i + 1), -999)
    cog = {"overrides": {"rgba": {"compress": compress, "jpeg_quality": 90, "webp_level": 95}}}
    kit.write(open_store(str(tmp_path)), kit.task(shape), ds, cog=cog).commit()
    path = next(tmp_path.rglob("*_rgba.tif"))
    with rasterio.open(path) as src:
        assert src.compression.name.lower() == compress.lower()
        np.testing.assert_array_equal(src.dataset_mask() > 0, valid)
        if compress == "JPEG":
            assert src.count == 3
            assert src.mask_flag_enums[0] == [MaskFlags.per_dataset]
        else:
            assert src.count == 4
        rgb = src.read([1, 2, 3]).astype(int)
    assert cog_validate(path, strict=True, quiet=True)[0]
    for i, name in enumerate(("red", "green", "blue")):
        wanted = (np.clip(ds[name].values, 1, 3000).astype(float) - 1) * 255 / 2999
        off = np.abs(rgb[i] - wanted)[valid]
        assert off.mean() < 1.5
        assert off.max() < (1.01 if compress == "DEFLATE" else 60)
    if compress == "DEFLATE":
        with rasterio.open(path) as src:
            top = ds["red"].values >= 3000
            assert (src.read(1)[top & valid] == 255).all()


def test_rgba_is_written_only_when_asked_for_but_every_tile_has_a_thumbnail(kit, tmp_path):
    shape = (96, 80)
    kit.write(open_store(str(tmp_path)), kit.task(shape), kit.pixels(shape)).commit()
    assert not list(tmp_path.rglob("*_rgba.tif"))
    data = next(tmp_path.rglob("*_thumbnail.jpg")).read_bytes()
    assert imagecodecs.jpeg8_decode(data).shape == (*shape, 3)


def test_a_file_beyond_four_gigabytes_is_bigtiff(tmp_path):
    """Written sparsely: the spool hands out the same tile again and again."""
    from odc_stats_gpu.output._codec import Codec
    from odc_stats_gpu.output._spool import Span
    from odc_stats_gpu.output._tiff import Image, cog_chunks, geo_tags

    codec = Codec("NONE", 1, 0)

    class Zeros:
        def read(self, span):
            return b"\1" * span.size

    block, rows, cols = 4096, 17, 16
    spans = [Span(0, block * block * 4)] * (rows * cols)
    shape = (rows * block, cols * block)
    image = Image(shape, (block, block), spans)
    small = Image((block, block), (block, block), spans[:1])
    geo = geo_tags(rasterio.crs.CRS.from_epsg(3577), rasterio.Affine(30, 0, 0, 0, -30, 0))
    size, chunks = cog_chunks([image, small], Zeros(), codec, np.dtype("f4"), NAN, geo)
    head = next(chunks)
    assert size == len(head) + (rows * cols + 1) * (block * block * 4 + 8)
    path = tmp_path / "big.tif"
    with path.open("wb") as out:  # a hole where the pixels would be
        out.write(head)
        out.truncate(size)
    with rasterio.open(path) as src:
        assert src.shape == shape
        assert src.overviews(1) == [16]
        offset = int(src.get_tag_item("BLOCK_OFFSET_15_16", "TIFF", bidx=1))
        assert offset == size - spans[0].size - 4
    assert head[:4] == b"II\x2b\0"


@pytest.mark.parametrize(
    ("cog", "message"),
    [
        ({"compress": "deflat"}, "DEFLAT"),
        ({"blocksize": -5}, "blocksize"),
        ({"overview_resampling": "averge"}, "averge"),
        ({"overview_levels": ["x"]}, "overview_levels"),
        ({"red": {"compress": "gzip"}}, "'red'"),
    ],
)
def test_a_wrong_option_is_named_before_any_work(kit, tmp_path, cog, message):
    with pytest.raises(ConfigError, match=message):
        kit.write(open_store(str(tmp_path)), kit.task(), kit.pixels((96, 80)), cog=cog)


def test_what_gdal_refuses_is_a_config_error_before_any_work(kit, tmp_path):
    for cog in ({"compress": "JPEG"}, {"compress": "DEFLATE", "predictor": 7}):
        with pytest.raises(ConfigError, match=r"check cog_opts|from 1 to 3"):
            TileWriter(kit.task(), kit.bands, open_store(str(tmp_path)), cog=cog)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_missing_blocks_and_wrong_types_are_refused(kit, tmp_path):
    store, task, ds = open_store(str(tmp_path)), kit.task(), kit.pixels((96, 80))
    writer = kit.write(store, task, ds, order=lambda n: range(n - 1))
    with pytest.raises(DataError, match="incomplete"):
        writer.commit()
    with pytest.raises(DataError, match="promised were uint16"):
        kit.write(store, task, ds.astype("float64").assign({b: ds[b] for b in ds if b != "count"}))
    with pytest.raises(DataError, match="no band 'sdev'"):
        kit.write(store, task, ds.drop_vars("sdev"))
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []
