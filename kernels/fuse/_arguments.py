"""Checks that all implementations of fusing share."""

from __future__ import annotations

from typing import Any


def as_stack(stack: Any) -> Any:
    """The stack as (band, time, y, x).

    Raises:
        ValueError: neither (time, y, x) nor (band, time, y, x).
    """
    if stack.ndim not in {3, 4}:
        raise ValueError(
            f"a stack must be (time, y, x) or (band, time, y, x), got shape {stack.shape}"
        )
    return stack[None] if stack.ndim == 3 else stack
