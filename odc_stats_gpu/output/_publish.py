"""The files of one tile on their way into the store: hashed as they go, taken back on failure."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from odc_stats_gpu.errors import OdcStatsError
from odc_stats_gpu.model import OutputBand, RunInfo, Task
from odc_stats_gpu.output._stac import COG_TYPE, AssetFile, render_item
from odc_stats_gpu.output._store import Data, Store, content_type
from odc_stats_gpu.telemetry import fault_point, stage

ITEM_SUFFIX = ".stac-item.json"
_ROLES = {"rgba": "visual", "thumbnail": "thumbnail"}


class Publisher:
    """Puts files of a tile; thread-safe."""

    def __init__(self, task: Task, store: Store) -> None:
        self._task, self._store = task, store
        self._begun: list[str] = []
        self.item_path = task.path(ITEM_SUFFIX)

    def asset(
        self,
        key: str,
        size: int,
        chunks: Iterable[bytes],
        *,
        suffix: str = ".tif",
        band: OutputBand | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> AssetFile:
        """Put one asset and say what it was."""
        path = self._task.path(f"_{key}{suffix}")
        sha1, sha256 = hashlib.sha1(), hashlib.sha256()  # noqa: S324 - the incumbent's format

        def hashed() -> Iterator[bytes]:
            for chunk in chunks:
                sha1.update(chunk)
                sha256.update(chunk)
                yield chunk

        self.put(path, hashed())
        fault_point("asset_written")
        return AssetFile(
            key=key,
            path=path,
            size=size,
            sha1=sha1.hexdigest(),
            sha256=sha256.hexdigest(),
            media_type=COG_TYPE if suffix == ".tif" else content_type(path),
            roles=(_ROLES.get(key, "data"),),
            band=band,
            extra=extra or {},
        )

    def documents(self, assets: Sequence[AssetFile], info: RunInfo) -> tuple[bytes, bytes]:
        """The STAC item and the sha1 file that vouches for it and for all assets."""
        item = render_item(
            self._task, assets, self._store.uri(self.item_path), info, datetime.now(UTC)
        )
        digest = hashlib.sha1(item).hexdigest()  # noqa: S324 - the incumbent's format
        lines = [(digest, self.item_path.rpartition("/")[2])]
        lines += [(a.sha1, a.name) for a in assets]
        return item, "".join(f"{digest}  {name}\n" for digest, name in lines).encode()

    def put(self, path: str, data: Data) -> None:
        """Put one file and remember it."""
        with stage("write"):
            self._begun.append(path)
            self._store.put(path, data, content_type(path))

    def take_back(self) -> None:
        """Delete what was put, unless somebody else has finished the tile meanwhile."""
        with contextlib.suppress(OdcStatsError):
            if not self._store.exists(self.item_path):
                for path in self._begun:
                    self._store.delete(path)
