"""Our databases read by the incumbent's own reader, in a Python of its own."""

import json
import os
import subprocess
from datetime import datetime, timedelta

import pytest

from odc_stats_gpu.model import OutputProduct
from odc_stats_gpu.tasks import Eo3Source, TaskDb, save_tasks

pytestmark = pytest.mark.compat

READ = """
import json, sys, warnings
warnings.simplefilter("ignore")
from odc.dscache import create_cache, open_ro
cache = open_ro(sys.argv[1])
config = cache.get_info_dict("stats/config")
grid = cache.grids[config["grid"]]
out = {"config": config, "products": sorted(cache.products), "count": cache.count, "tiles": {}}
for index, n in cache.tiles(config["grid"]):
    found = list(cache.stream_grid_tile(index, config["grid"]))
    assert len(found) == n
    out["tiles"]["/".join(map(str, index))] = {
        "box": list(grid.tile_geobox(index[-2:]).extent.boundingbox),
        "datasets": [
            [str(d.id), d.uri, d.center_time.isoformat(), str(d.crs), d.extent is not None]
            for d in found
        ],
    }
# and written again by the incumbent
everything = list(cache.get_all())
zdict = cache.train_dictionary(everything, 8192) if len(everything) >= 100 else None
copy = create_cache(sys.argv[2], zdict=zdict)
copy.add_grid(grid, config["grid"])
copy.append_info_dict("stats/", {"config": config})
copy.bulk_save(everything)
for index, _ in cache.tiles(config["grid"]):
    ids = [d.id for d in cache.stream_grid_tile(index, config["grid"])]
    copy.add_grid_tile(config["grid"], index, ids[::-1])
copy.close()
print("RESULT" + json.dumps(out))
"""


@pytest.fixture(scope="module")
def peer():
    """The Python that has odc-dscache, named by the environment."""
    python = os.environ.get("ODC_STATS_PEER_PYTHON")
    if not python:
        pytest.skip("ODC_STATS_PEER_PYTHON names no Python with odc-dscache")
    probe = [python, "-W", "ignore", "-c", "import odc.dscache"]
    if subprocess.run(probe, check=False, capture_output=True).returncode:
        pytest.skip(f"{python} lacks odc-dscache")
    return python


@pytest.mark.parametrize("count", [5, 130])
def test_the_incumbent_reads_our_database_and_we_read_its_copy(archive, tmp_path, peer, count):
    """With and without a compression dictionary."""
    archive.product()
    for n in range(count):
        archive.scene(
            datetime(2015, 1, 1, 1) + timedelta(days=5 * n), x=400_000.0 + 20_000 * (n % 10)
        )
    path = tmp_path / "t.db"
    save_tasks(Eo3Source(archive.root), grid="au-30", output=path)
    copy = tmp_path / "copy.db"
    command = [peer, "-c", READ, str(path), str(copy)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    theirs = json.loads(done.stdout.partition("RESULT")[2])
    assert theirs["products"] == ["ga_ls8c_ard_3"]
    assert theirs["count"] == count
    with TaskDb.open(path) as db:
        assert theirs["config"] == db.config
        assert len(theirs["tiles"]) == len(db)
        for index in db.indexes():
            task = db.task(index, OutputProduct(name="x"))
            tile = theirs["tiles"][f"{index.period}/{index.x}/{index.y}"]
            assert tile["box"] == pytest.approx(list(task.geobox.boundingbox))
            assert [d[0] for d in tile["datasets"]] == [str(ds.id) for ds in task.datasets]
            for (_, uri, time, crs, has_extent), ds in zip(
                tile["datasets"], task.datasets, strict=True
            ):
                assert uri == ds.uri
                assert datetime.fromisoformat(time).replace(tzinfo=None) == ds.time
                assert crs.lower() == ds.crs
                assert has_extent
    product = OutputProduct(name="x")
    with TaskDb.open(path) as ours, TaskDb.open(copy) as back:
        assert back.indexes() == ours.indexes()
        assert back.config == ours.config
        for index in ours.indexes():
            assert back.task(index, product) == ours.task(index, product)
