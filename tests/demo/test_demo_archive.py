"""The demo archive is what an agency would publish: formats, geometry, masks and physics hold."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path

import numpy as np
import pytest
import rasterio
import yaml
from rasterio.warp import Resampling, reproject
from shapely.geometry import Point, shape

from odc_stats_gpu.demo import write_archive
from odc_stats_gpu.errors import ConfigError
from odc_stats_gpu.model import Dataset, Product

KINDS = ("landsat", "sentinel2")


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """One archive of each kind, big enough for overviews and for clouds to cast shadows."""
    root = tmp_path_factory.mktemp("archives")
    some = ["blue", "red", "nir", "swir1"]  # half of the files are enough of Landsat
    return {
        "landsat": write_archive(
            root / "landsat", kind="landsat", tile_pixels=420, dates=18, bands=some
        ),
        "sentinel2": write_archive(root / "s2", kind="sentinel2", tile_pixels=300, dates=12),
    }


def _doc(path):
    return yaml.safe_load(Path(path).read_text())


def _read(path, doc, band):
    with rasterio.open(Path(path).parent / doc["measurements"][band]["path"]) as src:
        return src.read(1), src.profile


def _digests(folder):
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_gives_the_same_bytes_whatever_the_threads(tmp_path, kind):
    size = {"kind": kind, "tile_pixels": 48, "dates": 4, "bands": ["red", "swir1"]}
    one = write_archive(tmp_path / "a", threads=1, **size)
    two = write_archive(tmp_path / "b", threads=3, **size)
    other = write_archive(tmp_path / "c", seed=1, **size)
    assert _digests(one.folder) == _digests(two.folder)
    assert not set(_digests(one.folder).values()) & {
        v for k, v in _digests(other.folder).items() if k.endswith("tif")
    }


def test_an_archive_is_rewritten_only_when_it_changed(tmp_path):
    size = {"kind": "landsat", "tile_pixels": 32, "dates": 2, "bands": ["red"]}
    first = write_archive(tmp_path, **size)
    victim = (
        first.documents[0].parent / _doc(first.documents[0])["measurements"]["nbart_red"]["path"]
    )
    before = victim.stat().st_mtime_ns
    write_archive(tmp_path, **size)
    assert victim.stat().st_mtime_ns == before
    victim.unlink()
    write_archive(tmp_path, **size)
    assert victim.exists()
    second = write_archive(tmp_path, seed=5, **size)
    found = sorted(tmp_path.rglob("*.odc-metadata.yaml"))
    assert found == sorted(second.documents)
    assert _doc(found[0])["id"] != _doc(first.documents[0])["id"] or found != first.documents


def test_both_kinds_may_share_a_folder(tmp_path):
    size = {"tile_pixels": 24, "dates": 2, "bands": ["red"]}
    landsat = write_archive(tmp_path, kind="landsat", **size)
    before = _digests(tmp_path)
    sentinel = write_archive(tmp_path, kind="sentinel2", **size)
    assert before.items() <= _digests(tmp_path).items()
    found = set(tmp_path.rglob("*.odc-metadata.yaml"))
    assert found == {*landsat.documents, *sentinel.documents}


def test_a_foreign_collection_is_never_touched(tmp_path):
    (tmp_path / "ga_ls8c_ard_3").mkdir()
    precious = tmp_path / "ga_ls8c_ard_3" / "scene.tif"
    precious.write_text("mine")
    (tmp_path / "ga_ls8c_ard_3.odc-product.yaml").write_text("name: x")
    with pytest.raises(ConfigError, match="didn't write"):
        write_archive(tmp_path, kind="landsat", tile_pixels=32, dates=2)
    assert precious.read_text() == "mine"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"kind": "spot"}, "spot"),
        ({"dates": 1}, "1 dates"),
        ({"dates": 400}, "400 dates"),
        ({"tile_pixels": 3}, "3 pixels"),
        ({"seed": -1}, "-1"),
        ({"bands": ["redd"]}, "redd"),
    ],
)
def test_impossible_sizes_are_named(tmp_path, change, text):
    with pytest.raises(ConfigError, match=text):
        write_archive(
            tmp_path / "x", **{"kind": "landsat", "tile_pixels": 32, "dates": 2, **change}
        )
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_every_file_is_a_strict_cog_that_fits_its_document(archives, kind):
    from rio_cogeo import cog_validate

    archive = archives[kind]
    product = Product.from_doc(_doc(next(archive.folder.glob("*.odc-product.yaml"))))
    overviews = 0
    for path in archive.documents:
        doc = _doc(path)
        assert set(doc["measurements"]) == {m.name for m in product.measurements}
        for name, entry in doc["measurements"].items():
            with rasterio.open(path.parent / entry["path"]) as src:
                grid = doc["grids"][entry.get("grid", "default")]
                measurement = product.find(name)
                assert src.shape == tuple(grid["shape"])
                assert list(src.transform) == grid["transform"]
                assert src.crs.to_epsg() == int(doc["crs"].split(":")[1])
                assert src.dtypes[0] == measurement.dtype
                assert src.nodata == measurement.nodata
                assert src.block_shapes[0] == (512, 512)
                assert src.compression.name == "deflate"
                assert src.tags(ns="IMAGE_STRUCTURE")["PREDICTOR"] == "2"
                overviews += bool(src.overviews(1))
    assert overviews or kind == "sentinel2"  # smaller than a block
    last = archive.documents[-1]
    for entry in _doc(last)["measurements"].values():
        valid, errors, warned = cog_validate(last.parent / entry["path"], strict=True, quiet=True)
        assert (valid, errors, warned) == (True, [], [])


@pytest.mark.parametrize("kind", KINDS)
def test_eodatasets3_finds_nothing_to_complain_about(archives, kind):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of third parties at import
        from eodatasets3.validate import ValidationExpectations, validate_dataset, validate_product

    product = _doc(next(archives[kind].folder.glob("*.odc-product.yaml")))
    assert [str(m) for m in validate_product(product)] == []
    ids = set()
    for path in archives[kind].documents:
        doc = _doc(path)
        ids.add(doc["id"])
        found = validate_dataset(doc, product_definition=product, expect=ValidationExpectations())
        assert [str(m) for m in found] == []
    assert len(ids) == len(archives[kind].documents)


@pytest.mark.parametrize("kind", KINDS)
def test_datacube_indexes_and_loads_it(archives, kind):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of third parties
        from datacube import Datacube
        from datacube.cfg import ODCConfig
        from datacube.index.hl import Doc2Dataset

        config = ODCConfig(raw_dict={"default": {"index_driver": "memory"}})
        dc = Datacube(env=config["default"])
        archive = archives[kind]
        for doc in archive.folder.glob("*.odc-product.yaml"):
            dc.index.products.add_document(_doc(doc))
        resolve = Doc2Dataset(dc.index)
        for path in archive.documents:
            dataset, err = resolve(_doc(path), path.as_uri())
            assert err is None
            dc.index.datasets.add(dataset, with_lineage=False)
        datasets = dc.find_datasets(product=archive.product)
        assert len(datasets) == len(archive.documents)
        first = next(d for d in datasets if d.crs.to_epsg() == 32755)
        pixels = dc.load(
            datasets=[first],
            measurements=["swir1", "fmask" if kind == "landsat" else "SCL"],
            output_crs=first.crs,
            resolution=archive.resolution * 2,
        )
    assert (pixels.swir1 != pixels.swir1.nodata).mean() > 0.3


@pytest.mark.parametrize("kind", KINDS)
def test_one_tile_needs_both_zones_and_days_have_pairs(archives, kind):
    archive = archives[kind]
    assert len(archive.tiles) == 1
    assert {s.zone for s in archive.scenes} == {55, 56}
    days: dict[int, list] = {}
    for scene, path in zip(archive.scenes, archive.documents, strict=True):
        days.setdefault(scene.day, []).append(Dataset.from_doc(_doc(path), path.as_uri()))
    pairs = [p for p in days.values() if len(p) == 2]
    assert len(days) == archive.dates
    assert len(pairs) == archive.dates // 3
    assert {tuple(d.crs for d in p) for p in pairs} >= {
        ("epsg:32755", "epsg:32755"),
        ("epsg:32756", "epsg:32756"),
    }
    assert any(a.crs != b.crs for a, b in pairs)
    assert any(a.time.date() != b.time.date() for a, b in pairs), "no pair around UTC midnight"
    for a, b in pairs:
        if a.crs == b.crs:  # one lattice: whole pixels between the corners
            shift = ~a.grids["default"].transform * b.grids["default"].transform
            assert shift.c == round(shift.c)
            assert shift.f == round(shift.f)


@pytest.mark.parametrize("kind", KINDS)
def test_the_footprint_holds_every_valid_pixel_and_little_else(archives, kind):
    archive = archives[kind]
    tight = []  # above 1 where a band lost lines
    for path in archive.documents[:5]:
        doc = _doc(path)
        image, profile = _read(path, doc, archive.bands[0])
        valid = image != archive.sensor.nodata
        outline = shape(doc["geometry"])
        rows, cols = np.nonzero(valid)
        for pick in np.linspace(0, len(rows) - 1, 200).astype(int):
            assert outline.covers(
                Point(profile["transform"] * (cols[pick] + 0.5, rows[pick] + 0.5))
            )
        tight.append(outline.area / (valid.sum() * archive.resolution**2))
    assert np.median(tight) < 1.03


def test_swaths_end_in_slanted_edges(archives):
    archive = archives["landsat"]
    path = next(
        d for d, s in zip(archive.documents, archive.scenes, strict=True) if s.row == "full"
    )
    image, _ = _read(path, _doc(path), "nbart_blue")
    last = [np.flatnonzero(line != -999)[-1] for line in image]
    slope = np.polyfit(np.arange(len(last)), last, 1)[0]
    assert -0.25 < slope < -0.15  # columns per row: 11 degrees


def test_contiguity_is_zero_exactly_where_a_band_is_missing(archives):
    archive = archives["landsat"]
    single = 0
    for path in archive.documents:
        doc = _doc(path)
        missing = np.stack([_read(path, doc, b)[0] == -999 for b in archive.bands])
        contiguity, _ = _read(path, doc, "oa_nbart_contiguity")
        np.testing.assert_array_equal(contiguity == 0, missing.any(0))
        fmask, _ = _read(path, doc, "oa_fmask")
        single += int((missing.any(0) & ~missing.all(0) & (fmask != 0)).sum())
    assert single > 2_000


@pytest.mark.parametrize(
    ("kind", "band", "mask", "cloud", "ground"),
    [
        ("landsat", "nbart_blue", "oa_fmask", (2,), (1,)),
        ("sentinel2", "B02", "SCL", (8, 9, 10), (4, 5, 6, 7)),
    ],
)
def test_masks_tell_the_truth_but_for_some_haze(archives, kind, band, mask, cloud, ground):
    archive = archives[kind]
    step = archive.sensor.mask_step
    bright, missed, total, classes = [], 0, 0, set()
    for path in archive.documents:
        doc = _doc(path)
        image, _ = _read(path, doc, band)
        image = image[::step, ::step].astype(int)
        seen, _ = _read(path, doc, mask)
        classes |= set(np.unique(seen).tolist())
        clear = np.isin(seen, ground) & (image > 0)
        bright.append(np.median(image[np.isin(seen, cloud)]) if np.isin(seen, cloud).any() else 9e9)
        missed += int((image[clear] > 2_200).sum())
        total += int(clear.sum())
    assert np.median(bright) > 2_500
    assert 1e-4 < missed / total < 0.03
    assert classes >= ({0, 1, 2, 3, 5} if kind == "landsat" else {0, 2, 3, 4, 5, 6, 7, 8, 9})


def test_shadows_lie_away_from_the_sun(archives):
    """The shift at which the cloud mask best explains the shadow mask points south-west."""
    archive = archives["landsat"]
    tried = 0
    for path in archive.documents:
        doc = _doc(path)
        fmask, _ = _read(path, doc, "oa_fmask")
        cloud, shadow = (fmask == 2).astype(float), (fmask == 3).astype(float)
        if not 0.05 < cloud.mean() < 0.4:
            continue
        tried += 1
        shape_ = [2 * n for n in cloud.shape]
        spectrum = np.fft.rfft2(shadow - shadow.mean(), shape_)
        spectrum *= np.conj(np.fft.rfft2(cloud - cloud.mean(), shape_))
        dy, dx = np.unravel_index(np.fft.irfft2(spectrum, shape_).argmax(), shape_)
        dy, dx = (
            int(d) - n if d > n // 2 else int(d) for d, n in zip((dy, dx), shape_, strict=True)
        )
        towards = np.degrees(np.arctan2(-dx, dy)) % 360  # from shadow to cloud, rows go south
        turn = (towards - doc["properties"]["eo:sun_azimuth"] + 180) % 360 - 180
        assert abs(turn) < 25, (path.name, dy, dx)
    assert tried >= 3


def _on_tile(archive, path, band, *, resampling=Resampling.bilinear):
    from affine import Affine

    x, y = archive.tiles[0]
    n, res = archive.tile_pixels, archive.resolution
    doc = _doc(path)
    image, profile = _read(path, doc, band)
    out = np.full((n, n), np.nan, np.float32)
    reproject(
        image.astype(np.float32), out, src_transform=profile["transform"], src_crs=profile["crs"],
        src_nodata=float(profile["nodata"]),
        dst_transform=Affine(res, 0, x * n * res, 0, -res, (y + 1) * n * res),
        dst_crs="epsg:3577", dst_nodata=np.nan, resampling=resampling,
    )  # fmt: skip
    return out


@pytest.mark.parametrize("kind", KINDS)
def test_clear_observations_agree_with_the_truth_in_both_zones(archives, kind):
    archive = archives[kind]
    band, mask, ok = (
        ("nbart_red", "oa_fmask", (1,)) if kind == "landsat" else ("B04", "SCL", (4, 5))
    )
    truth = archive.truth()
    assert set(truth) == set(archive.bands)
    for crs in ("55", "56"):
        layers = []
        for path in archive.documents:
            if not _doc(path)["crs"].endswith(crs):
                continue
            image = _on_tile(archive, path, band)
            image[~np.isin(_on_tile(archive, path, mask, resampling=Resampling.nearest), ok)] = (
                np.nan
            )
            layers.append(image)
        stack = np.stack(layers)
        often = np.isfinite(stack).sum(0) >= 4
        median = np.nanmedian(stack[:, often], axis=0)
        assert often.mean() > 0.25
        assert np.corrcoef(median, truth[band][often])[0, 1] > 0.85
        assert abs(np.median(median - truth[band][often])) < 120


def test_vegetation_has_a_season_and_spectra_have_their_shape(archives):
    archive = archives["sentinel2"]
    truth = archive.truth()
    ndvi = (truth["B8A"] - truth["B04"]) / (truth["B8A"] + truth["B04"])
    water = (truth["B03"] > truth["B8A"]) & (truth["B12"] < 300)
    assert 0.005 < water.mean() < 0.2
    assert np.percentile(ndvi, 90) > 0.6
    assert (truth["B05"] < truth["B06"])[ndvi > 0.6].all()
    assert (truth["B11"] > truth["B12"]).mean() > 0.98
    by_month = {}
    for scene, path in zip(archive.scenes, archive.documents, strict=True):
        doc = _doc(path)
        seen, _ = _read(path, doc, "SCL")
        by_month[scene.day] = (seen == 4).sum() / max(np.isin(seen, (4, 5)).sum(), 1)
    spring = np.mean([v for d, v in by_month.items() if 220 < d < 280])
    summer = np.mean([v for d, v in by_month.items() if d < 60 or d > 330])
    assert spring > summer + 0.1


def test_tiny_archives_of_several_tiles(tmp_path):
    calls = []
    archive = write_archive(
        tmp_path, kind="landsat", tile_pixels=32, dates=2, tile_counts=(2, 2), bands=["red"],
        progress=lambda done, total: calls.append((done, total)),
    )  # fmt: skip
    assert len(archive.tiles) == len(set(archive.tiles)) == 4
    assert calls[-1] == (3, 3)
    assert archive.truth(archive.tiles[3])["nbart_red"].shape == (32, 32)
    for doc in map(_doc, archive.documents):
        assert set(doc["measurements"]) == {"nbart_red", "oa_fmask", "oa_nbart_contiguity"}
