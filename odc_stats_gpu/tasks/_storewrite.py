"""Writing a task database: batches of documents in one transaction each, one sync at the end."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lmdb
import zstandard

from odc_stats_gpu.errors import ConfigError, StoreError
from odc_stats_gpu.tasks._store import DATABASES, VERSION, dictionary
from odc_stats_gpu.telemetry import fault_point

_MAP_SIZE = 10 << 30  # the incumbent's; grows when a database needs more
_BATCH_BYTES = 32 << 20
_BATCH_DOCS = 10_000
_DICT_BYTES = 8 << 10
_DICT_FROM = 100  # documents below which a dictionary costs more than it saves
_DICT_SAMPLE = 256
_Pair = tuple[bytes, bytes]


class StoreWriter:
    """Fills a new file. Nothing is durable before `finish`; the caller renames the file then."""

    def __init__(self, path: Path, complevel: int) -> None:
        if not zstandard.MAX_COMPRESSION_LEVEL >= complevel >= -zstandard.MAX_COMPRESSION_LEVEL:
            raise ConfigError(
                f"impossible compression level {complevel}",
                f"at most {zstandard.MAX_COMPRESSION_LEVEL}",
            )
        self._complevel = complevel
        self._zip: zstandard.ZstdCompressor | None = None
        self._pending: list[_Pair] = []
        self._bytes = 0
        try:
            self._env = lmdb.open(
                str(path), subdir=False, lock=False, sync=False, metasync=False,
                mode=0o644, max_dbs=8, map_size=_MAP_SIZE,
            )  # fmt: skip
            self._dbs = {name: self._env.open_db(name) for name in DATABASES}
        except lmdb.Error as exc:
            raise StoreError(
                f"can't write {path}: {exc}", "check the folder and the free space"
            ) from None
        self._path = path

    def add_dataset(self, uuid: bytes, doc: Mapping[str, Any]) -> None:
        """Store one document; it is compressed and committed with its batch."""
        text = to_json(doc)
        self._pending.append((uuid, text))
        self._bytes += len(text)
        if self._bytes >= _BATCH_BYTES or len(self._pending) >= _BATCH_DOCS:
            self._flush()

    def finish(self, info: Mapping[str, Any], groups: Iterable[_Pair]) -> None:
        """Store the `info` documents and the groups, and bring everything to disk."""
        self._flush()
        self._put(b"info", [(key.encode(), self._pack(to_json(doc))) for key, doc in info.items()])
        self._put(b"groups", list(groups))
        try:
            self._env.sync(True)  # noqa: FBT003 - lmdb's only argument: force
        except lmdb.Error as exc:
            raise self._failed(exc) from None
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._env.close()

    def _flush(self) -> None:
        if self._zip is None:
            zdict = _train([text for _, text in self._pending])
            self._zip = zstandard.ZstdCompressor(level=self._complevel, **dictionary(zdict))
            head = [(b"version", VERSION)]
            self._put(b"info", [*head, (b"zdict", zdict)] if zdict else head)
        # Random keys fill an LMDB tree fastest, and smallest, in key order.
        self._put(b"ds", [(uuid, self._pack(text)) for uuid, text in sorted(self._pending)])
        self._pending.clear()
        self._bytes = 0
        fault_point("tasks_batch")

    def _pack(self, text: bytes) -> bytes:
        if self._zip is None:
            raise RuntimeError("documents are packed by _flush, which makes the compressor")
        return self._zip.compress(text)

    def _put(self, db: bytes, pairs: list[_Pair]) -> None:
        """One transaction; tried again with a larger map when this one is full."""
        while True:
            try:
                with self._env.begin(self._dbs[db], write=True) as txn:
                    for key, value in pairs:
                        txn.put(key, value)
                return
            except lmdb.MapFullError:
                self._env.set_mapsize(self._env.info()["map_size"] * 2)
            except lmdb.Error as exc:
                raise self._failed(exc) from None

    def _failed(self, exc: Exception) -> StoreError:
        return StoreError(f"can't write {self._path}: {exc}", "check the free space")


def to_json(doc: Any) -> bytes:
    """Compact JSON; NaN and infinities become the strings that datacube writes."""
    try:
        text = json.dumps(doc, separators=(",", ":"), allow_nan=False, default=_plain)
    except ValueError:
        text = json.dumps(_no_nan(doc), separators=(",", ":"), default=_plain)
    return text.encode()


def _plain(value: Any) -> Any:
    """What JSON has no form for: dates and uuids as text."""
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _no_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _no_nan(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_no_nan(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def _train(texts: Sequence[bytes]) -> bytes | None:
    """A dictionary from documents spread over the first batch, or None when there are few."""
    if len(texts) < _DICT_FROM:
        return None
    step = max(1, len(texts) // _DICT_SAMPLE)
    sample: list[Any] = list(texts[::step][:_DICT_SAMPLE])
    try:
        return zstandard.train_dictionary(_DICT_BYTES, sample).as_bytes()
    except zstandard.ZstdError:  # too alike or too small to learn from: nothing is lost
        return None
