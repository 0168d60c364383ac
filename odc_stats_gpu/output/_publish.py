"""The files of one tile on their way into the store: hashed as they go, taken back on failure."""

from __future__ import annotations

import contextlib
import hashlib
import json
import posixpath
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from odc_stats_gpu.errors import Cancelled, OdcStatsError, StoreError
from odc_stats_gpu.model import OutputBand, RunInfo, Task
from odc_stats_gpu.output._stac import AssetFile, render_item
from odc_stats_gpu.output._store import ChangedError, Data, Store, content_type
from odc_stats_gpu.telemetry import fault_point, stage

ITEM_SUFFIX = ".stac-item.json"
_ROLES = {"rgba": "visual", "thumbnail": "thumbnail"}


class OvertakenError(Cancelled):
    """Somebody else has finished the tile meanwhile: their item stands, ours isn't written."""


class Publisher:
    """Puts files of a tile; thread-safe.

    Every file replaces what was there at the beginning, or nothing: whoever else writes the same
    tile at the same time is noticed, and the first to finish has made it.
    """

    def __init__(self, task: Task, store: Store, keys: Sequence[str]) -> None:
        """`keys` are the endings of all files but the item, as Task.path takes them."""
        self.stop = threading.Event()
        """Set: nothing more is put."""
        self.failure: BaseException | None = None
        """What could not be put, and why; whatever fails after it was stopped because of it."""
        self._task, self._store = task, store
        self.item_path = task.path(ITEM_SUFFIX)
        self._before = store.versions([*(task.path(key) for key in keys), self.item_path])
        self._put: dict[str, str] = {}
        self._sums: dict[str, str] = {}

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
        self._sums[path.rpartition("/")[2]] = sha256.hexdigest()
        fault_point("asset_written")
        return AssetFile(
            key=key,
            path=path,
            size=size,
            sha1=sha1.hexdigest(),
            sha256=sha256.hexdigest(),
            media_type=content_type(path),
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

    def begin(self) -> None:
        """Make the tile unfinished while its assets change: an item would vouch for a mixture.

        Raises OvertakenError when it was finished since the beginning.
        """
        self._look_for_others()
        if self.item_path in self._before:
            self._store.delete(self.item_path)
            fault_point("item_withdrawn")

    def put(self, path: str, data: Data) -> None:
        """Put one file and remember it; raises ChangedError when it isn't what it was."""
        with stage("write"):
            self._put[path] = ""
            try:
                self._put[path] = self._store.put(
                    path, data, content_type(path), expect=self._before.get(path), stop=self.stop
                )
            except BaseException as exc:
                self.failure = self.failure or exc
                self.stop.set()  # here: this thread may be the next one to begin a file
                raise

    def finish(self, item: bytes) -> None:
        """Put the item, when all files are still those that it names; the first one stays.

        Raises OvertakenError or ChangedError.
        """
        with stage("write"):
            now = self._store.versions(list(self._put))
            changed = sorted(p for p, version in self._put.items() if now.get(p) != version)
            if changed:
                raise ChangedError(
                    f"{self._store.uri(changed[0])} was written by somebody else meanwhile",
                    "another worker is at this tile: it is left to that one",
                )
            try:
                self._store.put(
                    self.item_path, item, content_type(self.item_path), expect=None, stop=self.stop
                )
            except ChangedError as exc:
                self._compare()
                raise OvertakenError("another worker has finished this tile") from exc

    def _compare(self) -> None:
        """What we have put must be what the other's item names, or their tile is a mixture.

        Then the item goes and ChangedError is raised: the next attempt makes the tile anew.
        """
        item = json.loads(self._store.read(self.item_path))
        for asset in item.get("assets", {}).values():
            ours = self._sums.get(str(asset.get("href", "")).rpartition("/")[2])
            theirs = asset.get("file:checksum")
            if ours and theirs and not str(theirs).endswith(ours):
                self._store.delete(self.item_path)
                raise ChangedError(
                    f"two workers wrote different files of {self._store.uri(self.item_path)}",
                    "the tile is unfinished again: are all workers of the same version?",
                )

    def _look_for_others(self) -> None:
        now = self._store.versions([self.item_path]).get(self.item_path)
        if now is not None and now != self._before.get(self.item_path):
            raise OvertakenError("another worker has finished this tile")

    def take_back(self) -> None:
        """Delete what was put and is still ours, unless the tile was finished meanwhile."""
        with contextlib.suppress(OdcStatsError):
            if not self._store.exists(self.item_path):
                now = self._store.versions(list(self._put))
                for path, version in self._put.items():
                    if now.get(path, version) == version or not version:
                        self._store.delete(path)


def read_back(task: Task, store: Store, *, assets: bool = False) -> None:
    """Read the item of a finished tile; with `assets` also look for every file that it names.

    Raises StoreError.
    """
    path = task.path(ITEM_SUFFIX)
    data = store.read(path)
    if not assets:
        return
    try:
        hrefs = [str(a["href"]) for a in json.loads(data).get("assets", {}).values()]
    except (ValueError, AttributeError, KeyError, TypeError) as exc:
        raise StoreError(f"{store.uri(path)} is no STAC item: {exc!r}", "delete it") from None
    folder = path.rpartition("/")[0]
    files = [posixpath.normpath(f"{folder}/{href}") for href in hrefs if "://" not in href]
    missing = set(files) - set(store.versions(files))
    if missing:
        raise StoreError(
            f"{store.uri(path)} names {min(missing)}, which is missing", "run with --overwrite"
        )
