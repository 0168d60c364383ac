"""The body of a task's message: the incumbent's JSON, or the bare tile id of its first years."""

from __future__ import annotations

import json
from dataclasses import dataclass

from odc_stats_gpu.errors import ConfigError, DataError
from odc_stats_gpu.model import TileIndex


class MalformedMessageError(DataError):
    """A body that names no task: released at once, never fatal."""


@dataclass(frozen=True, slots=True)
class TaskMessage:
    """One tile of one task database."""

    filedb: str
    """As published: s3:// address or local path."""
    index: TileIndex

    def render(self) -> str:
        """Body as the incumbent writes it."""
        return json.dumps({"filedb": self.filedb, "tile_idx": str(self.index)})

    @classmethod
    def parse(cls, body: str, filedb: str = "") -> TaskMessage:
        """Read a body; `filedb` serves bare tile ids. Raises MalformedMessageError."""
        text = body.strip().lstrip("\ufeff")
        if not text.startswith("{"):
            if not filedb:
                raise MalformedMessageError(
                    f"message {text[:80]!r} names no task database",
                    "give `filedb` in the configuration, or publish JSON messages",
                )
            return cls(filedb, _index(text))
        try:
            doc = json.loads(text)
            where, tile = doc.get("filedb") or filedb, doc["tile_idx"]
            if not where:
                raise KeyError("filedb")
            if not isinstance(where, str) or not isinstance(tile, str):
                raise TypeError("filedb and tile_idx are texts")
            index = _index(tile)
            return cls(where, index)
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as exc:
            raise MalformedMessageError(
                f"message {text[:80]!r} is no task: {_why(exc)}",
                'expected {"filedb": "s3://...", "tile_idx": "2019--P1Y/03/04"}',
            ) from None


def _why(exc: Exception) -> str:
    if isinstance(exc, KeyError):
        return f"it lacks {exc}"
    return f"not JSON, {exc}" if isinstance(exc, json.JSONDecodeError) else str(exc)


def _index(text: str) -> TileIndex:
    try:
        return TileIndex.parse(text)
    except ConfigError as exc:
        raise MalformedMessageError(exc.message, exc.remedy) from None
    except (ValueError, OverflowError) as exc:
        raise MalformedMessageError(f"{text[:80]!r} is no tile: {exc}", "publish it anew") from None
