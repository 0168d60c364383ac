"""A tag builds wheel, source archive and images, with checksums."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOW = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def steps(job):
    return WORKFLOW["jobs"][job]["steps"]


def script(job, name):
    return next(s["run"] for s in steps(job) if s.get("name") == name)


def targets():
    return set(re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text()))


def test_a_tag_and_nothing_else_starts_it():
    assert WORKFLOW[True] == {"push": {"tags": ["v*"]}}  # YAML reads `on` as true
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert WORKFLOW["jobs"]["images"]["needs"] == "wheel"


@pytest.mark.parametrize("job", ["wheel", "images"])
def test_steps_name_actions_by_version_and_targets_that_exist(job):
    for step in steps(job):
        assert ("uses" in step) != ("run" in step)
        if "uses" in step:
            assert re.fullmatch(r"[\w.-]+/[\w.-]+@(v\d+|[0-9a-f]{40})", step["uses"])
        for line in re.findall(r"(?m)^make (.+)$", step.get("run", "")):
            assert set(line.split()) <= targets()
    for step in steps(job):
        done = subprocess.run(["sh", "-n"], input=step.get("run", ""), text=True, check=False)
        assert done.returncode == 0


def test_both_images_are_built_from_the_dockerfile():
    job = WORKFLOW["jobs"]["images"]
    (build,) = [s["with"] for s in job["steps"] if "build-push" in s.get("uses", "")]
    stages = re.findall(r"(?m)^FROM \S+ AS (\S+)$", (ROOT / build["file"]).read_text())
    assert job["strategy"]["matrix"]["target"] == ["cpu", "gpu"]
    assert {"cpu", "gpu"} <= set(stages)
    assert build["target"] == "${{ matrix.target }}"


@pytest.mark.parametrize(("tag", "fits"), [(f"v{VERSION}", True), ("v99.0.0", False)])
def test_a_tag_that_is_not_the_version_is_refused(tag, fits):
    run = script("wheel", "The tag is the version of the package")
    env = os.environ | {"GITHUB_REF_NAME": tag}
    assert (
        subprocess.run(["bash", "-ec", run], cwd=ROOT, env=env, check=False).returncode == 0
    ) is fits


def test_lock_of_the_build_has_a_target_and_hashes():
    assert {"lock-build", "release", "images"} <= targets()
    lock = (ROOT / "docker/build.lock").read_text()
    assert re.search(r"(?m)^setuptools==\S+ \\\n +--hash=sha256:[0-9a-f]{64}", lock)


def test_without_an_engine_images_says_so(tmp_path):
    engine = tmp_path / "docker"
    engine.write_text("#!/bin/sh\nexit 1\n")
    engine.chmod(0o755)
    env = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["make", "-s", "images"], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "no container engine answers" in done.stderr


def test_images_are_written_down_with_their_digests(tmp_path):
    """With a stand-in for the engine, which notes what it is asked for."""
    engine = tmp_path / "bin/docker"
    engine.parent.mkdir()
    engine.write_text(
        '#!/bin/sh\necho "$*" >> "$ASKED"\nwhile [ $# -gt 0 ]; do\n'
        '[ "$1" = --iidfile ] && printf sha256:12 > "$2"\nshift\ndone\n'
    )
    engine.chmod(0o755)
    shutil.copy(ROOT / "Makefile", tmp_path)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    env = os.environ | {
        "PATH": f"{engine.parent}:{os.environ['PATH']}", "ASKED": str(tmp_path / "asked"),
    }  # fmt: skip
    subprocess.run(["make", "-s", "images"], cwd=tmp_path, env=env, check=True)
    lines = (tmp_path / "dist/IMAGES").read_text().splitlines()
    assert lines == [f"sha256:12  odc-stats-gpu:{VERSION}-{t}" for t in ("cpu", "gpu")]
    asked = (tmp_path / "asked").read_text()
    assert "build -f docker/Dockerfile --target gpu -t odc-stats-gpu:gpu" in asked


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    """What `make release` builds, from a copy of the tree and with its tools."""
    folder = tmp_path_factory.mktemp("release")
    for name in ("odc_stats_gpu", "kernels", "cli", "docker"):
        ignore = shutil.ignore_patterns("__pycache__", "data", "*.nb?")
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=ignore)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    recipe = re.search(r"(?ms)^release:.*?\n\n", (ROOT / "Makefile").read_text())[0]
    (folder / "Makefile").write_text(
        recipe.replace("$(STAMP) ##", "##").replace("$(BIN)", str(ROOT / ".venv/bin"))
    )
    env = os.environ | {"GIT_DIR": str(ROOT / ".git"), "GIT_WORK_TREE": str(ROOT)}
    done = subprocess.run(
        ["make", "release"], cwd=folder, env=env, capture_output=True, text=True, check=False
    )
    if done.returncode and re.search(r"(?i)network|connect|dns|resolve host", done.stderr):
        pytest.skip("the lock's setuptools can't be fetched here: nothing is built")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "dist"


def test_checksums_are_those_of_the_files(dist):
    sums = dict(line.split()[::-1] for line in (dist / "SHA256SUMS").read_text().splitlines())
    files = {p.name: p for p in dist.iterdir() if p.suffix in {".whl", ".gz"}}
    assert set(sums) == set(files)
    assert {Path(n).suffix for n in files} == {".whl", ".gz"}
    for name, path in files.items():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == sums[name]


def test_wheel_and_archive_have_everything_and_nothing_else(dist):
    (wheel,) = dist.glob("*.whl")
    (archive,) = dist.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as file:
        names = {n for n in file.namelist() if ".dist-info/" not in n}
        points = file.read(f"odc_stats_gpu-{VERSION}.dist-info/entry_points.txt").decode()
    kinds = {".py", ".yaml", ".html", ".json"}
    wanted = {
        f"{place}/{p.relative_to(ROOT / room).as_posix()}"
        for room, place in (
            ("odc_stats_gpu", "odc_stats_gpu"),
            ("kernels", "odc_stats_gpu/kernels"),
            ("cli", "odc_stats_gpu/cli"),
        )
        for p in (ROOT / room).rglob("*")
        if p.suffix in kinds or p.name == "py.typed"
    }
    assert names == wanted
    assert {"odc_stats_gpu/kernels/geomedian/cpu.py", "odc_stats_gpu/cli/_app.py"} <= names
    assert {"odc_stats_gpu/output/report.html", "odc_stats_gpu/demo/gm-ls.yaml"} <= names
    assert "odc-stats-gpu = odc_stats_gpu.cli:main" in points
    with tarfile.open(archive) as file:
        inside = {n.partition("/")[2] for n in file.getnames()}
    assert names <= inside
