"""Per-pixel numerics: NumPy arrays in and out on the CPU, CuPy arrays on CUDA. Imports nothing of ours."""
