"""The file format of a task database: one LMDB file, zstd-compressed JSON, the incumbent's layout.

Named databases `info` (version, zdict, grid/, product/, metadata/, stats/config), `groups`
(`{grid}/{period}/{x}/{y}` -> 16-byte uuids), `ds` (uuid -> {uri, product, metadata}), `udata`.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lmdb
import zstandard

from odc_stats_gpu.errors import DataError
from odc_stats_gpu.tasks import _environments

VERSION = b"0001"
DATABASES = (b"info", b"groups", b"ds", b"udata")
_AGAIN = "write it again with save-tasks"


class StoreReader:
    """Read access to one file; several may be open at once, threads may share one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._env: Any = _environments.acquire(path)
        self._lock = threading.Lock()
        try:
            self._dbs = self._open_dbs()
            self._unzip = zstandard.ZstdDecompressor(**dictionary(self.raw(b"info", b"zdict")))
        except BaseException:
            self.close()
            raise

    def _open_dbs(self) -> dict[bytes, Any]:
        try:
            dbs = {b"info": self._env.open_db(b"info", create=False)}
            with self._env.begin(dbs[b"info"]) as txn:
                version = txn.get(b"version")
            if version is None:
                raise DataError(f"{self.path} has no format version", _AGAIN)
            if version != VERSION:
                raise DataError(
                    f"{self.path} has format version {version.decode(errors='replace')!r}, "
                    f"known is {VERSION.decode()}",
                    "update odc-stats-gpu, or " + _AGAIN,
                )
            for name in (b"groups", b"ds"):
                dbs[name] = self._env.open_db(name, create=False)
        except lmdb.Error:
            raise DataError(f"{self.path} is an LMDB file but no task database", _AGAIN) from None
        return dbs

    def raw(self, db: bytes, key: bytes) -> bytes | None:
        """A value as stored, or None."""
        with self._env.begin(self._dbs[db]) as txn:
            return txn.get(key)

    def doc(self, db: bytes, key: bytes) -> Any:
        """A stored document, or None when there is none; raises DataError when it is damaged."""
        value = self.raw(db, key)
        return None if value is None else self._decode(value, key)

    def items(self, db: bytes, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Keys and raw values in key order."""
        with self._env.begin(self._dbs[db]) as txn:
            cursor = txn.cursor()
            if cursor.set_range(prefix):
                for key, value in cursor:
                    if not key.startswith(prefix):
                        break
                    yield key, value

    def docs(self, prefix: str) -> dict[str, Any]:
        """Documents of `info` under a prefix, by the rest of their key."""
        start = prefix.encode()
        return {
            key[len(start) :].decode(): self._decode(value, key)
            for key, value in self.items(b"info", start)
        }

    def _decode(self, value: bytes, key: bytes) -> Any:
        try:
            with self._lock:  # a decompressor serves one thread at a time
                text = self._unzip.decompress(value)
            return json.loads(text)
        except (zstandard.ZstdError, ValueError) as exc:
            raise DataError(f"{self.path}: the entry {key!r} is damaged: {exc}", _AGAIN) from None

    def close(self) -> None:
        """Give the file back; harmless when called twice."""
        if self._env is not None:
            self._env, env = None, self._env
            _environments.release(env)


def dictionary(zdict: bytes | None) -> dict[str, Any]:
    """Arguments of a zstd compressor or decompressor."""
    return {"dict_data": zstandard.ZstdCompressionDict(zdict)} if zdict else {}
