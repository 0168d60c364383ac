"""Free memory in a worker whose pool has taken the device's: seen through RMM's own faces."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from odc_stats_gpu.engine._cuda_pool import unused_pool_bytes

CUDA = SimpleNamespace(allocate=None)


def upstream(resource, **more):
    return SimpleNamespace(get_upstream=lambda: resource, **more)


def tracking(resource, taken):
    return upstream(resource, get_allocated_bytes=lambda: taken)


def pool(size):
    return upstream(CUDA, pool_size=lambda: size)


def limit(size, taken):
    return upstream(CUDA, get_allocation_limit=lambda: size, get_allocated_bytes=lambda: taken)


@pytest.mark.parametrize(
    ("resource", "unused"),
    [
        (CUDA, None),
        (tracking(CUDA, 5), None),
        (pool(1000), 1000),
        (tracking(pool(1000), 300), 700),
        (upstream(tracking(pool(1000), 300)), 700),
        (limit(1000, 400), 600),
        (tracking(limit(1000, 400), 400), 600),
        (tracking(pool(100), 300), 0),
    ],
)
def test_what_is_left(monkeypatch, resource, unused):
    fake = SimpleNamespace(mr=SimpleNamespace(get_current_device_resource=lambda: resource))
    monkeypatch.setitem(sys.modules, "rmm", fake)
    assert unused_pool_bytes() == unused


def test_without_rmm_nothing_is_imported(monkeypatch):
    monkeypatch.delitem(sys.modules, "rmm", raising=False)
    assert unused_pool_bytes() is None
    assert "rmm" not in sys.modules


def test_the_real_rmm_has_these_faces():
    mr = pytest.importorskip("rmm.mr")
    assert hasattr(mr.PoolMemoryResource, "pool_size")
    for adaptor in (mr.TrackingResourceAdaptor, mr.LimitingResourceAdaptor):
        assert hasattr(adaptor, "get_allocated_bytes")
        assert hasattr(adaptor, "get_upstream")
    assert hasattr(mr.LimitingResourceAdaptor, "get_allocation_limit")
    assert not hasattr(mr.CudaMemoryResource, "get_upstream")
