"""Which executor a run gets, and what is said when it can't have the one it asked for."""

from __future__ import annotations

import importlib.util

import pytest

from odc_stats_gpu.engine import CancelToken, InlineExecutor, RunRequest, WorkerExecutor
from odc_stats_gpu.engine import _dask_start as dask_start
from odc_stats_gpu.engine._cuda_cluster import Gpu
from odc_stats_gpu.engine._dask import DaskExecutor
from odc_stats_gpu.engine._start import one_of_the_workers, open_executor
from odc_stats_gpu.errors import ConfigError

GPUS = [Gpu(k, f"GPU-{k}", 16 << 30, 15 << 30) for k in range(2)]


@pytest.fixture
def machine(monkeypatch):
    """A machine with GPUs, or `without` something."""

    def make(*without, simulator=False, visible=None):
        problem = ("no NVIDIA driver", "run where one is") if "driver" in without else ("", "")
        missing = {{"dask": "distributed"}.get(name, name) for name in without}
        real = importlib.util.find_spec

        def find_spec(name, *args):
            return None if name in missing else real(name, *args)

        monkeypatch.setattr("importlib.util.find_spec", find_spec)
        monkeypatch.setattr("odc_stats_gpu.engine._device.gpu_problem", lambda: problem)
        monkeypatch.setattr(dask_start, "gpu_problem", lambda: problem)
        monkeypatch.setattr(dask_start, "list_gpus", lambda: GPUS)
        monkeypatch.setenv("NUMBA_ENABLE_CUDASIM", "1" if simulator else "0")
        if visible is None:
            monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        else:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    return make


def choose(queue=False, **config):
    request = RunRequest({"plugin": "pq", **config}, queue=queue)
    return open_executor(request, token=CancelToken())


def test_a_gpu_is_used_through_dask_cuda(machine):
    machine()
    assert isinstance(choose(), DaskExecutor)
    assert isinstance(choose(device="cuda"), DaskExecutor)


@pytest.mark.parametrize(
    ("config", "without", "simulator"),
    [
        ({"device": "cpu"}, (), False),
        ({}, ("driver",), False),
        ({"device": "cuda"}, (), True),
        ({"queue": True}, (), False),
        ({"queue": True, "device": "cuda"}, (), False),
        ({"cluster": "worker"}, (), False),
        ({"cluster": "worker", "device": "cuda"}, (), False),
    ],
)
def test_otherwise_one_supervised_worker(machine, config, without, simulator):
    machine(*without, simulator=simulator)
    assert isinstance(choose(**config), WorkerExecutor)


def test_without_dask_cuda_the_first_gpu_is_used_and_that_is_said(machine, capsys):
    machine("dask_cuda")
    assert isinstance(choose(), WorkerExecutor)
    assert "dask-cuda is not installed" in capsys.readouterr().err


def test_names_that_were_there_before(machine):
    machine()
    assert isinstance(choose(cluster="none"), InlineExecutor)
    assert isinstance(choose(cluster="dask"), DaskExecutor)
    assert isinstance(choose(scheduler="tcp://h:1"), DaskExecutor)
    assert isinstance(choose(cluster="dask-cuda"), DaskExecutor)


@pytest.mark.parametrize(
    ("config", "without", "message"),
    [
        ({"cluster": "daskcuda"}, (), r"unknown cluster 'daskcuda' \(one of .*dask-cuda"),
        ({"cluster": "dask-cuda"}, ("driver",), r"dask-cuda: no NVIDIA driver \(run where"),
        ({"cluster": "dask-cuda"}, ("dask_cuda",), r"needs dask-cuda \(pip install .*cuda13"),
        ({"cluster": "dask-cuda", "device": "cpu"}, (), r"exclude each other \(give --device cuda"),
        ({"cluster": "dask-cuda", "rmm_pool": "1.5"}, (), r"rmm_pool '1.5' \(a fraction"),
        ({"cluster": "dask"}, ("dask",), r"--cluster dask needs Dask \(pip install"),
        ({"scheduler": "tcp://h:1"}, ("dask",), r"--scheduler needs Dask \(pip install"),
        ({"scheduler": "tcp://h:1", "cluster": "dask-cuda"}, (), "exclude each other"),
        ({"cluster": "dask-cuda", "queue": True}, (), r"from a queue \(leave out --cluster"),
        ({"scheduler": "tcp://h:1", "queue": True}, (), "from a queue"),
    ],
)
def test_what_can_t_be_had_is_refused_with_the_remedy(machine, config, without, message):
    machine(*without)
    with pytest.raises(ConfigError, match=message):
        choose(**config)


@pytest.mark.parametrize("visible", ["", "-1", "7", "MIG-none"])
def test_hidden_gpus_are_named(machine, visible):
    machine(visible=visible)
    with pytest.raises(ConfigError, match=rf"no GPU in CUDA_VISIBLE_DEVICES={visible} \(see"):
        choose(cluster="dask-cuda")


def test_the_simulator_must_be_asked_for(machine):
    machine(simulator=True)
    with pytest.raises(ConfigError, match="--device auto exclude each other in the CUDA simulator"):
        choose(cluster="dask-cuda")
    assert isinstance(choose(cluster="dask-cuda", device="cuda"), DaskExecutor)


def test_a_dry_run_shows_the_plan_of_one_worker(machine):
    machine()
    asked = RunRequest({"plugin": "pq", "threads": 8, "memory_limit": "6Gi"})
    shown = one_of_the_workers(asked).config
    assert shown["threads"] <= 4
    assert shown["memory_limit"] == str(3 << 30)
    for config in ({"device": "cpu"}, {"cluster": "worker"}, {"cluster": "none"}):
        same = RunRequest({**asked.config, **config})
        assert one_of_the_workers(same) is same
    machine("driver")  # planned here for another machine
    named = RunRequest({**asked.config, "cluster": "dask-cuda"})
    assert one_of_the_workers(named) is named
