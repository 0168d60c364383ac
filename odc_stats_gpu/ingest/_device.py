"""Where arrays live while they are masked, fused and warped."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np


class Device(Protocol):
    """What ingest asks of a device: its arrays select the kernels by their type."""

    def upload(self, array: Any) -> Any:
        """A host array as an array of the device."""

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """Uninitialised memory on the device."""


class Host:
    """The CPU: arrays stay what they are."""

    def upload(self, array: Any) -> Any:
        """The array itself."""
        return array

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """A NumPy array."""
        return np.empty(shape, dtype)
