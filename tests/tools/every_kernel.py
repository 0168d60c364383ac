"""Run every CUDA kernel once on a small array: the program that compute-sanitizer watches.

`PYTHONPATH=. python tests/tools/every_kernel.py`
"""

from __future__ import annotations

import sys

import numpy as np
from board import find_board
from geomedian_cases import NODATA, surface_reflectance

from odc_stats_gpu import kernels
from odc_stats_gpu.kernels import refine


def main() -> None:
    """Odd sizes, so that blocks have threads with nothing to do."""
    board = find_board()
    dates, size = board.pick((37, (5, 43)), (5, (1, 3)))
    for bands, dtype in ((6, "int16"), (10, "uint16"), (3, "float32")):
        stack = surface_reflectance(bands, dates, bands, size).astype(dtype)
        board.get(kernels.geomad(board.put(stack), float(stack.flat[0]) if bands == 10 else NODATA))
    rng = np.random.default_rng(0)
    src = rng.integers(0, 9000, (3, 61, 47)).astype(np.int16)
    lattice = refine(
        lambda x, y: (0.9 * x + 2.25, 0.9 * y - 0.1 * x + 3), board.pick((45, 39), (5, 7))
    )
    for method in ("nearest", "bilinear", "cubic", "average"):
        for kind in ("int16", "float32"):
            board.get(kernels.warp(board.put(src.astype(kind)), 0, lattice, method))
    mask = rng.integers(0, 5, board.pick((2, 71, 67), (1, 5, 9))).astype(np.uint8)
    device = board.put(mask)
    board.get(kernels.decode_enum(device, [2, 3]))
    board.get(kernels.decode_flags(device, [(0, 2, 3)]))
    board.get(kernels.clean_mask(device == 3, [("opening", 1), ("dilation", 3), ("closing", 2)]))
    board.get(kernels.mask_where(device, device[0] == 1, 9))
    board.get(kernels.first_valid(device, 0))
    board.get(kernels.any_true(device))
    board.get(kernels.count_true(device))
    board.get(kernels.nearest_onto(device, board.put(np.arange(9) // 2), board.put(np.arange(7))))
    sys.stdout.write("every kernel ran\n")


if __name__ == "__main__":
    main()
