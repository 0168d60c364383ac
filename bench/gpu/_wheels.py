"""Carried wheels used without pip: unpacked into a folder that goes to the front of the path.

A bare machine's Python may be externally managed, without pip, or itself a virtual environment;
a wheel is a zip file, and the ones that are carried need no installer. Nothing there is changed.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import sys
import tempfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path


class WheelError(Exception):
    """Wheels that can't be used, and what to do."""


def unpacked(folder: Path) -> Path:
    """Unpack the wheels of a folder once; return where their packages lie.

    Raises:
        WheelError: no wheels, wheels for another Python or machine, damaged ones, two versions.
    """
    wheels = sorted(folder.glob("*.whl")) if folder.is_dir() else []
    if not wheels:
        raise WheelError("no *.whl there: `make gpu-wheels` collects them into gpu-wheels/")
    names = [w.name.partition("-")[0].lower() for w in wheels]
    if double := sorted({name for name in names if names.count(name) > 1}):
        raise WheelError(f"several versions of {', '.join(double)}: leave one of each")
    for wheel in wheels:
        _check(wheel)
    key = "\n".join(f"{w.name} {w.stat().st_size}" for w in wheels) + sys.version
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    place = Path(tempfile.gettempdir()) / f"odc-stats-gpu-wheels-{os.getuid()}-{digest}"
    if place.exists():
        return place
    part = Path(tempfile.mkdtemp(prefix=f"{place.name}-", dir=place.parent))
    try:
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda wheel: _unpack(wheel, part), wheels))
        try:
            part.rename(place)
        except OSError:  # somebody else was first
            if not place.is_dir():
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return place


def _check(wheel: Path) -> None:
    """Fail where a wheel's name says that it is for another Python or machine."""
    python, abi, machines = wheel.stem.split("-")[-3:]
    version = sys.version_info[:2]
    own = f"cp{version[0]}{version[1]}"
    stable = abi == "abi3" and any(
        p.startswith("cp3") and int(p[3:]) <= version[1] for p in python.split(".")
    )
    pure = any(p in {"py3", f"py{version[0]}{version[1]}"} for p in python.split("."))
    if not (own in python.split(".") or stable or pure):
        raise WheelError(
            f"{wheel.name} is not for Python {version[0]}.{version[1]}: collect the wheels for it, "
            "or give PYTHON=python3.12"
        )
    if machines != "any" and platform.machine() not in machines:
        raise WheelError(f"{wheel.name} is not for {platform.machine()}")


def _unpack(wheel: Path, place: Path) -> None:
    try:
        with zipfile.ZipFile(wheel) as packed:
            for item in packed.infolist():
                name = item.filename
                top, _, rest = name.partition("/")
                if top.endswith(".data"):  # purelib and platlib go where all others go
                    kind, _, name = rest.partition("/")
                    if kind not in {"purelib", "platlib"} or not name:
                        continue
                target = (place / name).resolve()
                if place.resolve() not in target.parents or item.is_dir():
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                with packed.open(item) as source, target.open("wb") as out:
                    shutil.copyfileobj(source, out)
    except (zipfile.BadZipFile, OSError, EOFError) as exc:
        raise WheelError(f"{wheel.name} is damaged ({exc}): copy it again") from exc
