"""One object to S3: one request when small, parts when large; conditions, checksums, no remains."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from odc_stats_gpu.output._store import Data
from odc_stats_gpu.telemetry import fault_point

PART_BYTES = 16 << 20
"""Size of a multipart part; smaller objects go in one request."""
_AT_ONCE = 3
"""Parts of one object under way: hides latency and bounds memory."""
_CONFLICTS = 5
"""Attempts at a conditional put while S3 says that another one is under way (409)."""


class Upload:
    """Data on their way to one key; says afterwards which checksum S3 should have."""

    def __init__(
        self, client: Any, where: Mapping[str, str], extra: Mapping[str, str],
        condition: Mapping[str, str], code: Callable[[BaseException], str],
    ) -> None:  # fmt: skip
        """`where` is bucket and key, `extra` type and ACL, `condition` IfMatch or IfNoneMatch.

        `code` tells the service's error code of an exception.
        """
        self._client, self._where, self._extra = client, where, extra
        self._condition, self._code = condition, code
        self.conditional = True
        """Whether the service knows conditions: some that only resemble S3 don't."""
        self.checksum = ""
        """SHA-256 as S3 states it: base64, of the parts' digests and their count when in parts."""
        self.etag = ""
        """The ETag that the object gets, where S3 makes it of MD5 (not with a KMS key)."""

    def send(self, data: Data) -> str:
        """Upload everything; returns the ETag. Nothing is visible, or kept, unless it succeeds."""
        parts = _parts(data)
        first = next(parts, b"")
        second = next(parts, None)
        if second is None:
            self.checksum, self.etag = _sha256(first), f'"{_md5(first)}"'
            return self._final(
                lambda condition: self._client.put_object(
                    **self._where, **self._extra, **condition, Body=first,
                    ChecksumAlgorithm="SHA256", ChecksumSHA256=self.checksum,
                ),
                repeatable=True,
            )  # fmt: skip
        begun = self._client.create_multipart_upload(
            **self._where, **self._extra, ChecksumAlgorithm="SHA256"
        )
        upload = {**self._where, "UploadId": begun["UploadId"]}
        try:
            fault_point("upload_begun")
            sent = self._send_parts(upload, (first, second), parts)
            digests = b"".join(base64.b64decode(p["ChecksumSHA256"]) for p in sent)
            self.checksum = f"{_sha256(digests)}-{len(sent)}"
            self.etag = _etag_of_parts([p["ETag"] for p in sent])
            return self._final(
                lambda condition: self._client.complete_multipart_upload(
                    **upload, **condition, MultipartUpload={"Parts": sent}
                ),
                repeatable=False,  # after a conflict S3 wants the parts again
            )
        except BaseException:
            with contextlib.suppress(Exception):  # what can't be aborted is swept an hour later
                self._client.abort_multipart_upload(**upload)
            raise

    def _final(self, call: Callable[[Mapping[str, str]], Any], *, repeatable: bool) -> str:
        """The request that makes the object visible, under the condition; its ETag."""
        condition = self._condition
        for attempt in range(_CONFLICTS):
            try:
                return str(call(condition)["ETag"])
            except Exception as exc:
                code = self._code(exc)
                if condition and code in ("NotImplemented", "501"):
                    self.conditional, condition = False, {}
                elif code == "ConditionalRequestConflict" and repeatable:
                    # another request for the key is under way: soon it is decided
                    time.sleep(random.uniform(0.1, 0.3) * 2**attempt)  # noqa: S311 - jitter
                else:
                    raise
        return str(call(condition)["ETag"])

    def _send_parts(
        self, upload: Mapping[str, str], begin: Iterable[bytes], rest: Iterator[bytes]
    ) -> list[dict[str, Any]]:
        sent: list[dict[str, Any]] = []
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="part") as pool:
            running: list[Future[dict[str, Any]]] = []
            number = 0
            for source in (begin, rest):
                for data in source:
                    number += 1
                    if len(running) == _AT_ONCE:
                        sent.append(running.pop(0).result())
                    running.append(pool.submit(self._send_part, upload, number, data))
            sent += [part.result() for part in running]
        return sent

    def _send_part(self, upload: Mapping[str, str], number: int, data: bytes) -> dict[str, Any]:
        checksum = _sha256(data)
        found = self._client.upload_part(
            **upload, PartNumber=number, Body=data, ChecksumSHA256=checksum
        )
        fault_point("part_uploaded")
        return {"PartNumber": number, "ETag": found["ETag"], "ChecksumSHA256": checksum}


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
