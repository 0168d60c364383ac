"""What an hour on a GPU machine settles: tests there, kernels against its ceilings, whole tiles.

`python -m bench.gpu --help`; docs/gpu-hour.md says what to do with it. Nothing here is imported
by the package. Each part is a process of its own: a crash or a hang costs that part only.
"""
