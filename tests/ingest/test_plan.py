"""What a tile reads, decided from documents."""

from __future__ import annotations

import logging
import pickle
import time
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import numpy as np
import pyproj
import pytest
from affine import Affine

from odc_stats_gpu.errors import ConfigError, DataError
from odc_stats_gpu.ingest import _bands as bands_module
from odc_stats_gpu.ingest import _frames as frames_module
from odc_stats_gpu.ingest import plan_tile
from odc_stats_gpu.model import Block, Dataset

T0 = Affine(30, 0, 498000, 0, -30, 6_002_000)


@pytest.fixture
def dataset():
    """Documents of files that don't exist: a plan opens none."""
    count = 0

    def make(time="2020-01-01", *, crs="EPSG:32755", transform=T0, shape=(300, 300), **fields):
        nonlocal count
        count += 1
        names = fields.pop("names", ("red", "nir", "mask"))
        doc = {
            "id": str(fields.pop("id_", UUID(int=count))),
            "product": {"name": fields.pop("product", "ard")},
            "crs": crs,
            "grids": {"default": {"shape": list(shape), "transform": list(transform)[:6]}},
            "properties": {"datetime": time},
            "measurements": {n: {"path": f"{n}.tif"} for n in names},
            **fields,
        }
        return Dataset.from_doc(doc, f"/nowhere/{count}.odc-metadata.yaml")

    return make


def slots(plan):
    return [[[s.dataset.id.int for s in g] for g in slot.groups] for slot in plan.slots]


@pytest.mark.parametrize(
    ("hours", "expected"),
    [
        (10, [[[1, 2]], [[3, 4]]]),
        (0, [[[1]], [[2, 3]], [[4]]]),
        (-8, [[[1, 2]], [[3]], [[4]]]),
        (-14.5, [[[1, 2, 3]], [[4]]]),
    ],
)
def test_solar_days_change_at_local_midnight(dataset, kit, hours, expected):
    scenes = [
        dataset("2020-06-30T23:59:59"),
        dataset("2020-07-01T00:00:01"),
        dataset("2020-07-01T14:00:00"),
        dataset("2020-07-02T13:59:59"),
    ]
    task = kit.make_task(scenes, kit.albers(), offset_hours=hours)
    plan = plan_tile(task, kit.Plain())
    assert slots(plan) == expected
    assert plan.days == len(expected)
    first = [g[0][0] for g in expected]
    assert list(plan.times) == [np.datetime64(scenes[i - 1].time, "ns") for i in first]


def test_grouping_by_time_and_by_scene(dataset, kit):
    scenes = [dataset("2020-01-01T01"), dataset("2020-01-01T01"), dataset("2020-01-01T02")]
    task = kit.make_task(scenes, kit.albers())
    assert slots(plan_tile(task, kit.Plain(group_by="time"))) == [[[1, 2]], [[3]]]
    assert slots(plan_tile(task, kit.Plain(group_by="idx"))) == [[[1]], [[2]], [[3]]]
    assert plan_tile(task, kit.Plain(group_by="idx")).days == 1


def test_scenes_stand_in_order_of_time_then_id(dataset, kit):
    ids = [UUID(int=i) for i in (9, 3, 7)]
    scenes = [dataset("2020-01-01T02", id_=ids[0]), dataset("2020-01-01T01", id_=ids[2])]
    scenes.append(dataset("2020-01-01T01", id_=ids[1]))
    assert slots(plan_tile(kit.make_task(scenes, kit.albers()), kit.Plain())) == [[[3, 7, 9]]]


def test_scenes_on_one_lattice_share_coordinates(dataset, kit, monkeypatch):
    """Whole pixels apart: one group and one lattice; any other distance, size or CRS: another."""
    built = []
    plain = frames_module.kernels.refine
    monkeypatch.setattr(
        frames_module.kernels, "refine", lambda *a, **k: (built.append(1), plain(*a, **k))[1]
    )
    x, y = pyproj.Transformer.from_crs(32755, 32754, always_xy=True).transform(T0.c, T0.f)
    scenes = [
        dataset("2020-01-01T01", transform=T0),
        dataset("2020-01-01T02", transform=T0 * Affine.translation(0.5, 0)),
        dataset("2020-01-01T03", transform=T0 * Affine.translation(-7, 12)),
        dataset("2020-01-01T04", transform=Affine(30, 0, x, 0, -30, y), crs="EPSG:32754"),
        dataset("2020-01-01T05", transform=T0 * Affine.scale(0.5)),
        dataset("2020-01-01T06", transform=T0 * Affine.translation(0.5, 1)),
        dataset("2020-02-01T06", transform=T0 * Affine.translation(3, -9)),
    ]
    plan = plan_tile(kit.make_task(scenes, kit.albers()), kit.Plain())
    assert slots(plan) == [[[1, 3], [2, 6], [4], [5]], [[7]]]
    assert len(built) == len(plan.frames) == 4
    assert plan.describe()["crs"] == 2


def test_spellings_of_a_crs_are_one_crs(dataset, kit):
    wkt = pyproj.CRS.from_epsg(32755).to_wkt()
    scenes = [dataset(f"2020-01-01T0{i}", crs=c) for i, c in enumerate(("epsg:32755", wkt))]
    scenes.append(dataset("2020-01-01T09", crs="EPSG:32755"))
    plan = plan_tile(kit.make_task(scenes, kit.albers()), kit.Plain())
    assert slots(plan) == [[[1, 2, 3]]]


def test_aliases_name_the_bands(dataset, kit):
    plan = plan_tile(
        kit.make_task([dataset()], kit.albers()), kit.Plain(bands=("nbart_red", "nir"))
    )
    bands = plan.scenes[0].bands
    assert [(b.name, b.measurement.name) for b in bands] == [
        ("nbart_red", "red"), ("nir", "nir"), ("mask", "mask"),
    ]  # fmt: skip


def test_an_unknown_band_lists_the_known_ones(dataset, kit):
    task = kit.make_task([dataset()], kit.albers())
    with pytest.raises(ConfigError, match=r"ard has no band 'blue' \(known: red = nbart_red, nir"):
        plan_tile(task, kit.Plain(bands=("red", "blue")))


def test_an_optional_band_is_one_warning_per_product(dataset, kit, caplog, monkeypatch):
    monkeypatch.setattr(bands_module, "_warned", set())
    task = kit.make_task([dataset(), dataset("2020-03-03")], kit.albers())
    plugin = kit.Plain()
    plugin.spec = replace(
        plugin.spec, bands=("red", "nir", "mask", "contiguity"), optional=frozenset({"contiguity"})
    )
    with caplog.at_level(logging.WARNING):
        plan = plan_tile(task, plugin)
        plan_tile(task, plugin)
    assert [len(s.bands) for s in plan.scenes] == [3, 3]
    assert [r.getMessage() for r in caplog.records] == [
        "product ard has no band 'contiguity': going on without it"
    ]


def test_bad_documents_are_named(dataset, kit):
    box = kit.albers()
    lacking = dataset(names=("red", "mask"))
    with pytest.raises(DataError, match=rf"{lacking.id} .*has no measurement 'nir'"):
        plan_tile(kit.make_task([lacking], box), kit.Plain())
    for crs in ("EPSG:999999", "nonsense", ""):
        odd = dataset(crs=crs)
        with pytest.raises(DataError, match=rf"dataset {odd.id} .*can't use its CRS '{crs}'"):
            plan_tile(kit.make_task([odd], box), kit.Plain())
    flat = dataset(transform=Affine(0, 0, 1, 0, -30, 2))
    with pytest.raises(DataError, match=rf"dataset {flat.id} .*grid without area"):
        plan_tile(kit.make_task([flat], box), kit.Plain())
    with pytest.raises(DataError, match=r"product 'other', whose definition is missing"):
        plan_tile(kit.make_task([dataset(product="other")], box), kit.Plain())


def test_an_unknown_resampling_lists_the_known_ones(dataset, kit):
    task = kit.make_task([dataset()], kit.albers())
    with pytest.raises(ConfigError, match=r"'sinc' \(known: nearest, bilinear, .*lanczos"):
        plan_tile(task, kit.Plain(resampling="sinc"))


def test_a_proj_operation_can_be_chosen(dataset, kit):
    scene = dataset(crs="EPSG:28355")  # GDA94, over a tile in GDA2020
    box = kit.albers()
    box = type(box)(box.shape, box.affine, "EPSG:9473")
    task = kit.make_task([scene], box)
    by_code = {
        code: plan_tile(task, kit.Plain(transform_code=code)).frames[0].lattice
        for code in ("EPSG:8048", None)
    }
    assert by_code["EPSG:8048"].x.shape == by_code[None].x.shape
    with pytest.raises(ConfigError, match=r"no PROJ operation EPSG:1 from .* \(known: .*EPSG:8048"):
        plan_tile(task, kit.Plain(transform_code="EPSG:1"))
    with pytest.raises(ConfigError, match="lanczos"):
        plan_tile(task, kit.Plain(transform_code="EPSG:8048", resampling="lanczos"))


def test_a_scene_out_of_reach_of_its_own_crs_is_dropped(dataset, kit):
    """Half a world away a transverse Mercator has no coordinates: no scene, no error."""
    plan = plan_tile(kit.make_task([dataset(crs="EPSG:32622")], kit.albers()), kit.Plain())
    assert plan.slots == ()
    assert plan.describe()["reads"] == 0


def test_plans_are_cheap_for_many_scenes(dataset, kit):
    """A year of 10 m data over a large tile is some thousand documents."""
    grid = T0 * Affine.translation(-2000, -2000)
    scenes = [
        dataset(
            f"2020-{1 + i % 12:02d}-{1 + i % 28:02d}",
            transform=grid * Affine.translation(i, 3),
            shape=(7000, 7000),
        )
        for i in range(600)
    ]
    task = kit.make_task(scenes, kit.albers(shape=(3200, 3200), shift=0))
    start = time.process_time()
    plan = plan_tile(task, kit.Plain())
    assert time.process_time() - start < 3
    plan.touching(Block(0, 512, 0, 512))
    assert plan.transient_bytes((512, 512), 4) < plan.transient_bytes((1024, 1024), 4)


def test_a_plan_travels_to_another_process(dataset, kit):
    """The pieces that a worker could be handed: the task, and what is made of it again."""
    task = kit.make_task([dataset()], kit.albers())
    again = plan_tile(pickle.loads(pickle.dumps(task)), kit.Plain())
    assert again.times.tolist() == plan_tile(task, kit.Plain()).times.tolist()
    assert task.utc_offset == timedelta(hours=10)
