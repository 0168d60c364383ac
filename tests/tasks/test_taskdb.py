"""Reading task databases: those of others, and those that are none."""

import json
import shutil
import threading
from datetime import datetime, timedelta

import lmdb
import pytest
import zstandard

from odc_stats_gpu.errors import ConfigError, DataError
from odc_stats_gpu.model import OutputProduct, TileIndex
from odc_stats_gpu.tasks import Eo3Source, TaskDb, save_tasks

PRODUCT = OutputProduct(name="out")
GRID = "epsg:32755;30;1000"


@pytest.fixture
def saved(archive, tmp_path):
    archive.product()
    for n, cloud in enumerate([10, 20, None, 40]):
        extra = {} if cloud is None else {"eo__cloud_cover": cloud}
        archive.scene(
            datetime(2015, 1, 3) + timedelta(days=30 * n),
            x=600_000.0,
            y=6_030_000.0,
            note="a|b" if n == 3 else "x",
            **extra,
        )
    save_tasks(Eo3Source(archive.root), grid=GRID, output=tmp_path / "t.db")
    return tmp_path / "t.db"


def _edit(path, db, change):
    """Change one of the named databases as another writer would."""
    env = lmdb.open(str(path), subdir=False, lock=False, max_dbs=8)
    with env.begin(env.open_db(db), write=True) as txn:
        change(txn)
    env.close()


def _first_task(path):
    with TaskDb.open(path) as db:
        db.indexes()
        return db.task(INDEX, PRODUCT)


INDEX = TileIndex("2015--P1Y", 20, 200)


def test_a_task_has_all_that_a_worker_needs(saved):
    with TaskDb.open(saved) as db:
        assert db.indexes() == [INDEX]
        assert len(db) == 1
        task = db.task(INDEX, PRODUCT, resolution="60")
    assert task.index == INDEX
    assert tuple(task.geobox.shape) == (500, 500)
    assert task.geobox.boundingbox.bbox == (600_000, 6_000_000, 630_000, 6_030_000)
    assert [ds.id.int for ds in task.datasets] == [1, 2, 3, 4]
    assert task.utc_offset == timedelta(hours=10)
    assert set(task.products) == {"ga_ls8c_ard_3"}


@pytest.mark.parametrize(
    ("text", "keeps"),
    [
        (None, [1, 2, 3, 4]),
        ("", [1, 2, 3, 4]),
        ('{"eo:cloud_cover": 10}', [1]),
        ('{"eo:cloud_cover": 10} | {"eo:cloud_cover": 40}', [1, 4]),
        ('{"eo:cloud_cover": 10, "note": "x"}|{"note": "a|b"}', [1, 4]),
        ('{"datetime": "2015-02--P2M"}', [2, 3]),
        ('{"datetime": "2015-02--P2M", "eo:cloud_cover": 20}', [2]),
        ('{"nobody:has": 1}', []),
    ],
)
def test_run_time_filters(saved, text, keeps):
    with TaskDb.open(saved) as db:
        task = db.task(INDEX, PRODUCT, dataset_filters=text)
    assert [ds.id.int for ds in task.datasets] == keeps


@pytest.mark.parametrize("text", ["cloud<3", "[1]", '{"a": 1} {"b": 2}', '{"datetime": "soon"}'])
def test_a_wrong_filter_is_one_line(saved, text):
    with TaskDb.open(saved) as db, pytest.raises(ConfigError):
        db.task(INDEX, PRODUCT, dataset_filters=text)


def test_readers_share_a_file(saved):
    with TaskDb.open(saved) as one:
        with TaskDb.open(str(saved)) as two, TaskDb.open(f"file://{saved}") as three:
            assert one.indexes() == two.indexes() == three.indexes()
        errors = []

        def read():
            try:
                for _ in range(20):
                    assert len(one.task(INDEX, PRODUCT).datasets) == 4
            except Exception as exc:  # noqa: BLE001 - handed to the test's thread
                errors.append(exc)

        threads = [threading.Thread(target=read) for _ in range(4)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert not errors
    shutil.copy(saved, saved.with_suffix(".ro"))
    saved.with_suffix(".ro").chmod(0o444)
    with TaskDb.open(saved.with_suffix(".ro")) as db:
        assert len(db) == 1


def test_a_database_of_the_incumbent_with_legacy_keys(saved):
    """`uris` lists, unsorted groups, another writer's key for the same period."""

    def legacy(txn):
        zip_, unzip = zstandard.ZstdCompressor(), zstandard.ZstdDecompressor()
        for key, value in list(txn.cursor()):
            doc = json.loads(unzip.decompress(value))
            doc["uris"] = [doc.pop("uri"), "s3://elsewhere/x.yaml"]
            txn.put(key, zip_.compress(json.dumps(doc).encode()))

    def regroup(txn):
        ((key, value),) = list(txn.cursor())
        txn.delete(key)
        ids = [value[i : i + 16] for i in range(0, len(value), 16)]
        txn.put(key.replace(b"2015--P1Y", b"2015-01-01--P1Y"), b"".join([*reversed(ids), ids[0]]))

    _edit(saved, b"ds", legacy)
    _edit(saved, b"groups", regroup)
    with TaskDb.open(saved) as db:
        assert db.indexes() == [INDEX]
        task = db.task(INDEX, PRODUCT)
    assert [ds.id.int for ds in task.datasets] == [1, 2, 3, 4]
    assert task.datasets[0].measurements["nbart_blue"].uri.startswith("file:///")


def test_what_is_no_database(tmp_path):
    with pytest.raises(ConfigError, match="no such task database"):
        TaskDb.open(tmp_path / "absent.db")
    with pytest.raises(ConfigError, match="local"):
        TaskDb.open("s3://bucket/x.db")
    with pytest.raises(ConfigError):
        TaskDb.open(tmp_path)
    for content in (b"", b"hello", b"\0" * 10_000):
        (tmp_path / "x.db").write_bytes(content)
        with pytest.raises(DataError, match="not a task database"):
            TaskDb.open(tmp_path / "x.db")
    env = lmdb.open(str(tmp_path / "other.db"), subdir=False, lock=False)
    with env.begin(write=True) as txn:
        txn.put(b"a", b"b")
    env.close()
    with pytest.raises(DataError, match="no task database"):
        TaskDb.open(tmp_path / "other.db")


def test_a_file_cut_short_is_an_error_and_no_crash(saved):
    content = saved.read_bytes()
    saved.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="cut short"):
        TaskDb.open(saved)


@pytest.mark.parametrize(
    ("db", "change", "says"),
    [
        (b"info", lambda t: t.delete(b"version"), "no format version"),
        (b"info", lambda t: t.put(b"version", b"0002"), "0002"),
        (
            b"info",
            lambda t: t.delete(b"product/ga_ls8c_ard_3"),
            "product definition of 'ga_ls8c_ard_3'",
        ),
        (b"info", lambda t: t.delete(b"grid/epsg:32755_30_1000"), "grid"),
        (b"info", lambda t: t.put(b"stats/config", b"junk"), "damaged"),
        (b"ds", lambda t: t.delete((3).to_bytes(16)), "00000000-0000-0000-0000-000000000003"),
        (b"ds", lambda t: t.put((3).to_bytes(16), b"junk"), "damaged"),
        (
            b"groups",
            lambda t: t.put(b"epsg:32755_30_1000/2015--P1Y/+0020/+0200", b"xyz"),
            "damaged",
        ),
        (b"groups", lambda t: t.put(b"epsg:32755_30_1000/nonsense/+0020/+0200", b""), "nonsense"),
    ],
)
def test_a_damaged_database_says_what_is_missing(saved, db, change, says):
    _edit(saved, db, change)
    with pytest.raises(DataError) as caught:
        _first_task(saved)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_tile_and_an_impossible_resolution(saved):
    with TaskDb.open(saved) as db:
        with pytest.raises(DataError, match="2015--P1Y/01/01"):
            db.task(TileIndex("2015--P1Y", 1, 1), PRODUCT)
        with pytest.raises(ConfigError, match="impossible resolution"):
            db.task(INDEX, PRODUCT, resolution="31")
