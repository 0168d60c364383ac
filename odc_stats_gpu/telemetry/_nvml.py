"""NVML tells of GPUs: no CUDA context is made, no device memory taken, no GPU woken."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any


def open_nvml() -> Any:
    """The module, initialised, for whoever will call `nvmlShutdown`; None where it can't be had."""
    try:
        import pynvml as nvml

        nvml.nvmlInit()
    except (ImportError, OSError):
        return None
    except nvml.NVMLError:
        return None
    return nvml


@contextmanager
def opened_nvml() -> Iterator[Any]:
    """The module as long as the block lasts; None where it can't be had."""
    nvml = open_nvml()
    try:
        yield nvml
    finally:
        if nvml is not None:
            nvml.nvmlShutdown()


def ask_nvml(nvml: Any, name: str, *arguments: Any) -> Any:
    """What a function of NVML says; None where this board or driver doesn't tell."""
    with suppress(nvml.NVMLError, AttributeError):
        return getattr(nvml, name)(*arguments)
    return None
