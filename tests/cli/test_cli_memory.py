"""What a dry run says of memory: of a GPU that is elsewhere, and of those that NVML shows."""

from __future__ import annotations

import re

import fakenvml
import pytest

from odc_stats_gpu.engine import _dask_start, _device
from odc_stats_gpu.engine._cuda_cluster import Gpu

GIB = 1 << 30


@pytest.fixture
def gpus(monkeypatch):
    """What NVML shows in this process, where CUDA doesn't start."""

    def show(*free, simulated=False):
        found = [
            Gpu(k, f"GPU-{k}", 24 * GIB, bytes_, name="Imaginary GPU")
            for k, bytes_ in enumerate(free)
        ]
        monkeypatch.setattr(_device, "list_gpus", lambda: found)
        monkeypatch.setattr(_dask_start, "list_gpus", lambda: found)
        monkeypatch.setattr(_device, "_lacking", lambda: ("no CUDA here", "go where one is"))
        monkeypatch.setenv("NUMBA_ENABLE_CUDASIM", "1" if simulated else "0")
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    return show


@pytest.fixture
def plan(here, mini, tmp_path):
    """The line of the plan, and all that was said."""

    def run(*options, start=here, **env):
        code, out, err = start(
            "run", mini.db, mini.tiles[0], "--config", mini.config, "--location", tmp_path / "out",
            "--dry-run", "--threads", "2", *options, **env,
        )  # fmt: skip
        assert code == 0, err
        assert not (tmp_path / "out").exists()
        return next(line for line in out.splitlines() if "threads, device" in line), out + err

    return run


def amounts(line):
    """Predicted and limit in MiB, of the host and then of the device."""
    found = re.findall(r"([\d.]+) (MiB|GiB) of ([\d.]+) (MiB|GiB)", line)
    scale = {"MiB": 1, "GiB": 1024}
    return [(float(a) * scale[u], float(b) * scale[v]) for a, u, b, v in found]


def test_a_gpu_that_is_elsewhere(plan, gpus):
    gpus()
    line, _ = plan("--device", "cuda", "--device-memory", "16Gi")
    (host, host_limit), (device, device_limit) = amounts(line)
    assert device_limit == 16 * 1024
    assert 512 < device <= 0.9 * device_limit
    assert host <= host_limit
    assert "16.0 GiB (--device-memory)" in line
    assert line.endswith("device cuda (not here)")


def test_a_gpu_that_is_too_small_leaves_the_tile_to_the_cpu(plan, gpus):
    gpus()
    line, said = plan("--device", "cuda", "--device-memory", "600Mi")
    assert line.endswith("device cpu")
    assert "device memory of 600 MiB (--device-memory) is too little" in said
    assert re.search(r"needs at least \d+ MiB: take a larger GPU", said)


def test_without_the_option_the_gpu_must_be_here(here, mini, tmp_path, gpus):
    gpus()
    args = ("run", mini.db, "--config", mini.config, "--location", tmp_path / "o", "--device=cuda")
    code, out, err = here(*args, "--dry-run")
    assert (code, out) == (2, "")
    assert "no CUDA here (go where one is; with --device-memory a dry run plans" in err
    code, _, err = here(*args, "--device-memory", "16Gi", "--cluster", "none")
    assert code == 2  # a run needs it all the same
    assert "--device cuda: no CUDA here" in err
    assert not (tmp_path / "o").exists()


def test_a_size_that_nobody_can_read(here, mini, tmp_path):
    code, _, err = here("run", mini.db, "--config", mini.config, "--location", tmp_path,
                        "--dry-run", "--device-memory", "16Q")  # fmt: skip
    assert code == 2
    assert "can't read the size '16Q' (write a memory size like 60Gi" in err


@pytest.mark.parametrize("simulated", [True, False])
def test_what_nvml_shows_is_what_is_planned_with(plan, gpus, monkeypatch, simulated):
    gpus(5 * GIB, 3 * GIB, simulated=simulated)
    line, _ = plan("--device", "cuda")
    assert amounts(line)[1][1] == 5 * 1024
    assert "5.0 GiB (free on Imaginary GPU)" in line
    line, _ = plan("--device", "cuda", "--device-memory", "2Gi")
    assert "2.0 GiB (--device-memory)" in line
    line, _ = plan("--device", "cuda", "--device-memory", "20Gi")
    assert "5.0 GiB (free on Imaginary GPU)" in line
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    line, _ = plan("--device", "cuda")
    assert "3.0 GiB (free on Imaginary GPU)" in line


def test_workers_plan_with_the_pool_on_the_fullest_gpu(plan, gpus):
    gpus(10 * GIB, 5 * GIB, simulated=True)
    cluster = ("--device", "cuda", "--cluster", "dask-cuda", "--memory-limit", "12Gi")
    line, _ = plan(*cluster)
    assert "4.0 GiB (RMM pool on Imaginary GPU)" in line
    assert amounts(line)[0][1] == 6 * 1024  # of the host, half for each
    line, _ = plan(*cluster, "--rmm-pool", "0")
    assert "5.0 GiB (free on Imaginary GPU)" in line
    line, _ = plan(*cluster, "--workers", "1")
    assert "8.0 GiB (RMM pool on Imaginary GPU)" in line


def test_nvml_itself(plan, gpus, finish, tmp_path):
    """In a process of its own, with a library that shows GPUs; CUDA can't be started there."""
    library = fakenvml.build(tmp_path)
    shown = fakenvml.environment(library, 2, free=[7 * GIB, 5 * GIB], simulate=False)
    line, said = plan("--device", "cuda", start=finish, NUMBA_ENABLE_CUDASIM="0", **shown)
    assert "7.0 GiB (free on Imaginary GPU)" in line
    assert line.endswith("device cuda:0 Imaginary GPU")
    assert "only a plan: " in said


def test_what_is_too_little_for_each_of_several_workers_is_told_before_they_start(
    here, mini, tmp_path, monkeypatch
):
    pytest.importorskip("distributed", reason="Dask is not installed")
    monkeypatch.setattr(_dask_start, "OwnWorkers", None)
    code, _, err = here(
        "run", mini.db, mini.tiles[0], "--config", mini.config, "--location", tmp_path / "out",
        "--cluster", "dask", "--workers", "2", "--threads", "2", "--memory-limit", "700Mi",
    )  # fmt: skip
    assert code == 2
    assert "one of 2 workers: a memory limit of 350 MiB" in err
    assert re.search(r"needs at least \d+ MiB: raise --memory-limit or lower --threads, or", err)
