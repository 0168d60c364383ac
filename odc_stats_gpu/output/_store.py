"""Where finished tiles go: one small protocol over a local folder or an S3 prefix."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from odc_stats_gpu.errors import ConfigError, StoreError

COG_TYPE = "image/tiff; application=geotiff; profile=cloud-optimized"
type_of_suffix = {
    ".tif": COG_TYPE,
    ".json": "application/json",
    ".yaml": "text/yaml",
    ".jpg": "image/jpeg",
    ".png": "image/png",
    ".sha1": "text/plain",
}
Data = bytes | Path | Iterable[bytes]
"""What can be put: bytes, a local file, or chunks in order (so that a big COG is never joined)."""

PART_SUFFIX = ".part"
"""Ending of the hidden temporary names of the local store."""
ANY = "*"
"""As `expect` of a put: whatever is there is replaced."""


class ChangedError(StoreError):
    """Somebody else wrote or removed the file meanwhile; theirs was left as it is."""


class Store(Protocol):
    """A place for files named by `/`-separated paths relative to its location."""

    location: str
    """Canonical address without a trailing slash: file:///out or s3://bucket/prefix."""

    def uri(self, path: str = "") -> str:
        """Full address of a path."""

    def exists(self, path: str) -> bool:
        """Whether a file is there; raises StoreError when that can't be told (403, 5xx, EIO)."""

    def read(self, path: str) -> bytes:
        """The whole file; raises StoreError, also when it is absent."""

    def versions(self, paths: Sequence[str]) -> dict[str, str]:
        """What distinguishes the present contents of these files; absent ones are left out."""

    def put(
        self,
        path: str,
        data: Data,
        content_type: str,
        *,
        expect: str | None = ANY,
        stop: threading.Event | None = None,
    ) -> str:
        """Publish a whole file, or nothing; returns its version.

        `expect` is the version to be replaced, None when there must be no file yet; once `stop` is
        set nothing new begins. Raises ChangedError when something else is there, unless it equals
        the data; StoreError; Cancelled.
        """

    def delete(self, path: str) -> None:
        """Remove a file; one that is absent is fine. Raises StoreError."""

    def list(self, prefix: str = "") -> Iterator[str]:
        """Paths below that folder or starting with that text, sorted; raises StoreError."""

    def sweep(self, prefix: str, *, alone: bool = False) -> None:
        """Remove what interrupted puts of files starting with `prefix` left behind.

        `alone`: nobody else can be putting such files, so that everything unfinished is left over.
        """

    def check_writable(self) -> None:
        """Fail now rather than after an hour's work: raises ConfigError or StoreError."""


def open_store(location: str, *, acl: str | None = None, reading: bool = False) -> Store:
    """Open `file:///dir`, a bare path or `s3://bucket/prefix`.

    `acl` is the canned ACL of new S3 objects; `reading` says that nothing will be written, so that
    requests to S3 are signed or not as `read_access` tells.
    Raises ConfigError for an empty location, an unknown scheme or a malformed address.
    """
    if not location:
        raise ConfigError("no output location given", "add --location DIR or s3://bucket/prefix")
    scheme, found, rest = location.partition("://")
    if not found:
        from odc_stats_gpu.output._local import LocalStore

        return LocalStore(Path(location).expanduser().absolute())
    if scheme.lower() == "file":
        from odc_stats_gpu.output._local import LocalStore

        rest = rest.removeprefix("localhost") if rest.startswith("localhost/") else rest
        if not rest.startswith("/"):
            raise ConfigError(
                f"location {location!r} has no absolute path",
                f"write file:///{rest} or a bare path",
            )
        return LocalStore(Path(rest))
    if scheme.lower() == "s3":
        from odc_stats_gpu.output._s3 import S3Store

        bucket, _, prefix = rest.partition("/")
        if not bucket:
            raise ConfigError(f"location {location!r} names no bucket", "write s3://bucket/prefix")
        return S3Store(bucket, prefix.strip("/"), acl=acl, reading=reading)
    raise ConfigError(
        f"location {location!r} has the unknown scheme {scheme!r}", "use file://, s3:// or a path"
    )


def content_type(path: str) -> str:
    """MIME type of a file by its ending."""
    return type_of_suffix.get(Path(path).suffix, "application/octet-stream")
