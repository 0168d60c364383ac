"""What LocalCUDACluster is asked for, worked out from facts: no GPU, no NVML, no Dask."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

from odc_stats_gpu.engine._cuda_cluster import (
    HOST_FLOOR,
    Gpu,
    Pool,
    cluster_arguments,
    near_cpus,
    parse_pool,
    pool_bytes,
    share,
    visible,
)
from odc_stats_gpu.errors import ConfigError

GIB = 1 << 30


def gpu(index, total=16 * GIB, free=None, cpus=range(8), uuid=None, parent=""):
    free = total - total // 16 if free is None else free
    return Gpu(index, uuid or f"GPU-{index:04x}-aa", total, free, tuple(cpus), "T", parent)


T4 = gpu(0, total=15 * GIB, free=15 * GIB - (100 << 20))
H100 = [gpu(k, total=80 * GIB, free=79 * GIB, cpus=range(48 * (k // 4), 48 * (k // 4) + 48))
        for k in range(8)]  # fmt: skip
SLICES = [gpu(0, total=5 * GIB, free=5 * GIB, uuid=f"MIG-{k:04x}-bb", parent="GPU-0000-aa")
          for k in range(7)]  # fmt: skip


def ask(gpus, workers=None, pool=Pool(0.8), **more):  # noqa: B008 - frozen
    count = len(gpus) if workers is None else workers
    return cluster_arguments(gpus, workers=count, pool=pool, scratch="/s", **more)


@pytest.mark.parametrize(
    ("gpus", "pool"),
    [
        ([T4], int((15 * GIB - (100 << 20)) * 0.8)),
        (H100, int(79 * GIB * 0.8)),
        (SLICES, 4 * GIB),  # 0.8 of 5 GiB, and 1 GiB is left to the context: the same
        ([gpu(0, total=2 * GIB, free=int(1.7 * GIB))], int(0.7 * GIB)),
        ([gpu(0, free=GIB)], None),  # somebody else has the memory: too little for a pool
        ([gpu(0, total=0, free=0)], None),  # host and device share theirs
    ],
)
def test_one_worker_per_device_and_a_pool_that_fits(gpus, pool):
    args = ask(gpus)
    assert args["n_workers"] == len(gpus)
    assert args["CUDA_VISIBLE_DEVICES"] == [g.uuid for g in gpus]
    assert args["threads_per_worker"] == 1
    if pool is None:
        assert args["rmm_pool_size"] is None
        assert args["rmm_allocator_external_lib_list"] is None
    else:
        assert args["rmm_pool_size"] == pool // 256 * 256
        assert args["rmm_allocator_external_lib_list"] == ["cupy"]
    assert not args["rmm_async"]
    assert args["rmm_track_allocations"] == (pool is not None)
    assert args["rmm_maximum_pool_size"] is None  # it may grow into what is left


def test_the_pool_fits_the_fullest_of_the_gpus():
    mixed = [gpu(0, total=80 * GIB, free=79 * GIB), gpu(1, total=24 * GIB, free=20 * GIB)]
    assert ask(mixed)["rmm_pool_size"] == 16 * GIB
    assert ask(mixed, workers=1)["rmm_pool_size"] == int(79 * GIB * 0.8) // 256 * 256
    for free in range(GIB, 4 * GIB, 99_999_989):
        size = pool_bytes([gpu(0, free=free)], 0.95)
        assert size % 256 == 0
        assert size <= free - GIB or size == 0


def test_the_driver_s_own_pool_keeps_what_a_fixed_one_would_take():
    args = ask([T4], pool=Pool(0.5, asynchronous=True))
    assert args["rmm_async"] is True
    assert args["rmm_pool_size"] is None  # dask-cuda refuses both
    assert args["rmm_release_threshold"] == int(T4.free * 0.5) // 256 * 256
    assert args["rmm_maximum_pool_size"] == args["rmm_release_threshold"]
    none = ask([T4], pool=Pool(0))
    assert not none["rmm_async"]
    assert none["rmm_pool_size"] is none["rmm_release_threshold"] is None


def test_dask_spills_nothing_watches_no_memory_and_shows_no_dashboard():
    args = ask(H100)
    assert args["memory_limit"] == args["device_memory_limit"] == 0
    assert args["dashboard_address"] is None
    assert args["local_directory"] == "/s"
    assert ask(H100, dashboard=":8787")["dashboard_address"] == ":8787"


def test_fewer_workers_take_the_first_gpus():
    args = ask(H100, workers=3)
    assert args["n_workers"] == 3
    assert args["CUDA_VISIBLE_DEVICES"] == [g.uuid for g in H100[:3]]


def test_the_real_class_knows_every_argument():
    deploy = pytest.importorskip("dask_cuda")
    from distributed import LocalCluster, Nanny

    known = {
        name
        for cls in (deploy.LocalCUDACluster, LocalCluster, Nanny)
        for name in inspect.signature(cls.__init__).parameters
    }
    assert set(ask(H100)) <= known


@pytest.mark.parametrize(
    ("places", "wanted", "threads", "memory", "near", "expected"),
    [
        (1, 0, 8, 60 * GIB, 8, (1, 8, 60 * GIB)),
        (8, 0, 96, 480 * GIB, 48, (8, 12, 60 * GIB)),
        (8, 2, 96, 480 * GIB, 48, (2, 48, 240 * GIB)),
        (8, 1, 96, 480 * GIB, 48, (1, 48, 480 * GIB)),  # pinned to one socket
        (8, 0, 4, 480 * GIB, 4, (8, 1, 60 * GIB)),  # fewer CPUs than GPUs
        (2, 5, 8, 60 * GIB, 8, (2, 4, 30 * GIB)),
        (8, 0, 8, 7 * GIB, 8, (2, 4, 7 * GIB // 2)),  # a small container on a large machine
        (8, 0, 8, GIB, 8, (1, 8, GIB)),  # the plan of blocks says what is too little
        (4, 0, 16, 64 * GIB, 0, (4, 4, 16 * GIB)),
    ],
)
def test_cpus_and_memory_are_shared_out(places, wanted, threads, memory, near, expected):
    part = share(places, wanted=wanted, threads=threads, memory=memory, floor=HOST_FLOOR, near=near)
    assert (part.workers, part.threads, part.memory) == expected
    assert part.workers * part.memory <= memory


def test_gpus_left_idle_are_mentioned():
    assert share(8, wanted=0, threads=8, memory=640 * GIB, floor=HOST_FLOOR).why == ""
    why = share(8, wanted=0, threads=8, memory=7 * GIB, floor=HOST_FLOOR).why
    assert "2 of 8 GPUs" in why
    assert "7.0 GiB" in why
    assert "no more GPUs" in share(2, wanted=3, threads=8, memory=640 * GIB).why


def test_threads_follow_the_cpus_next_to_the_gpu():
    assert near_cpus(H100, range(96)) == 48
    assert near_cpus(H100, range(4)) == 4  # pinned or not: the second socket is not ours
    assert near_cpus([gpu(0, cpus=())], range(16)) == 16
    assert near_cpus([gpu(0, cpus=range(2)), gpu(1, cpus=range(8))], range(16)) == 2


FOUR = [gpu(k) for k in range(4)]
MIXED = [gpu(0), *(gpu(1, uuid=f"MIG-{k:04x}-cc", parent="GPU-0001-aa") for k in range(2)), gpu(2)]


@pytest.mark.parametrize(
    ("gpus", "listed", "expected"),
    [
        (FOUR, None, [0, 1, 2, 3]),
        (FOUR, "2,0", [2, 0]),
        (FOUR, " 1 , 3 ", [1, 3]),
        (FOUR, "GPU-0003-aa,GPU-0001-aa", [3, 1]),
        (FOUR, "GPU-0003", [3]),
        (FOUR, "gpu-0002-AA", [2]),
        (FOUR, "GPU-000", []),  # names four
        (FOUR, "0,9,1", [0]),  # ends at the first that names none, as the driver has it
        (FOUR, "0,-1,1", [0]),
        (FOUR, "", []),
        (FOUR, "-1", []),
        (FOUR, "none", []),
        (FOUR, "NoDevFiles", []),
        (FOUR, "all", []),
        (MIXED, None, [0, 1, 2, 3]),
        (MIXED, "1", [1, 2]),
        (MIXED, "GPU-0001", [1, 2]),
        (MIXED, "MIG-0001-cc,0", [2, 0]),
        (MIXED, "2,MIG-0000-cc", [3, 1]),
        (SLICES, "GPU-0000-aa", [0, 1, 2, 3, 4, 5, 6]),
    ],
)
def test_visible_devices_as_the_driver_reads_them(gpus, listed, expected):
    assert visible(gpus, listed) == [gpus[k] for k in expected]


def test_a_gpu_named_twice_is_refused():
    with pytest.raises(ConfigError, match="twice"):
        visible(FOUR, "1,GPU-0001-aa")


@pytest.mark.parametrize(
    ("text", "pool"),
    [("0.8", Pool(0.8)), ("0", Pool(0)), (" 0.25 ", Pool(0.25)), ("async:0", Pool(0)),
     ("async", Pool(0.8, asynchronous=True)), ("Async:0.5", Pool(0.5, asynchronous=True))],
)  # fmt: skip
def test_pool_spellings(text, pool):
    assert parse_pool(text) == pool


@pytest.mark.parametrize("text", ["", "80%", "8GB", "1", "-0.1", "nan", "async:", "async:x", "inf"])
def test_other_pools_are_refused_with_the_remedy(text):
    with pytest.raises(ConfigError, match=r"rmm_pool .*fraction"):
        parse_pool(text)


def test_nothing_is_imported_for_it():
    code = (
        "import sys; import odc_stats_gpu.engine._cuda_cluster; "
        "print([m for m in ('dask_cuda', 'pynvml', 'dask', 'distributed', 'numpy') "
        "if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
