"""docker/: what the images promise, and their install lines run for real, without an engine."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_spec = importlib.util.spec_from_file_location(
    "dockerfile", Path(__file__).with_name("dockerfile.py")
)
_module = importlib.util.module_from_spec(_spec)
_sys_name = _spec.name


@pytest.fixture(scope="module")
def dockerfile():
    import sys

    sys.modules[_sys_name] = _module
    _spec.loader.exec_module(_module)
    return _module


@pytest.fixture(scope="module")
def stages(dockerfile):
    return dockerfile.read(ROOT / "docker/Dockerfile")


@pytest.mark.parametrize("image", ["cpu", "gpu"])
def test_images_run_as_nobody_special_under_tini(stages, dockerfile, image):
    line = dockerfile.lineage(stages, image)
    user = [u for s in line for u in s.all("USER")][-1]
    assert user == "1000:1000"  # a number: Kubernetes can see that it isn't root
    (entry,) = [dockerfile.listed(t) for s in line for t in s.all("ENTRYPOINT")]
    assert entry == ["tini", "--", "entrypoint"]
    base = next(s for s in line if s.name == "base")
    (root,) = base.all("RUN")
    assert re.search(r"apt-get install -y --no-install-recommends tini\b", root)
    kinds = [k for k, _ in base.steps]
    assert kinds.index("RUN") < kinds.index("USER"), "packages are installed as root"
    env = dockerfile.environment(stages, image)
    made = re.search(r"install -d -o worker -g worker ([^&]+)", root)[1].split()
    for key in ("NUMBA_CACHE_DIR", "KERNELS", "HOME", "TMPDIR"):
        assert env[key] in made, key
    assert Path(env["HEARTBEAT"]).parent.as_posix() in made
    built = [f"--from=build-{image} {p} {p}" for p in ("/opt/venv", "/opt/cubins")]
    assert line[-1].all("COPY") == (built if image == "gpu" else built[:1])


def test_the_gpu_image_asks_for_what_it_needs_of_the_driver(stages, dockerfile):
    env = dockerfile.environment(stages, "gpu")
    assert env["NVIDIA_DRIVER_CAPABILITIES"] == "compute,utility"
    assert env["NVIDIA_VISIBLE_DEVICES"] == "all"
    for key in ("CUPY_CACHE_DIR", "CUDA_CACHE_PATH"):
        assert env[key].startswith(env["NUMBA_CACHE_DIR"] + "/")
    install, compile_ahead = stages["build-gpu"].all("RUN")
    assert install.split()[-1] == "cuda13"
    assert compile_ahead.split()[-2:] == ["odc_stats_gpu.kernels.compile_ahead", "/opt/cubins"]
    assert env["ODC_STATS_CUBINS"] == "/opt/cubins"  # root's: a worker can't change it
    assert not set(dockerfile.environment(stages, "cpu")) & {"NVIDIA_VISIBLE_DEVICES"}


def test_kernels_are_compiled_for_the_processor_that_is_named(stages, dockerfile, tmp_path):
    """With name and features pinned Numba's cache has one key, whatever machine compiles."""
    env = dockerfile.environment(stages, "cpu")
    pinned = {k: env[k] for k in ("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES")}
    text = (
        "from numba.core.registry import cpu_target\n"
        "from numba import njit\n"
        "assert njit(lambda x: x * 2.0 + 1)(3.0) == 7\n"
        "print(*cpu_target.target_context.codegen().magic_tuple()[1:])"
    )
    done = subprocess.run(
        [str(ROOT / ".venv/bin/python"), "-c", text],
        env=os.environ | pinned, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == list(pinned.values())


def test_everything_that_is_copied_is_there_and_not_ignored(stages, dockerfile, tmp_path):
    for stage in stages.values():
        for text in stage.all("COPY"):
            if "--from" not in text:
                dockerfile.copy(ROOT, re.sub(r"--\S+ ", "", text), tmp_path / stage.name)
    copied = tmp_path / "build"
    assert (copied / "odc_stats_gpu/kernels").is_symlink()
    assert (copied / "odc_stats_gpu/kernels/__init__.py").is_file()
    assert (copied / "odc_stats_gpu/demo/gm-ls.yaml").is_file()
    names = {p.name for p in copied.iterdir()}
    wanted = {"requirements.lock", "pyproject.toml", "README.md", "LICENSE", "docker"}
    assert names == wanted | {"odc_stats_gpu", "kernels", "cli"}


def test_health_is_the_age_of_the_heartbeat(stages, dockerfile, tmp_path):
    (text,) = stages["base"].all("HEALTHCHECK")
    command = dockerfile.listed(text.partition(" CMD ")[2])
    beat = tmp_path / "heart beat"

    def healthy():
        env = os.environ | {"HEARTBEAT": str(beat)}
        return subprocess.run(command, env=env, check=False).returncode == 0

    assert healthy()  # not a worker, or not yet
    beat.touch()
    assert healthy()
    os.utime(beat, (time.time() - 600,) * 2)
    assert not healthy()


def test_entrypoint_brings_the_kernels_to_the_cache(tmp_path):
    tool = tmp_path / "bin/odc-stats-gpu"
    tool.parent.mkdir()
    tool.write_text('#!/bin/sh\necho "ran $*"\n')
    tool.chmod(0o755)
    (tmp_path / "kernels/room_1").mkdir(parents=True)
    (tmp_path / "kernels/room_1/a.nbi").write_text("index")
    cache = tmp_path / "cache"

    def start():
        env = {
            "PATH": f"{tool.parent}:{os.environ['PATH']}",
            "KERNELS": str(tmp_path / "kernels"),
            "NUMBA_CACHE_DIR": str(cache),
        }
        command = ["sh", str(ROOT / "docker/entrypoint.sh"), "run", "--x=a b"]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
        assert done.stdout == "ran run --x=a b\n"

    start()  # no cache to write to is no reason not to run
    cache.mkdir()
    start()
    assert (cache / "room_1/a.nbi").read_text() == "index"
    (cache / "room_1/a.nbi").write_text("newer")
    start()
    assert (cache / "room_1/a.nbi").read_text() == "newer"


@pytest.mark.parametrize("tool", ["hadolint", "shellcheck"])
def test_linters_find_nothing(tool):
    if shutil.which(tool) is None:
        pytest.skip(f"no {tool} here")
    files = ["Dockerfile"] if tool == "hadolint" else ["install.sh", "entrypoint.sh"]
    done = subprocess.run(
        [tool, *files], cwd=ROOT / "docker", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def run_lines(stages, dockerfile, image, folder):
    """Run the install lines of an image with its folders below `folder`; return its environment."""
    source = folder / "src"
    moved = {
        p: f"{folder}{p}"
        for p in ("/opt/venv", "/opt/kernels", "/opt/cubins", "/tmp/demo", "/cache", "/scratch")
    }

    def here(text):
        for old, new in moved.items():
            text = re.sub(rf"(?<![\w/]){re.escape(old)}\b", new, text)
        return text

    env = {k: v for k, v in os.environ.items() if not k.startswith(("NUMBA_", "VIRTUAL_ENV"))}
    for stage in dockerfile.lineage(stages, f"build-{image}"):
        for kind, text in stage.steps:
            if kind == "COPY":
                dockerfile.copy(ROOT, text, source)
            elif kind == "RUN":
                source.mkdir(exist_ok=True)
                # all kernels take half an hour of CPU
                few = " --targets 7.5 9.0 --only 'count_true int16 C'" * ("compile_ahead" in text)
                subprocess.run(["sh", "-ec", here(text + few)], cwd=source, env=env, check=True)
    for path in ("/cache", "/scratch", "/opt/kernels"):
        Path(here(path)).mkdir(parents=True, exist_ok=True)
    shutil.rmtree(source)  # a stage has only what is copied from the other
    own = {k: here(v) for k, v in dockerfile.environment(stages, image).items() if k != "PATH"}
    env |= own | {"PATH": f"{here('/opt/venv')}/bin:{env['PATH']}"}
    for text in stages[image].all("RUN"):
        subprocess.run(["sh", "-ec", here(text)], cwd=own["HOME"], env=env, check=True)
    return env


def kernels_in(folder):
    return {p.name: p.stat().st_size for p in Path(folder).rglob("*.nb[ic]")}


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("image", ["cpu", "gpu"])
def test_install_lines_make_an_image_that_works(stages, dockerfile, image, tmp_path):
    env = run_lines(stages, dockerfile, image, tmp_path)
    compiled = kernels_in(env["KERNELS"])
    assert len(compiled) > 20
    command = ["sh", str(ROOT / "docker/entrypoint.sh"), "demo", "--out", str(tmp_path / "demo")]
    done = subprocess.run(
        command, cwd=env["HOME"], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert kernels_in(env["NUMBA_CACHE_DIR"]) == compiled, "something was compiled again"
    if image == "gpu":
        (kernel,) = Path(env["ODC_STATS_CUBINS"]).iterdir()
        assert kernel.stat().st_size > 1000
    python = f"{tmp_path}/opt/venv/bin/python"
    text = "import odc_stats_gpu.kernels as k, odc_stats_gpu as o; print(k.__file__, o.__version__)"
    done = subprocess.run([python, "-I", "-c", text], capture_output=True, text=True, check=True)
    assert str(tmp_path) in done.stdout
    assert not (Path(done.stdout.split()[0]).parent).is_symlink()
