"""`doctor` on machines of all kinds: no GPU, GPUs that don't exist, nothing installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module

import fakenvml
import pytest

from odc_stats_gpu.engine import Finding, _kernel_check, examine
from odc_stats_gpu.engine._doctor_access import credentials
from odc_stats_gpu.engine._doctor_gpu import cuda_wheels, installed_wheels, profilers
from odc_stats_gpu.engine._finding import safely
from odc_stats_gpu.errors import ConfigError

GIB = 1 << 30
CUDA = ("cupy", "cupyx", "numba_cuda", "rmm", "dask_cuda", "cupy_xarray", "pynvml", "nvtx")
ORDER = [
    "python", "gpu", "cuda wheels", "cupy", "numba_cuda", "rmm", "dask_cuda", "cupy_xarray",
    "pynvml", "nvtx", "device", "cuda kernels", "nsys", "ncu", "numba", "cpus", "memory", "disk",
    "scratch", "kernel cache", "gdal", "proj", "aws", "datacube",
]  # fmt: skip


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return fakenvml.build(tmp_path_factory.mktemp("nvml"))


def doctor(*options, lacking=("datacube",), **env):
    """Exit code and findings by name of the command in a process; nothing was said besides."""
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({lacking!r}))\n"
        "from odc_stats_gpu.cli import main\n"
        f"sys.exit(main(['doctor', '--json', *{options!r}]))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | env, capture_output=True, text=True,
        check=False, timeout=240,
    )  # fmt: skip
    assert run.stderr == ""
    findings = json.loads(run.stdout)
    for finding in findings:
        assert list(finding) == ["what", "ok", "found", "remedy", "needed"]
        assert [type(v) for v in finding.values()] == [str, bool, str, str, bool]
        assert bool(finding["remedy"]) != finding["ok"], finding
        assert "\n" not in finding["found"] + finding["remedy"]
    return run.returncode, {f["what"]: f for f in findings}


def test_a_machine_without_a_gpu_is_fit_and_says_what_it_lacks():
    code, found = doctor("--quick")
    assert code == 0
    assert list(found) == ORDER
    assert found["gpu"]["found"] == "no NVIDIA driver"
    assert found["device"]["found"] == "cpu: no NVIDIA driver"
    assert found["cuda wheels"]["ok"]
    needed = {what for what, f in found.items() if f["needed"]}
    assert needed == {"numba", "memory", "scratch", "gdal", "proj"}
    assert all(found[what]["ok"] for what in needed)


def test_gpus_are_told_one_by_one_and_a_driver_that_is_too_old(library):
    env = fakenvml.environment(
        library, 2, memory=[16 * GIB, 24 * GIB], free=[12 * GIB, GIB], simulate=False, ecc="0,3",
        clock="1590,300", slowed="4,64", mig=[0, 2],
        cuda=12040,
    )  # fmt: skip
    code, found = doctor("--quick", **env, CUDA_VISIBLE_DEVICES="0")
    assert code == 0
    assert found["gpu"] == {
        "what": "gpu", "ok": True, "found": "2: Imaginary GPU; driver 580.00, CUDA 12.4",
        "remedy": "", "needed": False,
    }  # fmt: skip
    well, ill = found["gpu 0"], found["gpu 1"]
    assert well["ok"]
    assert well["found"] == (
        "Imaginary GPU, compute capability 9.0, 12.0 GiB free of 16.0 GiB, ECC on, "
        "SM clock 1590 of 1980 MHz"
    )
    assert not ill["ok"]
    for fact in (
        "MIG on, 2 instances 12.0 GiB + 12.0 GiB",
        "hidden by CUDA_VISIBLE_DEVICES=0",
        "1.0 GiB free",
        "3 memory errors",
        "slowed by heat",
    ):
        assert fact in ill["found"]
    for remedy in ("nvidia-smi", "reset the GPU", "cooling"):
        assert remedy in ill["remedy"]
    wheels = found["cuda wheels"]
    assert not wheels["ok"]
    assert wheels["found"].endswith("the driver ends at CUDA 12.4")
    assert "odc-stats-gpu[cuda12]" in wheels["remedy"]
    assert "580" in wheels["remedy"]
    assert found["device"]["found"].startswith("cpu: CUDA doesn't start")  # there is none, really
    assert found["device"]["remedy"] == "check the driver with nvidia-smi"


@pytest.mark.parametrize(
    ("driver", "wheels", "ok", "text"),
    [
        (0, {}, False, "none"),
        (0, {"cupy-cuda13x": 13}, True, "no driver"),
        (13_000, {"cupy-cuda12x": 12}, True, "knows CUDA 13.0"),  # newer drivers run older CUDA
        (12_090, {"cupy-cuda12x": 12, "rmm-cu12": 12}, True, "knows CUDA 12.9"),
        (12_090, {"cupy-cuda13x": 13}, False, "ends at CUDA 12.9"),
        (11_080, {"cupy-cuda12x": 12}, False, "from 525 on"),
        (13_000, {"cupy-cuda13x": 13, "rmm-cu12": 12}, False, "two versions"),
    ],
)
def test_driver_against_wheels(driver, wheels, ok, text):
    found = cuda_wheels(driver, wheels)
    assert found.ok == ok
    assert text in f"{found.found} {found.remedy}"
    assert bool(found.remedy) != ok


def test_the_wheels_of_this_environment_agree():
    wheels = installed_wheels()
    assert {"cupy-cuda13x", "rmm-cu13", "cuda-toolkit", "nvidia-nvvm"} <= set(wheels)
    assert set(wheels.values()) == {13}


def test_without_cuda_packages_every_one_is_named_with_its_extra():
    code, found = doctor(lacking=(*CUDA, "datacube"))
    assert code == 0
    for name in ("cupy", "numba_cuda", "rmm", "dask_cuda", "cupy_xarray", "pynvml", "nvtx"):
        assert found[name]["found"] == "not installed"
        assert "odc-stats-gpu[cuda13]" in found[name]["remedy"]
    assert "numba-cuda is not installed" in found["cuda kernels"]["found"]
    assert "[cuda13]" in found["gpu"]["found"]


def test_with_next_to_nothing_installed_it_still_speaks():
    lacking = (*CUDA, "numpy", "numba", "llvmlite", "rasterio", "pyproj", "boto3", "datacube",
               "xarray")  # fmt: skip
    code, found = doctor(lacking=lacking)
    assert code == 1  # tiles can't be made here
    assert set(found) >= set(ORDER)
    for what in ("numba", "gdal", "proj"):
        assert not found[what]["ok"]
        assert found[what]["needed"]
        assert found[what]["found"].startswith("ModuleNotFoundError")
        assert found[what]["remedy"] == "install the package anew"


def test_places_that_cannot_be_used(tmp_path):
    blocked = tmp_path / "file"
    blocked.touch()
    _, found = doctor(
        "--quick", NUMBA_CACHE_DIR=str(blocked / "x"), PROJ_DATA=str(tmp_path),
        NUMBA_CPU_NAME="x86-64-v3", NUMBA_CPU_FEATURES="+avx2,+no-such-thing",
    )  # fmt: skip
    assert not found["kernel cache"]["ok"]
    assert "NUMBA_CACHE_DIR" in found["kernel cache"]["remedy"]
    assert not found["proj"]["ok"]
    assert found["proj"]["remedy"] == f"unset PROJ_DATA={tmp_path}"
    assert "no-such-thing" in found["numba"]["found"]


def test_credentials_without_a_region(monkeypatch):
    for name, value in {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b",
                        "AWS_CONFIG_FILE": "/none", "AWS_DEFAULT_REGION": ""}.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    assert "AWS_DEFAULT_REGION" in credentials(quick=True).remedy
    monkeypatch.setenv("AWS_DEFAULT_REGION", "ap-southeast-2")
    assert credentials(quick=True).found == "credentials from env, region ap-southeast-2"
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    assert "unset AWS_PROFILE" in credentials(quick=True).remedy


def test_profilers_are_found_on_the_path(monkeypatch, tmp_path):
    (tmp_path / "nsys").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = {f.what: f for f in profilers()}
    assert found["nsys"].found == str(tmp_path / "nsys")
    assert "--profile ncu" in found["ncu"].remedy


def test_whatever_a_look_raises_is_a_finding():
    def strange():
        raise RuntimeError("\n first\nsecond")

    def known():
        raise ConfigError("it is so", "do this")

    (found,) = safely("x", strange, needed=True)
    assert found == Finding("x", ok=False, found="RuntimeError: first", remedy="see the message",
                            needed=True)  # fmt: skip
    assert safely("x", known) == [Finding("x", ok=False, found="it is so", remedy="do this")]


def test_every_listed_kernel_is_compiled():
    names = [
        name for share in range(_kernel_check.SHARES) for name, *_ in _kernel_check._share(share)
    ]
    rooms = ("warp", "masks", "morphology", "fuse", "counts")
    cuda = [import_module(f"odc_stats_gpu.kernels.{room}.cuda") for room in rooms]
    listed = [name for module in cuda for name, *_ in module.KERNELS]
    geomedians = ["geomad 6 bands, 4 lanes", "geomad 10 bands, 8 lanes"]
    assert sorted(names) == sorted([*listed, *geomedians])


def test_a_kernel_that_does_not_compile_is_named():
    code = (
        f"from {_kernel_check.__name__.rpartition('.')[0]} import _kernel_check as k\n"
        "one = [kernel for kernel in k._share(2) if kernel[0] == 'count_true']\n"
        "k._share = lambda share: one\n"
        "k.main(2, [(9, 0)]); k.main(2, [(3, 0)])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    well, ill = (json.loads(line) for line in run.stdout.splitlines())
    assert well == {"kernel": "count_true", "problem": ""}
    assert "3.0" in ill["problem"]


def test_a_compiler_that_dies_or_hangs_is_a_finding(monkeypatch, tmp_path):
    shell = tmp_path / "python"
    monkeypatch.setattr(_kernel_check.sys, "executable", str(shell))
    for does, said in (
        ("kill -SEGV $$", "the compiler was killed by SIGSEGV"),
        ("echo oh no >&2; exit 1", "oh no"),
        ("exec sleep 600", "the compiler took more than 1 s"),
    ):
        shell.write_text(f"#!/bin/sh\n{does}\n")
        shell.chmod(0o755)
        monkeypatch.setattr(_kernel_check, "_PATIENCE", 1 if "sleep" in does else 60)
        with _kernel_check.Compilers() as compilers:
            _, problems = compilers.check([(9, 0)])
        assert problems == [said] * _kernel_check.SHARES


def test_compilers_end_when_the_doctor_is_called_off(monkeypatch, tmp_path):
    shell = tmp_path / "python"
    shell.write_text("#!/bin/sh\nexec sleep 600\n")
    shell.chmod(0o755)
    monkeypatch.setattr(_kernel_check.sys, "executable", str(shell))
    with ThreadPoolExecutor(1) as meanwhile, _kernel_check.Compilers() as compilers:
        checking = meanwhile.submit(compilers.check, [(9, 0)])
        while len(compilers._running) < _kernel_check.SHARES and not checking.done():
            time.sleep(0.01)
    said = "the compiler was killed by SIGKILL"
    assert checking.result() == (_kernel_check.SHARES, [said] * _kernel_check.SHARES)


@pytest.mark.slow
def test_every_kernel_compiles_for_the_device_that_is_here(library):
    env = fakenvml.environment(library, 2, cc="89,75", simulate=False)
    _, found = doctor(**env)
    assert found["cuda kernels"]["found"] == "all 19 compile for sm_89, sm_75"
    _, found = doctor(**fakenvml.environment(library, 1, cc="52"))  # in the simulator, too
    assert found["cuda kernels"]["found"].startswith("19 of 19 don't compile for sm_52")


def test_the_function_is_public_and_quick_when_asked(monkeypatch):
    nobody = Finding("datacube", ok=True, found="not asked")
    monkeypatch.setattr("odc_stats_gpu.engine._doctor.datacube", lambda _env: nobody)
    findings = {f.what: f for f in examine(quick=True)}
    assert list(findings) == ORDER
    assert findings["cuda kernels"].found == "not compiled (--quick)"
