"""One thing that `doctor` looked at, and looks that can't fail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from odc_stats_gpu.errors import OdcStatsError


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    what: str
    ok: bool
    found: str
    remedy: str = ""
    """What to do; empty when ok."""
    needed: bool = False
    """Whether no tile can be made here without it."""


def look(what: str, found: str, *, needed: bool = False) -> Finding:
    """All is well."""
    return Finding(what, ok=True, found=found, needed=needed)


def lack(what: str, found: str, remedy: str, *, needed: bool = False) -> Finding:
    """Something is missing."""
    return Finding(what, ok=False, found=found, remedy=remedy, needed=needed)


def safely(
    what: str, examine: Callable[[], Finding | list[Finding]], *, needed: bool = False
) -> list[Finding]:
    """What `examine` finds; whatever it raises is a finding, too."""
    try:
        found = examine()
    except OdcStatsError as exc:
        return [lack(what, exc.message, exc.remedy, needed=needed)]
    except Exception as exc:  # noqa: BLE001 - broken installations raise anything
        remedy = "install the package anew" if isinstance(exc, ImportError) else "see the message"
        return [lack(what, f"{type(exc).__name__}: {first_line(exc)}", remedy, needed=needed)]
    return found if isinstance(found, list) else [found]


def first_line(error: object) -> str:
    """The first line of an error's text that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
