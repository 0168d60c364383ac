"""One suite for all implementations of the kernels: tests call operations on `impl`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from odc_stats_gpu import kernels
from odc_stats_gpu.kernels import reference


@dataclass(frozen=True)
class Implementation:
    """Operations by name, NumPy arrays in and out: `impl.warp(src, ...)`."""

    name: str
    module: ModuleType
    upload: Callable[[Any], Any] = lambda array: array
    """Makes the array type that selects the implementation; `download` is the way back."""
    download: Callable[[Any], Any] = lambda array: array

    def __getattr__(self, operation: str) -> Callable[..., Any]:
        function = getattr(self.module, operation)

        def move(value: Any) -> Any:
            return self.upload(value) if isinstance(value, np.ndarray) else value

        def call(*args: Any, **kwargs: Any) -> Any:
            return self.download(
                function(*map(move, args), **{key: move(value) for key, value in kwargs.items()})
            )

        return call


IMPLEMENTATIONS = (Implementation("reference", reference), Implementation("cpu", kernels))


@pytest.fixture(params=IMPLEMENTATIONS, ids=lambda implementation: implementation.name)
def impl(request):
    return request.param
