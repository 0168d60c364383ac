"""Collect the wheels that a bare CUDA machine lacks (`make gpu-wheels`).

    python -m bench.gpu.collect_wheels [--out gpu-wheels] [--kernels | --dask] [--small]
                                       [--skip NAME ...]

For Python 3.12 on x86-64 Linux, versions and hashes as in requirements.lock. Left at home is what
such a machine has: CuPy, Numba and CUDA; and boto3, which no tile on a disk needs. numba-cuda
comes along because another version than the locked one would compile other code.
`--kernels`: NumPy, numba-cuda and the test tools only. `--dask`: dask-cuda and RMM, too.
`--small`: packed again with LZMA, without debug information, tests, and the codecs of imagecodecs
that nothing here calls (minutes); pip and `make gpu WHEELS=` read them as they are.
"""

from __future__ import annotations

import argparse
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
PYTHON = "3.12"
TOOLS = ("urllib3", "pytest", "pytest-timeout", "pytest-xdist", "hypothesis", "nvidia-ml-py")
AT_HOME = {"numba", "boto3"}
"""Dependencies of the package that aren't carried."""
THERE = {"numba", "llvmlite", "cupy-cuda13x", "fastrlock"}
CUDA = re.compile(r"cuda-|nvidia-(?!ml-py)|numba-cuda")
"""CUDA's own packages: those of the machine"""
IDLE = {"bokeh", "pillow", "narwhals", "contourpy"}
"""Of Dask's dashboard, which nobody opens there."""
DASK = ("dask-cuda", "distributed", "rmm-cu13", "cupy-xarray")
ALONE = "numba-cuda"
"""carried without what it needs"""
PEER = re.compile(r"^geomad==", re.MULTILINE)
GLIBC = (39, 38, 36, 35, 34, 31, 28, 27, 24, 17, 12, 5)
"""manylinux_2_N: pip takes exactly those that it is told"""
CODECS = {"_shared", "_shared_cython", "_imcd", "_deflate", "_zstd", "_jpeg8", "_png", "_zlib"}
LIBRARIES = ("libdeflate", "libzstd", "libjpeg", "libpng", "libz")
"""What odc_stats_gpu calls of imagecodecs, and the libraries behind it."""
LOAD = 1
"""PT_LOAD of an ELF file"""
TESTED = {"numpy", "pandas", "xarray", "shapely", "numba_cuda"}
TESTS = re.compile(r"(^|/)tests/(.*/)?(test_\w+\.py|data/.*|cudapy/.*|cudadrv/.*|nocuda/.*)$")
"""Tests of other projects; what their `testing` modules import of them stays."""


def main() -> int:
    """Collect, and print what is in."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=REPOSITORY / "gpu-wheels")
    parser.add_argument("--kernels", action="store_true")
    parser.add_argument("--dask", action="store_true")
    parser.add_argument("--skip", nargs="*", default=[], metavar="NAME")
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args()
    lock = _resolve(options.kernels, DASK if options.dask else ())
    skipped = (
        THERE | IDLE | {_name(text) for given in options.skip for text in re.split(r"[ ,]+", given)}
    )
    shutil.rmtree(options.out, ignore_errors=True)
    options.out.mkdir(parents=True)
    wanted = "\n".join(entry for name, entry in lock.items() if name not in skipped)
    _download(wanted, options.out)
    if ALONE not in skipped:
        _download(_locked(ALONE), options.out)
    if not options.kernels:
        peer = (REPOSITORY / "bench" / "requirements.txt").read_text().splitlines()
        _download("\n".join(line for line in peer if PEER.match(line)), options.out, hashes=False)
    if options.small:
        with ProcessPoolExecutor() as pool:
            list(pool.map(_pack_again, sorted(options.out.glob("*.whl"))))
    _report(options.out)
    return 0


def _name(text: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[<>=!~\[; ]", text.strip(), maxsplit=1)[0]).lower()


def _resolve(kernels_only: bool, more: tuple[str, ...]) -> dict[str, str]:
    """Lines of requirements with hashes, by name: what is needed, in the versions of the lock."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    own = [d for d in project["dependencies"] if _name(d) not in AT_HOME]
    roots = [d for d in own if _name(d) == "numpy"] if kernels_only else own
    done = subprocess.run(
        [*_uv(), "pip", "compile", "-q", "--python-version", PYTHON, "--python-platform",
         "x86_64-manylinux_2_28", "--generate-hashes", "--no-annotate", "--no-header",
         "-c", str(REPOSITORY / "requirements.lock"), "-"],
        input="\n".join((*roots, *TOOLS, *more)), capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"the wheels can't be resolved (needs the network): {done.stderr.strip()}")
    entries = re.split(r"\n(?=\S)", done.stdout.strip())
    found = {_name(entry): entry for entry in entries}
    return {name: entry for name, entry in found.items() if not CUDA.match(name)}


def _locked(name: str) -> str:
    """A package's entry in the lock, hashes included."""
    lock = (REPOSITORY / "requirements.lock").read_text()
    (entry,) = re.findall(rf"^{name}(?:\[\w+\])?==.*(?:\n    --hash=.*)+", lock, re.MULTILINE)
    return re.sub(r"\[\w+\]| ;[^\\]*", "", entry).removesuffix(" \\")


def _uv() -> list[str]:
    beside = Path(sys.executable).with_name("uv")
    return [str(beside)] if beside.exists() else ["uv"]


def _download(requirements: str, out: Path, *, hashes: bool = True) -> None:
    listed = out / "requirements.txt"
    listed.write_text(requirements + "\n")
    platforms = [f"--platform=manylinux_2_{n}_x86_64" for n in GLIBC]
    command = [
        sys.executable, "-m", "pip", "download", "-qq", "--disable-pip-version-check", "--no-deps",
        "--only-binary=:all:", f"--python-version={PYTHON}", "--implementation=cp", *platforms,
        "--platform=manylinux2014_x86_64", "-d", str(out), "-r", str(listed),
        *(["--require-hashes"] if hashes else []),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    listed.unlink()
    if done.returncode:
        sys.exit(f"pip download failed: {done.stderr.strip()[-1500:]}")


def _pack_again(wheel: Path) -> None:
    """The same files, packed tighter, less what is never called."""
    part = wheel.with_suffix(".part")
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(part, "w", zipfile.ZIP_LZMA) as new:
        for item in old.infolist():
            if not item.is_dir() and not _idle(item.filename):
                copy = zipfile.ZipInfo(item.filename, item.date_time)
                copy.external_attr, copy.compress_type = item.external_attr, zipfile.ZIP_LZMA
                new.writestr(copy, _stripped(item.filename, old.read(item)))
    part.replace(wheel)


def _stripped(name: str, content: bytes) -> bytes:
    """A library without its debug information, where binutils are installed."""
    if not re.search(r"\.so(\.|$)", name) or shutil.which("strip") is None:
        return content
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        done = subprocess.run(["strip", "--strip-debug", file.name], check=False)
        slim = Path(file.name).read_bytes()
    return slim if done.returncode == 0 and _loadable(slim) else content


def _loadable(elf: bytes) -> bool:
    """Whether segments still lie where the loader wants them: strip spoils what patchelf made."""
    (start,) = struct.unpack_from("<Q", elf, 32)
    size, count = struct.unpack_from("<HH", elf, 54)
    for k in range(count):
        kind, _, offset, address, *_, align = struct.unpack_from("<IIQQQQQQ", elf, start + k * size)
        if kind == LOAD and (address - offset) % max(1, align):
            return False
    return True


def _idle(name: str) -> bool:
    """Whether a file is a test, or a codec of imagecodecs or its library, that we never call."""
    folder, _, file = name.partition("/")
    if folder == "imagecodecs" and ".so" in file:
        return file.partition(".")[0] not in CODECS
    if folder == "imagecodecs.libs":
        return not file.startswith(LIBRARIES)
    return folder in TESTED and bool(TESTS.search(file))


def _report(out: Path) -> None:
    wheels = sorted(out.glob("*.whl"), key=lambda w: -w.stat().st_size)
    total = 0.0
    for wheel in wheels:
        size = wheel.stat().st_size / 2**20
        total += size
        name, version = wheel.name.split("-")[:2]
        print(f"{size:8.2f} MiB  {name} {version}")
    print(f"{total:8.2f} MiB  in {len(wheels)} wheels, {out}")


if __name__ == "__main__":
    raise SystemExit(main())
