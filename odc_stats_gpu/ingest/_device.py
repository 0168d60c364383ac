"""Where arrays live while they are masked, fused and warped."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import numpy as np


class Device(Protocol):
    """What ingest asks of a device: its arrays select the kernels by their type."""

    def upload(self, array: Any) -> Any:
        """A host array as an array of the device."""

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """Uninitialised memory on the device."""

    def active(self) -> AbstractContextManager[None]:
        """Make what the calling thread does part of the block's order of work."""


class Host:
    """The CPU: arrays stay what they are."""

    def upload(self, array: Any) -> Any:
        """The array itself."""
        return array

    def active(self) -> AbstractContextManager[None]:
        """Calls return when their work is done: there is nothing to order."""
        return nullcontext()

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """A NumPy array."""
        return np.empty(shape, dtype)
