"""The S3 store: whole objects with checksums, absence told apart from refusal."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar, cast

from odc_stats_gpu.errors import ConfigError
from odc_stats_gpu.output._s3_calls import (
    ABSENT,
    ATTEMPTS,
    DENIED,
    HOPELESS,
    NOT_YET,
    S3Calls,
    code_of,
    refusal,
    s3_errors,
)
from odc_stats_gpu.output._s3_upload import Upload
from odc_stats_gpu.output._store import ANY, ChangedError, Data
from odc_stats_gpu.telemetry import log

_CHANGED = ("PreconditionFailed", "412", "ConditionalRequestConflict", "409", *ABSENT)
"""Answers to a condition; absent: what was to be replaced is deleted."""
_OLD = timedelta(hours=1)
T = TypeVar("T")


class S3Store:
    """Objects below one prefix of a bucket. Thread-safe; the client is made on first use."""

    def __init__(
        self, bucket: str, prefix: str, *, acl: str | None = None, reading: bool = False
    ) -> None:
        self.bucket = bucket
        self.prefix = prefix
        self.acl = acl
        self.location = f"s3://{bucket}/{prefix}".rstrip("/")
        self._calls = S3Calls(reading=reading)
        self._conditions = True
        self._bucket_seen = False

    def _key(self, path: str) -> str:
        return f"{self.prefix}/{path}" if self.prefix else path

    def _where(self, path: str) -> dict[str, str]:
        return {"Bucket": self.bucket, "Key": self._key(path), **self._calls.payer}

    def uri(self, path: str = "") -> str:
        """Full address of a path."""
        return f"{self.location}/{path}" if path else self.location

    def exists(self, path: str) -> bool:
        """Whether an object is there; only a 404 means that it is not."""
        return self.etag(path) is not None

    def etag(self, path: str) -> str | None:
        """Version of an object, or None when there is none; raises StoreError on 403 and 5xx."""
        head = self._head(path)
        return None if head is None else str(head["ETag"])

    def _head(self, path: str, **how: str) -> dict[str, Any] | None:
        try:
            found = self._calls(lambda s3: s3.head_object(**self._where(path), **how))
        except s3_errors() as exc:
            if code_of(exc) not in ABSENT:
                raise refusal("look at", self.uri(path), exc) from exc
            self._see_bucket(path)
            return None
        self._bucket_seen = True
        return cast("dict[str, Any]", found)

    def _see_bucket(self, path: str) -> None:
        """The answer to HEAD doesn't tell an absent object from an absent bucket: GET's does."""
        if self._bucket_seen:
            return
        try:
            self._calls(lambda s3: s3.get_object(**self._where(path)))["Body"].close()
        except s3_errors() as exc:
            if code_of(exc) == "NoSuchBucket":
                raise refusal("look at", self.uri(path), exc) from exc
        self._bucket_seen = True

    def read(self, path: str) -> bytes:
        """The whole object."""

        def whole(s3: Any) -> bytes:
            with s3.get_object(**self._where(path))["Body"] as body:
                return cast("bytes", body.read())

        return self._ask("read", path, whole)

    def download(self, path: str, etag: str, target: Path) -> None:
        """Write that version of an object into a file; raises StoreError, OSError."""

        def copy(s3: Any) -> None:
            found = s3.get_object(**self._where(path), IfMatch=etag)
            with contextlib.closing(found["Body"]) as body, target.open("wb") as out:
                for chunk in body.iter_chunks(1 << 20):
                    out.write(chunk)

        self._ask("read", path, copy)

    def versions(self, paths: Sequence[str]) -> dict[str, str]:
        """ETags of those that exist: one listing, or one look each where listing is forbidden."""
        wanted = {self._key(path): path for path in paths}
        if not wanted:
            return {}
        try:
            return {
                wanted[entry["Key"]]: entry["ETag"]
                for entry in self._entries(_shared_start(list(wanted)))
                if entry["Key"] in wanted
            }
        except s3_errors() as exc:
            if code_of(exc) in DENIED:
                etags = {path: self.etag(path) for path in paths}
                return {path: etag for path, etag in etags.items() if etag is not None}
            raise refusal("list", self.uri(_shared_start(list(paths))), exc) from exc

    def _entries(self, prefix: str) -> Iterator[dict[str, str]]:
        """What a listing says of objects whose keys start with `prefix`, a page at a time."""
        where: dict[str, str] = {"Bucket": self.bucket, "Prefix": prefix, **self._calls.payer}
        more = True
        while more:
            page = self._calls(lambda s3: s3.list_objects_v2(**where))
            self._bucket_seen = True
            yield from page.get("Contents", ())
            more = bool(page.get("IsTruncated"))
            where["ContinuationToken"] = page.get("NextContinuationToken", "")

    def put(
        self,
        path: str,
        data: Data,
        content_type: str,
        *,
        expect: str | None = ANY,
        stop: threading.Event | None = None,
    ) -> str:
        """Upload with SHA-256 checksums, in parts when large: visible only once complete."""
        if expect != ANY and not self._conditions and self.etag(path) != expect:
            raise _changed(self.uri(path))
        extra = {"ContentType": content_type, **({"ACL": self.acl} if self.acl else {})}
        condition = (
            {} if expect == ANY or not self._conditions
            else {"IfNoneMatch": "*"} if expect is None
            else {"IfMatch": expect}
        )  # fmt: skip
        upload = Upload(self._calls, self._where(path), extra, condition, stop)
        try:
            etag = upload.send(data)
        except s3_errors() as exc:
            code = code_of(exc)
            taken = code == "NoSuchUpload" or (condition and code in _CHANGED)
            if not taken:
                raise refusal("write", self.uri(path), exc, self.acl) from exc
            # the answer to our own first attempt may have been lost on the way
            if (same := self._same(path, upload)) is not None:
                return same
            raise _changed(self.uri(path)) from exc
        if self._conditions and not upload.conditional:
            self._conditions = False
            log(
                f"the service behind s3://{self.bucket} knows no conditional writes: two workers "
                "at one tile at the same moment may not notice each other",
                level="warning",
            )
        return etag

    def _same(self, path: str, upload: Upload) -> str | None:
        """ETag of the object when its content is what was uploaded."""
        head = self._head(path, ChecksumMode="ENABLED")
        if head is None:
            return None
        etag, checksum = str(head["ETag"]), head.get("ChecksumSHA256")
        ours = (upload.checksum and checksum == upload.checksum) or etag == upload.etag
        return etag if ours else None

    def delete(self, path: str) -> None:
        """Remove an object; one that is absent is fine."""
        try:
            self._calls(lambda s3: s3.delete_object(**self._where(path)))
        except s3_errors() as exc:
            if code_of(exc) not in ABSENT:
                raise refusal("delete", self.uri(path), exc) from exc

    def list(self, prefix: str = "") -> Iterator[str]:
        """Paths starting with that text, in the order of S3."""
        head = f"{self.prefix}/" if self.prefix else ""
        try:
            for entry in self._entries(head + prefix):
                if not entry["Key"].endswith("/"):  # a "folder" made in the console
                    yield entry["Key"].removeprefix(head)
        except s3_errors() as exc:
            raise refusal("list", self.uri(prefix), exc) from exc

    def sweep(self, prefix: str, *, alone: bool = False) -> None:
        """Abort multipart uploads that were left behind: invisible, but paid for.

        Unless we are `alone`, a young one may be another worker's.
        """
        self._abort(prefix, before=None if alone else datetime.now(UTC) - _OLD)

    def _abort(self, prefix: str, *, before: datetime | None, attempts: int = ATTEMPTS) -> None:
        where = {"Bucket": self.bucket, "Prefix": self._key(prefix)}

        def abort(s3: Any) -> None:
            for upload in s3.list_multipart_uploads(**where).get("Uploads", ()):
                if before is None or upload["Initiated"] < before:
                    s3.abort_multipart_upload(
                        Bucket=self.bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                    )

        # listing uploads needs a permission of its own: without it the bucket's lifecycle rule acts
        with contextlib.suppress(*s3_errors()):
            self._calls(abort, attempts=attempts)

    def check_writable(self) -> None:
        """Begin and abort a multipart upload: needs the right to put only, and leaves no object.

        Those of workers that were killed in between are aborted, too.
        """
        where = self._where(".write-test")
        acl = {"ACL": self.acl} if self.acl else {}
        try:
            begun = self._calls(lambda s3: s3.create_multipart_upload(**where, **acl))
            upload = begun["UploadId"]
            self._calls(lambda s3: s3.abort_multipart_upload(**where, UploadId=upload))
        except s3_errors() as exc:
            if (code := code_of(exc)) != "NoSuchUpload":  # another worker was so kind
                failure = refusal("write", self.uri(".write-test"), exc, self.acl)
                if code in (*DENIED, *HOPELESS) and code != NOT_YET:
                    raise ConfigError(failure.message, failure.remedy) from exc
                raise failure from exc
        self._abort(".write-test", before=None, attempts=1)

    def _ask(self, verb: str, path: str, work: Callable[[Any], T]) -> T:
        try:
            return self._calls(work)
        except s3_errors() as exc:
            raise refusal(verb, self.uri(path), exc) from exc


def _changed(uri: str) -> ChangedError:
    return ChangedError(
        f"{uri} was written by somebody else meanwhile",
        "another worker is at this tile: it is left to that one",
    )


def _shared_start(names: Sequence[str]) -> str:
    """What all names begin with, character by character."""
    first, last = min(names), max(names)
    same = (a == b for a, b in zip(first, last, strict=False))
    return first[: sum(itertools.takewhile(bool, same))]
