"""An NVML that shows GPUs which do not exist: clusters of GPU workers start where there is none.

`nvml.c` says which functions there are and what the environment variables mean. Nothing computes
on such a GPU; together with Numba's simulator a whole run does.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

SOURCE = Path(__file__).with_name("nvml.c")
LIBRARY = "libnvidia-ml.so.1"


def build(folder: Path) -> Path:
    """Compile the library into `folder`; raises RuntimeError with the compiler's words."""
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise RuntimeError("no C compiler: apt-get install gcc")
    target = folder / LIBRARY
    run = subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-Wall", "-Werror", f"-Wl,-soname,{LIBRARY}",
         str(SOURCE), "-o", str(target)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if run.returncode:
        raise RuntimeError(run.stderr)
    return target


def environment(
    library: Path,
    gpus: int = 2,
    *,
    memory: Sequence[int] = (),
    free: Sequence[int] = (),
    mig: Sequence[int] = (),
    cpus: int = 0,
    simulate: bool = True,
    **more: object,
) -> dict[str, str]:
    """Variables for a new process that shall see those GPUs; lists hold one entry per GPU.

    `more`: other variables of `nvml.c`, e.g. `watts="70,300"`.
    """
    before = os.environ.get("LD_LIBRARY_PATH", "")
    found = {
        "LD_LIBRARY_PATH": f"{library.parent}:{before}".rstrip(":"),
        "FAKE_NVML_GPUS": str(gpus),
    }
    for name, values in (("MEMORY", memory), ("FREE", free), ("MIG", mig)):
        if values:
            found[f"FAKE_NVML_{name}"] = ",".join(map(str, values))
    found |= {f"FAKE_NVML_{name.upper()}": str(value) for name, value in more.items()}
    if cpus:
        found["FAKE_NVML_CPUS"] = str(cpus)
    if simulate:
        found["NUMBA_ENABLE_CUDASIM"] = "1"
    return found
