from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from affine import Affine

from odc_stats_gpu.ingest import load_block, plan_tile
from odc_stats_gpu.model import Block, as_stack


@pytest.fixture
def pool():
    with ThreadPoolExecutor(2) as pool:
        yield pool


def scene_bands(kit, shape, seed):
    rng = np.random.default_rng(seed)
    mask = np.ones(shape, "uint8")
    for _ in range(6):
        y, x = rng.integers(0, shape[0]), rng.integers(0, shape[1])
        mask[y : y + 9, x : x + 7] = 2
    return {"red": kit.smooth(shape, seed), "nir": kit.smooth(shape, seed + 50), "mask": mask}


def test_blocks_agree(archive, kit, pool):
    shape = (230, 240)
    t0 = Affine(30, 0, 498000, 0, -30, 6_002_000)
    t1 = Affine(30, 0, 498000 + 30 * 40, 0, -30, 6_002_000 - 30 * 35)
    import pyproj

    x, y = pyproj.Transformer.from_crs(32655, 32654, always_xy=True).transform(498000, 6_002_000)
    t2 = Affine(30, 0, round(x / 30) * 30 - 900, 0, -30, round(y / 30) * 30 + 900)
    sets = [
        archive.scene("2020-01-01T00:10:00", scene_bands(kit, shape, 1), transform=t0),
        archive.scene("2020-01-01T00:10:20", scene_bands(kit, shape, 2), transform=t1),
        archive.scene(
            "2020-01-01T00:11:20", scene_bands(kit, shape, 3), transform=t2, crs="EPSG:32654"
        ),
        archive.scene("2020-02-01T00:10:20", scene_bands(kit, shape, 4), transform=t1),
    ]
    plan = plan_tile(kit.make_task(sets, kit.albers(shape=(150, 160))), kit.Plain())
    assert len(plan.slots) == 2
    whole = load_block(plan, plan.whole, pool)
    assert as_stack(whole).shape == (2, 2, 150, 160)
    print((as_stack(whole) != -999).mean(axis=(2, 3)))
    for size in (40, 64):
        for y in range(0, 150, size):
            for x in range(0, 160, size):
                b = Block(y, min(y + size, 150), x, min(x + size, 160))
                part = load_block(plan, b, pool)
                np.testing.assert_array_equal(
                    as_stack(part), as_stack(whole)[:, :, b.y0 : b.y1, b.x0 : b.x1]
                )
