"""Proof of finished tiles: every file that an item names is there, whole and what the item says."""

from __future__ import annotations

import hashlib
import json
import posixpath
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from odc_stats_gpu.errors import StoreError
from odc_stats_gpu.output._findings import Finding, Report, TileFindings
from odc_stats_gpu.output._raster_rules import raster_problems
from odc_stats_gpu.output._stac_rules import known_versions, stac_problems
from odc_stats_gpu.output._store import PART_SUFFIX, Store, open_store

_ITEM = ".stac-item.json"
_OURS = (".tif", ".jpg", ".png", ".sha1", ".json", ".odc-metadata.yaml", ".proc-info.yaml")
_THREADS = 4
"""Tiles at a time: hides the latency of S3 and holds at most as many files in memory."""


def verify(location: str, *, progress: Callable[[int, int], None] | None = None) -> Report:
    """Check every STAC item below a location (`file://`, a path or `s3://`) and all it names.

    `progress(done, total)` is called after each tile. Raises ConfigError for a malformed location
    and StoreError when it can't be listed; whatever is wrong with a tile is a finding.
    """
    store = open_store(location, reading=True)
    paths = sorted(store.list())
    items = [p for p in paths if p.endswith(_ITEM) and not p.endswith(PART_SUFFIX)]
    known = set(paths)
    tiles: list[TileFindings] = []
    claimed: set[str] = set()
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="verify") as pool:
        for tile, files in pool.map(lambda path: _Tile(store, path, known).check(), items):
            tiles.append(tile)
            claimed |= files
            if progress is not None:
                progress(len(tiles), len(items))
    other = list(_leftovers(paths, claimed))
    if not items:
        other.insert(0, Finding("error", "item", "", "no STAC item below this location"))
    return Report(store.location, tuple(tiles), tuple(other))


def _leftovers(paths: list[str], claimed: set[str]) -> Iterator[Finding]:
    """Files of an interrupted attempt: temporaries, and assets that no item names."""
    for path in paths:
        if path in claimed:
            continue
        if path.endswith(PART_SUFFIX):
            yield Finding("warning", "leftover", path, "temporary file of an interrupted write")
        elif path.endswith(_OURS) and path.count("/") > 0:
            yield Finding("warning", "leftover", path, "belongs to no finished tile")


class _Tile:
    """The check of one item."""

    def __init__(self, store: Store, path: str, known: set[str]) -> None:
        self._store, self._path, self._known = store, path, known
        self._folder = posixpath.dirname(path)
        self._found: list[Finding] = []
        self._files = {path}
        self._bytes = 0

    def check(self) -> tuple[TileFindings, set[str]]:
        """Findings, and the files that belong to the tile."""
        assets = 0
        try:
            assets = self._item()
        except StoreError as exc:
            self._error("item", self._path, exc.message)
        result = TileFindings(self._path, assets, self._bytes, tuple(self._found))
        return result, self._files

    def _item(self) -> int:
        data = self._read(self._path)
        sums = self._sha1_file(data)
        try:
            item = json.loads(data)
        except ValueError as exc:
            self._error("item", self._path, f"is no JSON: {exc}")
            return 0
        problems = list(stac_problems(item))
        for line in problems:
            self._error("schema", self._path, line)
        if problems:
            return 0
        version = item.get("stac_version")
        if version not in known_versions():
            self._warn("schema", self._path, f"no schema of STAC {version} here: not checked")
        own = [link["href"] for link in item["links"] if link.get("rel") == "self"]
        if own and own[0] != self._store.uri(self._path):
            self._warn("item", self._path, f"self link says {own[0]}: was the tile moved?")
        for key, asset in item["assets"].items():
            self._asset(key, asset, item, sums)
        return len(item["assets"])

    def _sha1_file(self, item: bytes) -> Mapping[str, str]:
        """Digests by file name; the item's own is compared at once."""
        path = self._path.removesuffix(_ITEM) + ".sha1"
        self._files.add(path)
        if path not in self._known:
            self._error("checksum", path, "is missing")
            return {}
        sums: dict[str, str] = {}
        for line in self._read(path).decode(errors="replace").splitlines():
            digest, _, name = line.partition("  ")
            if len(digest) != 40 or not name:
                self._error("checksum", path, f"can't read the line {line[:80]!r}")
                continue
            sums[name] = digest
            self._files.add(posixpath.join(self._folder, name))
            if posixpath.join(self._folder, name) not in self._known:
                self._error("checksum", path, f"names {name}, which is missing")
        name = posixpath.basename(self._path)
        if sums.get(name, "") != hashlib.sha1(item).hexdigest():  # noqa: S324 - the file's format
            self._error("checksum", self._path, "is not what the sha1 file says")
        return sums

    def _asset(
        self, key: str, asset: Mapping[str, Any], item: Mapping[str, Any], sums: Mapping[str, str]
    ) -> None:
        href = str(asset["href"]).removeprefix(self._store.location + "/")
        if "://" in href or href.startswith("/"):
            self._warn("asset", self._path, f"asset {key!r} lies elsewhere ({href}): not checked")
            return
        inside = href == asset["href"]
        path = posixpath.normpath(posixpath.join(self._folder, href) if inside else href)
        self._files.add(path)
        if path not in self._known:
            self._error("asset", path, f"asset {key!r} is missing")
            return
        try:
            data = self._read(path)
        except StoreError as exc:
            self._error("asset", path, exc.message)
            return
        size = asset.get("file:size", len(data))
        if size != len(data):
            self._error("checksum", path, f"has {len(data)} bytes, the item says {size}")
        digest = asset.get("file:checksum")
        if digest is not None and digest != "1220" + hashlib.sha256(data).hexdigest():
            self._error("checksum", path, "is not what the item's file:checksum says")
        name = posixpath.basename(path)
        if name not in sums:
            self._error("checksum", path, "is not in the sha1 file")
        elif sums[name] != hashlib.sha1(data).hexdigest():  # noqa: S324 - the file's format
            self._error("checksum", path, "is not what the sha1 file says")
        for check, line in raster_problems(path, data, asset, item["properties"]):
            self._error(check, path, line)

    def _read(self, path: str) -> bytes:
        data = self._store.read(path)
        self._bytes += len(data)
        return data

    def _error(self, check: str, path: str, message: str) -> None:
        self._found.append(Finding("error", check, path, message))

    def _warn(self, check: str, path: str, message: str) -> None:
        self._found.append(Finding("warning", check, path, message))
