"""save-tasks from a folder: files, keys, filters, faults."""

import json
import os
import signal
import subprocess
import sys
from datetime import datetime, timedelta
from uuid import UUID

import lmdb
import pytest
import zstandard

from odc_stats_gpu.errors import ConfigError, DataError
from odc_stats_gpu.model import OutputProduct, TileIndex, TimeRange
from odc_stats_gpu.tasks import Eo3Source, TaskDb, output_name, parse_tiles, save_tasks
from odc_stats_gpu.tasks import _storewrite as storewrite

PRODUCT = OutputProduct(name="out")
GRID = "epsg:32755;30;1000"  # tiles of 30 km, scenes laid out in their own CRS


def _raw(path):
    """The file as LMDB and zstd see it: {database: {key: bytes}} and the decompressor."""
    env = lmdb.open(str(path), subdir=False, readonly=True, lock=False, max_dbs=8)
    out = {}
    for name in (b"info", b"groups", b"ds", b"udata"):
        db = env.open_db(name, create=False)
        with env.begin(db) as txn:
            out[name.decode()] = dict(txn.cursor())
    env.close()
    zdict = out["info"].get(b"zdict")
    unzip = zstandard.ZstdDecompressor(
        **({"dict_data": zstandard.ZstdCompressionDict(zdict)} if zdict else {})
    )
    return out, lambda value: json.loads(unzip.decompress(value))


def _series(archive, count=6, **where):
    return [
        archive.scene(
            datetime(2015, 1, 3) + timedelta(days=64 * n),
            **{"x": 600_000.0, "y": 6_030_000.0, **where},
        )
        for n in range(count)
    ]


def test_the_layout_is_the_incumbents(archive, tmp_path):
    definition = archive.product()
    ids = _series(archive, 4)
    save_tasks(
        Eo3Source(archive.root),
        grid=GRID,
        output=tmp_path / "t.db",
        tiles="10:30,190:210",
        temporal_range="2015--P1Y",
    )
    raw, load = _raw(tmp_path / "t.db")
    name = "epsg:32755_30_1000"
    assert raw["info"][b"version"] == b"0001"
    assert b"zdict" not in raw["info"]
    assert raw["udata"] == {}
    assert load(raw["info"][f"grid/{name}".encode()]) == {
        "crs": "EPSG:32755",
        "tile_size": [30_000, 30_000],
        "resolution": [-30, 30],
        "origin": [0, 0],
    }
    assert load(raw["info"][b"product/ga_ls8c_ard_3"]) == definition
    assert (
        load(raw["info"][b"metadata/eo3"])["dataset"]["search_fields"]["time"]["type"]
        == "datetime-range"
    )
    config = load(raw["info"][b"stats/config"])
    assert config["grid"] == name
    assert config["freq"] == "annual"
    assert config["tiles"] == [[10, 30], [190, 210]]
    assert config["temporal_range"] == "2015--P1Y"
    assert config["query"]["product"] == ["ga_ls8c_ard_3"]
    assert raw["groups"] == {
        f"{name}/2015--P1Y/+0020/+0200".encode(): b"".join(u.bytes for u in ids)
    }
    assert set(raw["ds"]) == {u.bytes for u in ids}
    entry = load(raw["ds"][ids[0].bytes])
    assert set(entry) == {"uri", "product", "metadata"}
    assert entry["uri"] == f"file://{archive.root}/2015/01/1/scene.odc-metadata.yaml"
    meta = entry["metadata"]
    assert meta["grid_spatial"]["projection"]["geo_ref_points"]["lr"] == {
        "x": 630_000,
        "y": 6_000_000,
    }
    assert meta["extent"]["lon"]["begin"] == pytest.approx(148.06, abs=0.05)
    assert meta["properties"]["datetime"] == "2015-01-03T00:00:00Z"


def test_a_hundred_scenes_train_a_dictionary_and_read_back(archive, tmp_path):
    archive.product()
    ids = [archive.scene(datetime(2015, 1, 1) + timedelta(hours=70 * n)) for n in range(120)]
    summary = save_tasks(
        Eo3Source(archive.root), grid=GRID, frequency="all", output=tmp_path / "t.db"
    )
    raw, load = _raw(tmp_path / "t.db")
    assert 1000 < len(raw["info"][b"zdict"]) <= 8192
    assert load(raw["info"][b"stats/config"])["freq"] == "all"
    assert summary.datasets == 120
    with TaskDb.open(tmp_path / "t.db") as db:
        task = db.task(db.indexes()[0], PRODUCT)
        assert [ds.id for ds in task.datasets] == ids
        assert task.period.short == "2015--P1Y"
        assert task.datasets[3].measurements["nbart_blue"].uri.endswith("/4/blue.tif")
        assert task.products["ga_ls8c_ard_3"].find("blue").name == "nbart_blue"


def test_csv_and_geojson_agree_and_count_local_days(archive, tmp_path):
    archive.product()
    _series(archive, 2)
    # 10 hours east of Greenwich: 13:30 and 14:30 UTC are two local days of one UTC day
    archive.scene("2015-06-01T13:30:00", x=600_000.0, y=6_030_000.0)
    archive.scene("2015-06-01T14:30:00", x=600_000.0, y=6_030_000.0)
    archive.scene("2015-06-01T13:30:20", x=600_000.0, y=6_030_000.0)
    archive.scene("2016-06-01T00:00:00", x=600_000.0, y=6_000_000.0)
    archive.scene("2016-06-01T00:00:00", x=3_000.0, y=6_030_000.0 - 6_000, size=100)
    summary = save_tasks(Eo3Source(archive.root), grid=GRID, output=tmp_path / "t.db")
    assert [p.name for p in summary.files] == [
        "t.db",
        "t.csv",
        "t-2015--P1Y.geojson",
        "t-2016--P1Y.geojson",
    ]
    assert (tmp_path / "t.csv").read_text() == (
        '"T","X","Y","datasets","days"\n'
        '"2015--P1Y", +0020, +0200,    5,    4\n'
        '"2016--P1Y", +0000, +0200,    1,    1\n'
        '"2016--P1Y", +0020, +0199,    1,    1\n'
    )
    doc = json.loads((tmp_path / "t-2015--P1Y.geojson").read_text())
    (feature,) = doc["features"]
    assert "crs" not in doc
    assert feature["properties"] == {
        "title": "020,200",
        "region_code": "x020y200",
        "ix": 20,
        "iy": 200,
        "utc_offset": 10.0,
        "total": 5,
        "days": 4,
    }
    ring = feature["geometry"]["coordinates"][0]
    assert len(ring) >= 17  # bent edges are drawn bent
    assert all(148 < lon < 149 and -37 < lat < -35 for lon, lat in ring)
    with TaskDb.open(tmp_path / "t.db") as db:
        assert [str(ix) for ix in db.indexes()] == [
            "2015--P1Y/20/200",
            "2016--P1Y/00/200",
            "2016--P1Y/20/199",
        ]


def test_a_tile_over_the_dateline_is_drawn_in_two_parts(archive, tmp_path):
    archive.product()
    archive.scene("2015-06-01T00:00:00", crs="epsg:3832", x=3_330_000.0, y=30_000.0, size=100)
    save_tasks(Eo3Source(archive.root), grid="epsg:3832;30;2000", output=tmp_path / "t.db")
    doc = json.loads((tmp_path / "t-2015--P1Y.geojson").read_text())
    (shape,) = [f["geometry"] for f in doc["features"] if f["properties"]["ix"] == 55]
    assert shape["type"] == "MultiPolygon"
    longitudes = [lon for part in shape["coordinates"] for ring in part for lon, _ in ring]
    assert max(longitudes) <= 180
    assert min(longitudes) >= -180
    assert all(abs(abs(lon) - 180) < 1 for lon in longitudes)


def test_groups_list_their_scenes_by_time_then_id_once(archive, tmp_path):
    archive.product()
    late = archive.scene("2015-05-02T00:00:00", number=1)
    second = archive.scene("2015-05-01T00:00:00", number=9)
    first = archive.scene("2015-05-01T00:00:00", number=3)
    archive.scene("2015-05-02T00:00:00", number=1)  # the same document kept twice
    summary = save_tasks(Eo3Source(archive.root), grid=GRID, output=tmp_path / "t.db")
    raw, _ = _raw(tmp_path / "t.db")
    assert summary.datasets == 3
    for value in raw["groups"].values():
        assert [UUID(bytes=value[i : i + 16]) for i in range(0, len(value), 16)] == [
            first,
            second,
            late,
        ]


@pytest.mark.parametrize(
    ("options", "keeps"),
    [
        ({"temporal_range": "2015-01--P3M"}, {1, 2}),
        ({"temporal_range": "2015-03--P1M", "frequency": "monthly"}, {2}),
        ({"gqa": 1.0}, {1, 2, 5}),
        ({"gqa": 0}, {1, 5}),
        ({"usgs_collection_category": "T1"}, {1, 2, 3, 4, 5, 6}),
        ({"gqa": 1.0, "predicate": lambda ds: ds.properties["eo:cloud_cover"] > 15}, {2, 5}),
        ({"tiles": ((20, 21), (200, 201))}, {1, 2, 3, 4, 5, 6}),
        ({"tiles": "21:30,200:201"}, set()),
    ],
)
def test_what_goes_in(archive, tmp_path, options, keeps):
    archive.product()
    for n, gqa in enumerate([0, 0.5, 2, None, 0, 1.5]):
        extra = {} if gqa is None else {"gqa__iterative_mean_xy": gqa}
        archive.scene(
            datetime(2015, 1, 3) + timedelta(days=64 * n),
            x=600_000.0,
            y=6_030_000.0,
            eo__cloud_cover=10 * (n + 1),
            **extra,
        )
    summary = save_tasks(Eo3Source(archive.root), grid=GRID, output=tmp_path / "t.db", **options)
    assert summary.datasets == len(keeps)
    assert (tmp_path / "t.db").exists() == bool(keeps)
    if keeps:
        assert {int.from_bytes(k) for k in _raw(tmp_path / "t.db")[0]["ds"]} == keeps
        assert summary.seen - sum(summary.dropped.values()) == len(keeps)
    else:
        assert summary.tiles == 0
        assert [p.name for p in tmp_path.iterdir()] == ["archive"]


def test_the_collection_category_and_gqa_both_apply(archive, tmp_path):
    archive.product("ls8_sr")
    archive.product("other")
    for product in ("ls8_sr", "other"):
        for category in ("T1", "T2"):
            for gqa in (0.5, 3):
                archive.scene(
                    "2015-05-01T00:00:00",
                    product=product,
                    landsat__collection_category=category,
                    gqa__iterative_mean_xy=gqa,
                )
    summary = save_tasks(
        Eo3Source(archive.root),
        grid=GRID,
        output=tmp_path / "t.db",
        gqa=1,
        usgs_collection_category="T1",
    )
    kept = {int.from_bytes(k) for k in _raw(tmp_path / "t.db")[0]["ds"]}
    assert kept == {1, 5, 7}  # T2 of other products passes
    assert sum(summary.dropped.values()) == 5


@pytest.mark.parametrize(
    ("terms", "keeps"),
    [
        ({"eo:cloud_cover": [0, 20]}, {1, 2}),
        ('{"cloud_cover": [20, 30]}', {2, 3}),
        ({"platform": "landsat-8"}, {1, 3}),
        ({"eo:platform": ["landsat-8", "landsat-9"]}, {1, 2, 3}),
        ({"region_code": "090084", "cloud_cover": [0, 20]}, {1, 2}),
        ({"datetime": ["2015-03-01", "2015-12-31"]}, {2, 3}),
        ({"time": "2015-01--P1M"}, {1}),
        ({"lat": [-37, -35], "lon": [140, 150]}, {1, 2, 3}),
        ({"lat": [0, 10]}, set()),
        ({"eo:platform": "landsat-5"}, set()),
    ],
)
def test_dataset_filter_terms(archive, tmp_path, terms, keeps):
    archive.product()
    for n, platform in enumerate(["landsat-8", "landsat-9", "landsat-8"]):
        archive.scene(
            datetime(2015, 1, 3) + timedelta(days=64 * n),
            eo__cloud_cover=10 * (n + 1),
            eo__platform=platform,
            odc__region_code="090084",
        )
    source = Eo3Source(archive.root, dataset_filter=terms)
    assert {s.dataset.id.int for s in source.datasets(None, None)} == keeps


def test_a_filter_on_a_property_that_nobody_has_is_a_mistake(archive):
    archive.product()
    archive.scene("2015-05-01T00:00:00", eo__cloud_cover=3)
    with pytest.raises(ConfigError, match=r"cloud_covr.*eo:cloud_cover"):
        list(Eo3Source(archive.root, dataset_filter={"cloud_covr": 3}).datasets(None, None))
    with pytest.raises(ConfigError, match="JSON object"):
        Eo3Source(archive.root, dataset_filter="cloud_cover<3")


def test_overwrite_replaces_everything(archive, tmp_path):
    archive.product()
    _series(archive, 8)
    out = tmp_path / "t.db"
    first = save_tasks(Eo3Source(archive.root), grid=GRID, output=out)
    assert {p.name for p in first.files} >= {"t-2015--P1Y.geojson", "t-2016--P1Y.geojson"}
    unrelated = tmp_path / "t-notes.geojson"
    unrelated.touch()
    with pytest.raises(ConfigError, match="--overwrite"):
        save_tasks(Eo3Source(archive.root), grid=GRID, output=out)
    with TaskDb.open(out) as before:
        save_tasks(
            Eo3Source(archive.root),
            grid=GRID,
            output=out,
            overwrite=True,
            temporal_range="2016--P1Y",
        )
        assert len(before.indexes()) == 2  # a reader keeps what it opened
        with TaskDb.open(out) as after:
            assert after.indexes() == [TileIndex("2016--P1Y", 20, 200)]
    raw, _ = _raw(out)
    assert len(raw["ds"]) == 2
    assert not (tmp_path / "t-2015--P1Y.geojson").exists()
    assert unrelated.exists()
    assert not list(tmp_path.glob(".*"))


SCRIPT = """
import sys
from odc_stats_gpu.tasks import Eo3Source, save_tasks
save_tasks(Eo3Source(sys.argv[1]), grid=sys.argv[2], output=sys.argv[3], overwrite=True)
"""


@pytest.mark.parametrize(("step", "replaces"), [("tasks_batch", False), ("tasks_commit", True)])
def test_a_kill_leaves_the_old_files_and_the_next_attempt_cleans_up(
    archive, tmp_path, step, replaces
):
    archive.product()
    _series(archive, 3)
    out = tmp_path / "out" / "t.db"
    out.parent.mkdir()
    if replaces:
        save_tasks(Eo3Source(archive.root), grid=GRID, output=out)
    before = {p.name: p.read_bytes() for p in out.parent.iterdir()}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(archive.root), GRID, str(out)],
        env={**os.environ, "ODC_STATS_FAULT": f"{step}:kill"},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    assert {p.name: p.read_bytes() for p in out.parent.iterdir() if p.name[0] != "."} == before
    save_tasks(Eo3Source(archive.root), grid=GRID, output=out, overwrite=True)
    assert not list(out.parent.glob(".*"))


def test_a_failure_leaves_nothing(archive, tmp_path):
    archive.product()
    _series(archive, 3)
    bad = archive.root / "2015" / "zz.odc-metadata.yaml"
    bad.write_text("id: [unclosed")
    with pytest.raises(DataError, match=r"zz\.odc-metadata\.yaml"):
        save_tasks(Eo3Source(archive.root), grid=GRID, output=tmp_path / "t.db")
    assert [p.name for p in tmp_path.iterdir()] == ["archive"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d.pop("id"), "'id'"),
        (lambda d: d.pop("crs"), "'crs'"),
        (lambda d: d.pop("grids"), "'grids'"),
        (lambda d: d.pop("properties"), "'properties'"),
        (lambda d: d.pop("measurements"), "'measurements'"),
        (lambda d: d.pop("product"), "product.name"),
        (lambda d: d["properties"].pop("datetime"), "datetime"),
        (lambda d: d.update(id="not-a-uuid"), "UUID"),
        (lambda d: d.update(crs="epsg:999999"), "epsg:999999"),
        (lambda d: d.update(geometry={"type": "Polygon"}), "geometry"),
        (lambda d: d["properties"].update(datetime="yesterday"), "yesterday"),
        (lambda d: d["grids"].update(default={"shape": [1, 2]}), "transform"),
    ],
)
def test_a_malformed_document_is_named(archive, tmp_path, change, says):
    archive.product()
    archive.scene("2015-05-01T00:00:00")
    path = next(archive.root.glob("2015/**/*.yaml"))
    doc = json.loads(path.read_text())
    change(doc)
    path.write_text(json.dumps(doc))
    with pytest.raises(DataError) as caught:
        save_tasks(Eo3Source(archive.root), grid=GRID, output=tmp_path / "t.db")
    line = str(caught.value)
    assert "scene.odc-metadata.yaml" in line
    assert says in line
    assert "\n" not in line


def test_product_definitions_are_found_beside_or_given(archive, tmp_path):
    archive.scene("2015-05-01T00:00:00")
    archive.scene("2015-05-02T00:00:00", product="other-with-dashes")
    with pytest.raises(ConfigError, match="missing product definition"):
        Eo3Source(archive.root).products()
    # several documents in one file, of which one is something else
    two = tmp_path / "definitions.yaml"
    dashed = "other-with-dashes"
    definition = json.dumps(archive.product())
    (archive.root / "ga_ls8c_ard_3.odc-product.yaml").unlink()
    two.write_text(
        "---\n".join(
            [definition + "\n", "unrelated: 1\n", definition.replace("ga_ls8c_ard_3", dashed)]
        )
    )
    source = Eo3Source(archive.root, [two])
    assert list(source.products()) == ["ga_ls8c_ard_3", "other-with-dashes"]
    assert len(list(source.datasets(None, None))) == 2
    named = Eo3Source(archive.root, [two], products="other-with-dashes-ga_ls8c_ard_3")
    assert list(named.products()) == ["other-with-dashes", "ga_ls8c_ard_3"]
    one = Eo3Source(archive.root, [two], products="other-with-dashes")
    assert [s.dataset.product for s in one.datasets(None, None)] == ["other-with-dashes"]
    with pytest.raises(ConfigError, match=r"ga_ls8c_ard_4.*did you mean 'ga_ls8c_ard_3'"):
        Eo3Source(archive.root, [two], products="ga_ls8c_ard_4").products()
    with pytest.raises(ConfigError, match=r"a\+b"):
        Eo3Source(archive.root, [two], products="ga_ls8c_ard_3+other").products()
    with pytest.raises(ConfigError, match="no product definition"):
        Eo3Source(archive.root, [archive.root / "2015/05/1/scene.odc-metadata.yaml"]).products()


def test_a_scene_of_an_undefined_product_is_an_error_unless_others_were_asked_for(
    archive, tmp_path
):
    archive.product()
    archive.scene("2015-05-01T00:00:00")
    archive.scene("2015-05-02T00:00:00", product="mystery")
    with pytest.raises(ConfigError, match=r"'mystery'.*scene\.odc-metadata\.yaml"):
        save_tasks(Eo3Source(archive.root), grid=GRID, output=tmp_path / "t.db")
    summary = save_tasks(
        Eo3Source(archive.root, products="ga_ls8c_ard_3"), grid=GRID, output=tmp_path / "t.db"
    )
    assert summary.datasets == 1


def test_a_definition_with_nan_nodata_survives(archive, tmp_path):
    path = archive.root / "p.yaml"
    path.write_text(
        "name: p\nmetadata_type: eo3\n"
        "measurements:\n- {name: b, dtype: float32, nodata: .nan, units: '1'}\n"
    )
    archive.scene("2015-05-01T00:00:00", product="p", score=float("inf"))
    text = next(archive.root.glob("2015/**/*.yaml"))
    text.write_text(text.read_text().replace("Infinity", ".inf"))
    save_tasks(Eo3Source(archive.root), grid=GRID, output=tmp_path / "t.db")
    with TaskDb.open(tmp_path / "t.db") as db:
        band = db.products["p"].measurements[0]
        assert band.nodata != band.nodata
        assert db.task(db.indexes()[0], PRODUCT).datasets[0].properties["score"] == "Infinity"


def test_the_database_grows_past_its_map(archive, tmp_path, monkeypatch):
    archive.product()
    for n in range(200):
        archive.scene(datetime(2015, 1, 1) + timedelta(days=n), noise=os.urandom(2000).hex())
    monkeypatch.setattr(storewrite, "_MAP_SIZE", 1 << 17)
    monkeypatch.setattr(storewrite, "_BATCH_DOCS", 30)
    save_tasks(Eo3Source(archive.root), grid=GRID, output=tmp_path / "t.db")
    with TaskDb.open(tmp_path / "t.db") as db:
        assert len(db.task(db.indexes()[0], PRODUCT).datasets) == 200


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"frequency": "yearly"}, "annual"),
        ({"frequency": "rolling-3months"}, "--temporal-range"),
        ({"grid": "au-31"}, "au_30"),
        ({"temporal_range": "2019"}, "2019--P1Y"),
        ({"tiles": "1:2"}, "x0:x1,y0:y1"),
        ({"tiles": "2:1,0:3"}, "exclusive"),
        ({"complevel": 99}, "at most 22"),
        ({"output": "/nonexistent/t.db"}, "/nonexistent/t.db"),
    ],
)
def test_wrong_options_are_refused_before_any_work(archive, tmp_path, options, says):
    archive.product()
    archive.scene("2015-05-01T00:00:00")
    arguments = {"grid": GRID, "output": tmp_path / "t.db", **options}
    with pytest.raises(ConfigError) as caught:
        save_tasks(Eo3Source(archive.root), **arguments)
    assert says in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["archive"]


def test_default_names():
    assert output_name("ga_ls8c_ard_3") == "ga_ls8c_ard_3_all.db"
    assert output_name("a-b", TimeRange.parse("2015-01--P3M")) == "a-b_2015-01--P3M.db"
    assert "/" not in output_name("a+s3://bucket/x/1-0-0/")
    assert parse_tiles("30:40,-5:15") == ((30, 40), (-5, 15))


def test_links_that_lead_back_are_walked_once(archive, tmp_path):
    archive.product()
    archive.scene("2015-05-01T00:00:00")
    (archive.root / "2015" / "loop").symlink_to(archive.root)
    elsewhere = tmp_path / "elsewhere"
    archive.root.joinpath("2015").rename(elsewhere)
    (archive.root / "linked").symlink_to(elsewhere)
    found = [s.dataset.uri for s in Eo3Source(archive.root).datasets(None, None)]
    assert found == [f"file://{archive.root}/linked/05/1/scene.odc-metadata.yaml"]


def test_an_unrelated_broken_yaml_beside_is_told_only_when_a_definition_is_missing(archive):
    archive.scene("2015-05-01T00:00:00")
    (archive.root / "notes.yaml").write_text("{{ template }}: [")
    with pytest.raises(ConfigError, match=r"missing product definition.*notes\.yaml"):
        Eo3Source(archive.root).products()
    archive.product()
    assert len(list(Eo3Source(archive.root).datasets(None, None))) == 1
    (archive.root / "half.yaml").write_text(
        "{name: x, metadata_type: eo3, measurements: [{name: b}]}"
    )
    with pytest.raises(ConfigError, match=r"half\.yaml.*dtype"):
        Eo3Source(archive.root).products()


def test_a_name_without_db_keeps_its_dots(archive, tmp_path):
    archive.product()
    archive.scene("2015-05-01T00:00:00")
    summary = save_tasks(Eo3Source(archive.root), grid=GRID, output=tmp_path / "v1.2")
    assert [p.name for p in summary.files] == ["v1.2", "v1.2.csv", "v1.2-2015--P1Y.geojson"]


def test_documents_in_a_bucket_are_told_what_to_do():
    with pytest.raises(ConfigError, match=r"a folder of this machine, not s3://b/x.*may be s3://"):
        Eo3Source("s3://b/x")
