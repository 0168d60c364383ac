"""Checks that all implementations of counting share."""

from __future__ import annotations

from typing import Any

MOST = 65535
"""Layers that a uint16 can count."""


def check(stack: Any, *conditions: Any | None) -> None:
    """Check shapes and types of a stack and its conditions.

    Raises:
        ValueError: wrong shape, type or length.
    """
    if stack.ndim != 3:
        raise ValueError(f"a stack must be (time, y, x), got shape {stack.shape}")
    if len(stack) > MOST:
        raise ValueError(f"{len(stack)} layers are more than {MOST}, the most that uint16 counts")
    for array in (stack, *conditions):
        if array is None:
            continue
        if array.shape != stack.shape:
            raise ValueError(
                f"a condition must have the stack's shape {stack.shape}, got {array.shape}"
            )
        if array.dtype.kind not in "biu":
            raise ValueError(f"flags must be bool or integer, got {array.dtype}")
