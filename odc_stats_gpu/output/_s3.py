"""The S3 store: whole objects with checksums, absence told apart from refusal."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from odc_stats_gpu.errors import ConfigError, StoreError
from odc_stats_gpu.output._s3_upload import Upload
from odc_stats_gpu.output._store import ANY, ChangedError, Data

_ABSENT = ("404", "NoSuchKey", "NotFound")
_DENIED = ("401", "403", "AccessDenied", "Forbidden", "InvalidAccessKeyId", "SignatureDoesNotMatch",
           "ExpiredToken", "AllAccessDisabled", "AccountProblem")  # fmt: skip


_HOPELESS = ("NoSuchBucket", "InvalidBucketName", "NoCredentials",
             "AccessControlListNotSupported")  # fmt: skip
"""Besides denial: what no retry mends."""
_CHANGED = ("PreconditionFailed", "412", "ConditionalRequestConflict", "409")
_GONE = ("404", "NoSuchKey", "NotFound")
"""As the answer to If-Match: the object was deleted."""


class S3Store:
    """Objects below one prefix of a bucket. Thread-safe; the client is made on first use."""

    def __init__(
        self, bucket: str, prefix: str, *, acl: str | None = None, unsigned: bool = False
    ) -> None:
        self.bucket = bucket
        self.prefix = prefix
        self.acl = acl
        self.unsigned = unsigned
        self.location = f"s3://{bucket}/{prefix}".rstrip("/")
        self._conditions = True
        payer = bool(os.environ.get("AWS_REQUEST_PAYER"))
        self._pays = {"RequestPayer": "requester"} if payer else {}

    @cached_property
    def _client(self) -> Any:
        import boto3
        import botocore
        from botocore.config import Config

        config = Config(
            retries={"mode": "standard", "total_max_attempts": 8},  # back-off with full jitter
            connect_timeout=10,
            read_timeout=60,
            max_pool_connections=32,
            signature_version=botocore.UNSIGNED if self.unsigned else None,
        )
        return boto3.session.Session().client("s3", config=config)

    def _key(self, path: str) -> str:
        return f"{self.prefix}/{path}" if self.prefix else path

    def uri(self, path: str = "") -> str:
        """Full address of a path."""
        return f"{self.location}/{path}" if path else self.location

    def exists(self, path: str) -> bool:
        """Whether an object is there; only a 404 means that it is not."""
        return self.etag(path) is not None

    def etag(self, path: str) -> str | None:
        """Version of an object, or None when there is none; raises StoreError on 403 and 5xx."""
        try:
            return cast(
                "str",
                self._client.head_object(Bucket=self.bucket, Key=self._key(path), **self._pays)[
                    "ETag"
                ],
            )
        except _errors() as exc:
            if _code(exc) in _ABSENT:
                return None
            raise self._error("look at", path, exc) from exc

    def read(self, path: str) -> bytes:
        """The whole object."""
        try:
            found = self._client.get_object(Bucket=self.bucket, Key=self._key(path), **self._pays)
            with found["Body"] as body:
                return cast("bytes", body.read())
        except _errors() as exc:
            raise self._error("read", path, exc) from exc

    def download(self, path: str, etag: str, target: Path) -> None:
        """Write that version of an object into a file; raises StoreError, OSError."""
        try:
            found = self._client.get_object(
                Bucket=self.bucket, Key=self._key(path), IfMatch=etag, **self._pays
            )
            with contextlib.closing(found["Body"]) as body, target.open("wb") as out:
                for chunk in body.iter_chunks(1 << 20):
                    out.write(chunk)
        except _errors() as exc:
            raise self._error("read", path, exc) from exc

    def versions(self, paths: Sequence[str]) -> dict[str, str]:
        """ETags of those that exist: one listing, or one look each where listing is forbidden."""
        wanted = {self._key(path): path for path in paths}
        if not wanted:
            return {}
        found: dict[str, str] = {}
        pages = self._client.get_paginator("list_objects_v2")
        try:
            for page in pages.paginate(
                Bucket=self.bucket, Prefix=_shared_start(list(wanted)), **self._pays
            ):
                found |= {
                    wanted[entry["Key"]]: entry["ETag"]
                    for entry in page.get("Contents", ())
                    if entry["Key"] in wanted
                }
        except _errors() as exc:
            if _code(exc) in _DENIED:
                etags = {path: self.etag(path) for path in paths}
                return {path: etag for path, etag in etags.items() if etag is not None}
            raise self._error("list", _shared_start(list(paths)), exc) from exc
        return found

    def put(self, path: str, data: Data, content_type: str, *, expect: str | None = ANY) -> str:
        """Upload with SHA-256 checksums, in parts when large: visible only once complete."""
        extra = {"ContentType": content_type, **({"ACL": self.acl} if self.acl else {})}
        condition = (
            {} if expect == ANY or not self._conditions
            else {"IfNoneMatch": "*"} if expect is None
            else {"IfMatch": expect}
        )  # fmt: skip
        where = {"Bucket": self.bucket, "Key": self._key(path)}
        upload = Upload(self._client, where, extra, condition, _code)
        try:
            etag = upload.send(data)
        except _errors() as exc:
            code = _code(exc)
            if not condition or code not in (*_CHANGED, *_GONE):
                raise self._error("write", path, exc) from exc
            # the answer to our own first attempt may have been lost on the way
            if (same := self._same(path, upload)) is not None:
                return same
            raise ChangedError(
                f"{self.uri(path)} was written by somebody else meanwhile",
                "another worker is at this tile: it is left to that one",
            ) from exc
        self._conditions = self._conditions and upload.conditional
        return etag

    def _same(self, path: str, upload: Upload) -> str | None:
        """ETag of the object when its content is what was uploaded."""
        with contextlib.suppress(*_errors()):
            head = self._client.head_object(
                Bucket=self.bucket, Key=self._key(path), ChecksumMode="ENABLED", **self._pays
            )
            etag, checksum = str(head["ETag"]), head.get("ChecksumSHA256")
            if (upload.checksum and checksum == upload.checksum) or etag == upload.etag:
                return etag
        return None

    def delete(self, path: str) -> None:
        """Remove an object; one that is absent is fine."""
        try:
            self._client.delete_object(Bucket=self.bucket, Key=self._key(path))
        except _errors() as exc:
            if _code(exc) not in _ABSENT:
                raise self._error("delete", path, exc) from exc

    def list(self, prefix: str = "") -> Iterator[str]:
        """Paths starting with that text, in the order of S3."""
        head = f"{self.prefix}/" if self.prefix else ""
        pages = self._client.get_paginator("list_objects_v2")
        try:
            for page in pages.paginate(Bucket=self.bucket, Prefix=head + prefix, **self._pays):
                for entry in page.get("Contents", ()):
                    if not entry["Key"].endswith("/"):  # a "folder" made in the console
                        yield entry["Key"].removeprefix(head)
        except _errors() as exc:
            raise self._error("list", prefix, exc) from exc

    def sweep(self, prefix: str) -> None:
        """Abort multipart uploads of an hour ago and older: invisible, but paid for."""
        before = datetime.now(UTC) - timedelta(hours=1)
        # listing uploads needs a permission of its own: without it the bucket's lifecycle rule acts
        with contextlib.suppress(*_errors()):
            found = self._client.list_multipart_uploads(
                Bucket=self.bucket, Prefix=self._key(prefix)
            )
            for upload in found.get("Uploads", ()):
                if upload["Initiated"] < before:
                    self._client.abort_multipart_upload(
                        Bucket=self.bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                    )

    def check_writable(self) -> None:
        """Begin and abort a multipart upload: needs the right to put only, and leaves no object."""
        probe = self._key(".write-test")
        try:
            acl = {"ACL": self.acl} if self.acl else {}
            begun = self._client.create_multipart_upload(Bucket=self.bucket, Key=probe, **acl)
            self._client.abort_multipart_upload(
                Bucket=self.bucket, Key=probe, UploadId=begun["UploadId"]
            )
        except _errors() as exc:
            code = _code(exc)
            if code in _DENIED or code in _HOPELESS:
                failure = self._error("write to", "", exc)
                raise ConfigError(failure.message, failure.remedy) from exc
            raise self._error("write to", "", exc) from exc

    def _error(self, verb: str, path: str, exc: Exception) -> StoreError:
        code = _code(exc)
        if code == "NoSuchBucket":
            return StoreError(
                f"can't {verb} {self.uri(path)}: no bucket {self.bucket!r}", "check its name"
            )
        if code in _ABSENT:
            return StoreError(
                f"can't {verb} {self.uri(path)}: no such object", "check the location"
            )
        if code == "NoCredentials":
            remedy = "configure AWS credentials (environment, profile or role)"
        elif code == "AccessControlListNotSupported":
            remedy = f"the bucket takes no ACL: leave out s3_acl ({self.acl})"
        elif code in _DENIED:
            remedy = (
                "grant s3:GetObject, s3:PutObject and s3:ListBucket: without the last one, "
                "an absent object can't be told from a forbidden one"
            )
        else:
            remedy = "the service refused after several attempts: try again later"
        return StoreError(f"can't {verb} {self.uri(path)}: {code or exc}", remedy)


def _shared_start(names: Sequence[str]) -> str:
    """What all names begin with, character by character."""
    first, last = min(names), max(names)
    same = (a == b for a, b in zip(first, last, strict=False))
    return first[: sum(itertools.takewhile(bool, same))]


def _errors() -> tuple[type[Exception], ...]:
    """Everything boto3 raises for a request that didn't succeed."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
    from urllib3.exceptions import HTTPError

    return (BotoCoreError, ClientError, HTTPClientError, Boto3Error, HTTPError)


def _code(exc: BaseException) -> str:
    """Error code of the service, or the name of the local failure."""
    from botocore.exceptions import (
        ClientError,
        NoCredentialsError,
        ParamValidationError,
        PartialCredentialsError,
    )

    cause = exc.__cause__ or exc.__context__
    if not isinstance(exc, ClientError) and isinstance(cause, ClientError):
        exc = cause  # boto3 wraps the failure of a transfer
    if isinstance(exc, ClientError):
        return str(exc.response.get("Error", {}).get("Code", ""))
    if isinstance(exc, (NoCredentialsError, PartialCredentialsError)):
        return "NoCredentials"
    if isinstance(exc, ParamValidationError):
        return "InvalidBucketName"
    return ""
