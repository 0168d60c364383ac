"""CUDA kernels compiled ahead of time, for images: a worker's first tile need not wait for compilers.

`python -m odc_stats_gpu.kernels.compile_ahead FOLDER` writes them, ODC_STATS_CUBINS names the folder
to the programs that use them. An entry is numba-cuda's own compiled kernel with machine code for
several targets in it, so that numba-cuda packs arguments and launches as always; only compiling is
left out. Whatever has no entry, or one that the device refuses, is compiled as ever. Private names of
numba-cuda: one reason for the pinned range.
"""

from __future__ import annotations

import hashlib
import logging
import os
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from odc_stats_gpu.kernels._cuda import LINES, SIMULATED

FOLDER = "ODC_STATS_CUBINS"
_log = logging.getLogger(__name__)


def ahead(dispatcher: Any, variant: str = "") -> Any:
    """Return the kernel, which looks for its machine code in the folder before it compiles.

    `variant` tells kernels apart that have one source, one set of types and other constants.
    """
    folder = os.environ.get(FOLDER)
    if folder and not SIMULATED and not LINES:
        dispatcher._cache = _reader(Path(folder), dispatcher, variant)  # noqa: SLF001
    return dispatcher


def entry(function: Any, variant: str, types: Iterable[Any], options: Mapping[str, Any]) -> str:
    """File name of a compiled kernel: all that its machine code depends on but the target."""
    parts = (
        _everything(), function.__module__, function.__qualname__, variant,
        *map(repr, types), repr(sorted(options.items())),
    )  # fmt: skip
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32] + ".kernel"


def target_of(cc: tuple[int, int]) -> tuple[int, int, str]:
    """A compute capability as numba-cuda keys machine code: from 9.0 on with the features of it alone."""
    return (*cc, "a" if cc >= (9, 0) else "")


def dump(kernel: Any) -> bytes:
    """A compiled kernel as a file's content: machine code only, no IR and no PTX."""
    from numba.cuda import serialize

    library = kernel.library
    library._llvm_strs, library._ptx_cache, library._linkerinfo_cache = [], {}, {}  # noqa: SLF001
    return bytes(serialize.dumps(kernel._reduce_states()))  # noqa: SLF001


def load(path: Path) -> Any:
    """The kernel in a file, not yet on any device."""
    import pickle

    from numba.cuda.dispatcher import _Kernel

    # written by whoever built the image, like the code beside it
    return _Kernel._rebuild(**pickle.loads(path.read_bytes()))  # noqa: S301, SLF001


@cache
def _everything() -> str:
    """Digest of the sources of all kernels and of the versions that compile them."""
    room = Path(__file__).parent
    digest = hashlib.sha256(
        f"{version('numba-cuda')} {version('numba')} {sys.version_info[:2]}".encode()
    )
    for path in sorted(room.rglob("*.py")):
        digest.update(path.relative_to(room).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def _reader(folder: Path, dispatcher: Any, variant: str) -> Any:
    from numba.cuda.core.caching import NullCache

    class Reader(NullCache):  # type: ignore[misc]
        """Stands where numba-cuda has its cache on disk; nothing is ever written."""

        def load_overload(self, sig: Any, target_context: Any) -> Any:
            del target_context
            name = f"{dispatcher.py_func.__module__} {variant}".strip()
            try:
                path = folder / entry(dispatcher.py_func, variant, sig, dispatcher.targetoptions)
                kernel = load(path)
                device = kernel.library._ensure_cc(None)  # noqa: SLF001
                if device not in kernel.library._cubin_cache:  # noqa: SLF001
                    raise LookupError(f"no machine code for {device}")
                kernel.bind()  # the device must take it, now
            except Exception as error:  # noqa: BLE001 - whatever it is, compiling mends it
                _log.debug("%s is compiled: %s: %s", name, type(error).__name__, error)
                return None
            _log.debug("%s was compiled ahead", name)
            return kernel

    return Reader()
