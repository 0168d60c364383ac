"""The S3 store: whole objects with checksums, absence told apart from refusal."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from odc_stats_gpu.errors import ConfigError, StoreError
from odc_stats_gpu.output._store import Data

_PART_BYTES = 16 << 20
"""Size of a multipart part; smaller objects go in one request."""
_ABSENT = ("404", "NoSuchKey", "NotFound")
_DENIED = ("401", "403", "AccessDenied", "Forbidden", "InvalidAccessKeyId", "SignatureDoesNotMatch",
           "ExpiredToken", "AllAccessDisabled", "AccountProblem")  # fmt: skip


_HOPELESS = ("NoSuchBucket", "InvalidBucketName", "NoCredentials",
             "AccessControlListNotSupported")  # fmt: skip
"""Besides denial: what no retry mends."""


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
                self._client.head_object(Bucket=self.bucket, Key=self._key(path))["ETag"],
            )
        except _errors() as exc:
            if _code(exc) in _ABSENT:
                return None
            raise self._error("look at", path, exc) from exc

    def read(self, path: str) -> bytes:
        """The whole object."""
        try:
            found = self._client.get_object(Bucket=self.bucket, Key=self._key(path))
            with found["Body"] as body:
                return cast("bytes", body.read())
        except _errors() as exc:
            raise self._error("read", path, exc) from exc

    def put(self, path: str, data: Data, content_type: str) -> None:
        """Upload with a SHA-256 checksum, in parts when large: visible only once complete."""
        from boto3.s3.transfer import TransferConfig

        extra = {"ContentType": content_type, "ChecksumAlgorithm": "SHA256"}
        if self.acl:
            extra["ACL"] = self.acl
        config = TransferConfig(
            multipart_threshold=_PART_BYTES, multipart_chunksize=_PART_BYTES, max_concurrency=4
        )
        try:
            with _reader(data) as src:
                self._client.upload_fileobj(
                    src, self.bucket, self._key(path), ExtraArgs=extra, Config=config
                )
        except _errors() as exc:
            raise self._error("write", path, exc) from exc

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
            for page in pages.paginate(Bucket=self.bucket, Prefix=head + prefix):
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


class _ChunkReader(io.RawIOBase):
    """Chunks as a file to be read once; boto3 keeps the parts it may have to send again."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = memoryview(chunk)
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def _reader(data: Data) -> Any:
    if isinstance(data, bytes):
        return io.BytesIO(data)
    if isinstance(data, Path):
        return data.open("rb")
    return io.BufferedReader(_ChunkReader(data), 1 << 20)


def _errors() -> tuple[type[Exception], ...]:
    """Everything boto3 raises for a request that didn't succeed."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

    return (BotoCoreError, ClientError, HTTPClientError, Boto3Error)


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
