"""What `verify` found: plain data that prints as text or JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, or odd."""

    level: Literal["error", "warning"]
    check: str
    """What was checked: item, schema, checksum, asset, cog, pixels or leftover."""
    path: str
    """File it is about, relative to the location."""
    message: str

    def __str__(self) -> str:
        about = f"{self.path}: " if self.path else ""
        return f"{self.level}: {about}{self.message} [{self.check}]"


@dataclass(frozen=True, slots=True)
class TileFindings:
    """One finished tile."""

    path: str
    """Its STAC item, relative to the location."""
    assets: int
    """Files that the item names."""
    bytes: int
    """Bytes read to check them."""
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether there is no error; warnings don't count."""
        return not any(f.level == "error" for f in self.findings)

    def __str__(self) -> str:
        state = "ok" if self.ok else "NOT OK"
        return "\n  ".join(
            [f"{self.path}: {state}, {self.assets} assets", *map(str, self.findings)]
        )


@dataclass(frozen=True, slots=True)
class Report:
    """Everything below one location."""

    location: str
    tiles: tuple[TileFindings, ...]
    other: tuple[Finding, ...] = ()
    """Findings that belong to no finished tile: leftovers, an empty location."""

    @property
    def ok(self) -> bool:
        """Whether there is at least one tile and no error."""
        return bool(self.tiles) and not self.errors

    def __iter__(self) -> Iterator[TileFindings]:
        return iter(self.tiles)

    def __len__(self) -> int:
        return len(self.tiles)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All of them, tile by tile."""
        return (*(f for tile in self.tiles for f in tile.findings), *self.other)

    @property
    def errors(self) -> tuple[Finding, ...]:
        """What makes `ok` false."""
        return tuple(f for f in self.findings if f.level == "error")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """What is odd but harmless."""
        return tuple(f for f in self.findings if f.level == "warning")

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "location": self.location,
            "ok": self.ok,
            "tiles": [
                {
                    "path": t.path,
                    "ok": t.ok,
                    "assets": t.assets,
                    "bytes": t.bytes,
                    "findings": [asdict(f) for f in t.findings],
                }
                for t in self.tiles
            ],
            "other": [asdict(f) for f in self.other],
        }

    def __str__(self) -> str:
        """One line per tile and finding, then the count."""
        lines = [*map(str, self.tiles), *map(str, self.other)]
        good = sum(t.ok for t in self.tiles)
        lines.append(
            f"{self.location}: {good} of {len(self.tiles)} tiles are good, "
            f"{len(self.errors)} errors, {len(self.warnings)} warnings"
        )
        return "\n".join(lines)
