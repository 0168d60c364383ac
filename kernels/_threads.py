"""Pieces of work spread over threads, as many as Numba would use.

Numba's own `prange` would do, but its default threading layer aborts the process when two Python
threads enter a parallel function at once, which is what overlapping blocks of a tile do; and the
layers that don't are extra packages. Kernels that release the GIL need nothing more than threads.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable

import numba


def spread(pieces: int, worker: Callable[[], Callable[[int], None]]) -> None:
    """Run pieces 0..pieces-1, each once, on up to `numba.get_num_threads()` threads.

    `worker()` is called once in every thread and returns the function that does one piece, so that
    scratch memory belongs to a thread. The first exception stops the others and is raised here.
    """
    threads = min(pieces, numba.get_num_threads())
    if threads <= 1:
        run = worker()
        for piece in range(pieces):
            run(piece)
        return
    counter = itertools.count()  # next() is atomic under the GIL
    failures: list[BaseException] = []

    def loop() -> None:
        try:
            run = worker()
            while not failures and (piece := next(counter)) < pieces:
                run(piece)
        except BaseException as error:  # noqa: BLE001 - handed to the caller's thread
            failures.append(error)

    others = [threading.Thread(target=loop, name=f"kernel-{i}") for i in range(threads - 1)]
    for other in others:
        other.start()
    loop()
    for other in others:
        other.join()
    if failures:
        raise failures[0]
