"""A small archive, and fleets of real workers over it, with results in a folder or on S3."""

from __future__ import annotations

import uuid

import pytest
from faultproxy import FaultProxy
from realfleet import Fleet

from odc_stats_gpu.demo import write_archive
from odc_stats_gpu.queue import forget_clients
from odc_stats_gpu.tasks import Eo3Source, save_tasks


@pytest.fixture(scope="session")
def db(tmp_path_factory):
    """Twelve months of at least six tiles of 16 pixels."""
    folder = tmp_path_factory.mktemp("storm")
    archive = write_archive(
        folder / "a", kind="landsat", tile_pixels=16, dates=24, tile_counts=(3, 2), bands=["red"]
    )
    save_tasks(
        Eo3Source(archive.folder), grid=archive.grid, output=folder / "x.db", frequency="monthly"
    )
    return folder / "x.db"


@pytest.fixture
def aws(moto, monkeypatch):
    """The judge talks to moto itself, past the faults."""
    for name, value in {
        "AWS_ENDPOINT_URL": moto, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    forget_clients()
    yield moto
    forget_clients()


@pytest.fixture
def fleet(aws, db, tmp_path):
    """Makes fleets: fleet(s3=True, ...) has an empty queue, an empty output and no worker yet."""
    made = []
    with FaultProxy(aws) as proxy:

        def make(*, s3=False, where="", filedb=db, **options):
            if not where:
                where = f"s3://b{uuid.uuid4().hex[:10]}/p" if s3 else f"{tmp_path}/out{len(made)}"
            folder = tmp_path / f"fleet{len(made)}"
            made.append(Fleet(proxy, folder, str(filedb), where, **options))
            return made[-1]

        yield make
        for one in made:
            one.end()
