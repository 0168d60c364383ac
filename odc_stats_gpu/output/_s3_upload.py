"""One object to S3: one request when small, parts when large; conditions, checksums, no remains."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import itertools
import random
import threading
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from odc_stats_gpu.errors import Cancelled, StoreError
from odc_stats_gpu.output._s3_calls import S3Calls, code_of, s3_errors
from odc_stats_gpu.output._store import Data
from odc_stats_gpu.telemetry import fault_point

PART_BYTES = 8 << 20
"""Size of a multipart part; smaller objects go in one request."""
_MOST_PARTS = 10_000
"""S3's limit: objects end at 78 GiB."""
_AT_ONCE = 3
"""Parts of one object under way: hides latency and bounds memory."""
_CONFLICTS = 5
"""Attempts at a conditional put while S3 says that another one is under way (409)."""
_UNKNOWN = ("InvalidArgument", "InvalidRequest", "NotSupported", "UnsupportedOperation")
"""Besides NotImplemented: how services that only resemble S3 refuse a condition."""


class Upload:
    """Data on their way to one key; says afterwards which checksum S3 should have."""

    def __init__(
        self, calls: S3Calls, where: Mapping[str, str], extra: Mapping[str, str],
        condition: Mapping[str, str], stop: threading.Event | None = None,
    ) -> None:  # fmt: skip
        """`where` is bucket and key, `extra` type and ACL, `condition` IfMatch or IfNoneMatch."""
        self._calls, self._where, self._extra = calls, where, extra
        self._condition = condition
        self._stop = stop or threading.Event()
        self.conditional = True
        """Whether the service knows conditions: some that only resemble S3 don't."""
        self.checksum = ""
        """SHA-256 as S3 states it: base64, of the parts' digests and their count when in parts."""
        self.etag = ""
        """The ETag that the object gets, where S3 makes it of MD5 (not with a KMS key)."""

    def send(self, data: Data) -> str:
        """Upload everything; returns the ETag. Nothing is visible, or kept, unless it succeeds.

        Raises what botocore raises, and Cancelled when told to stop.
        """
        parts = _parts(data)
        first = next(parts, b"")
        second = next(parts, None)
        if second is None:
            self.checksum, self.etag = _sha256(first), f'"{_md5(first)}"'
            return self._final(
                "put_object", repeatable=True, Body=first, ChecksumAlgorithm="SHA256",
                ChecksumSHA256=self.checksum, **self._extra,
            )  # fmt: skip
        begin = {**self._where, **self._extra, "ChecksumAlgorithm": "SHA256"}
        begun = self._calls(lambda s3: s3.create_multipart_upload(**begin), self._stop)
        upload = begun["UploadId"]
        try:
            fault_point("upload_begun")
            sent = self._send_parts(upload, (first, second), parts)
            digests = b"".join(base64.b64decode(p["ChecksumSHA256"]) for p in sent)
            self.checksum = f"{_sha256(digests)}-{len(sent)}"
            self.etag = _etag_of_parts([p["ETag"] for p in sent])
            return self._final(
                "complete_multipart_upload", repeatable=False,  # S3 wants the parts again
                UploadId=upload, MultipartUpload={"Parts": sent},
            )  # fmt: skip
        except BaseException:
            with contextlib.suppress(*s3_errors()):  # the next attempt at the tile tries again
                self._calls(
                    lambda s3: s3.abort_multipart_upload(**self._where, UploadId=upload), attempts=2
                )
            raise

    def _final(self, operation: str, *, repeatable: bool, **what: Any) -> str:
        """The request that makes the object visible, under the condition; its ETag."""

        def final(s3: Any) -> str:
            return str(getattr(s3, operation)(**self._where, **what, **self._condition)["ETag"])

        for attempt in range(_CONFLICTS):
            try:
                return self._calls(final, self._stop)
            except s3_errors() as exc:
                if self._condition and _unknown(exc):
                    self.conditional, self._condition = False, {}
                elif repeatable and code_of(exc) == "ConditionalRequestConflict":
                    # another request for the key is under way: soon it is decided
                    self._stop.wait(random.uniform(0.1, 0.3) * 2**attempt)  # noqa: S311 - jitter
                else:
                    raise
        return self._calls(final, self._stop)

    def _send_parts(
        self, upload: str, begin: Iterable[bytes], rest: Iterator[bytes]
    ) -> list[dict[str, Any]]:
        sent: list[dict[str, Any]] = []
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="part") as pool:
            running: list[Future[dict[str, Any]]] = []
            for number, data in enumerate(itertools.chain(begin, rest), 1):
                if self._stop.is_set():
                    raise Cancelled("told to stop")
                if number > _MOST_PARTS:
                    raise StoreError(
                        f"s3://{self._where['Bucket']}/{self._where['Key']} would be larger than "
                        f"{_MOST_PARTS * PART_BYTES >> 30} GiB", "make smaller tiles",
                    )  # fmt: skip
                if len(running) == _AT_ONCE:
                    sent.append(running.pop(0).result())
                running.append(pool.submit(self._send_part, upload, number, data))
            sent += [part.result() for part in running]
        return sent

    def _send_part(self, upload: str, number: int, data: bytes) -> dict[str, Any]:
        checksum = _sha256(data)
        part = {**self._where, "UploadId": upload, "PartNumber": number, "ChecksumSHA256": checksum}
        found = self._calls(lambda s3: s3.upload_part(Body=data, **part), self._stop)
        fault_point("part_uploaded")
        return {"PartNumber": number, "ETag": found["ETag"], "ChecksumSHA256": checksum}


def _unknown(exc: Exception) -> bool:
    """Whether the service refused a request for bearing a condition."""
    code = code_of(exc)
    text = str(exc).lower()
    return code in ("NotImplemented", "501") or (
        code in _UNKNOWN and ("if-none-match" in text or "if-match" in text)
    )


def _parts(data: Data) -> Iterator[bytes]:
    """The data in pieces of PART_BYTES, the last one shorter."""
    if isinstance(data, bytes):
        for start in range(0, len(data), PART_BYTES):
            yield data[start : start + PART_BYTES]
        return
    if not isinstance(data, Iterable):
        with data.open("rb") as file:
            while piece := file.read(PART_BYTES):
                yield piece
        return
    buffer = io.BytesIO()
    for chunk in data:
        view = memoryview(chunk)
        while view:
            room = PART_BYTES - buffer.tell()
            buffer.write(view[:room])
            view = view[room:]
            if buffer.tell() == PART_BYTES:
                yield buffer.getvalue()
                buffer = io.BytesIO()
    if buffer.tell():
        yield buffer.getvalue()


def _sha256(data: bytes) -> str:
    return base64.b64encode(hashlib.sha256(data).digest()).decode()


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def _etag_of_parts(etags: list[str]) -> str:
    with contextlib.suppress(ValueError):  # other services have other ETags
        digests = b"".join(bytes.fromhex(etag.strip('"')) for etag in etags)
        return f'"{_md5(digests)}-{len(etags)}"'
    return ""
