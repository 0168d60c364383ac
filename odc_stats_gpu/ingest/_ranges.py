"""Bytes of remote objects: range requests to HTTP servers and S3, with patience for hiccups.

GDAL's network file systems are not used for this: they remember a failed request as "not there"
for the life of the process, and one request more per file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache

import tenacity
import urllib3

from odc_stats_gpu.errors import DataError
from odc_stats_gpu.ingest._patience import Answer, HiccupError, brief, pause
from odc_stats_gpu.ingest._s3 import CONNECTIONS, REMEDY, close_s3, s3_reader
from odc_stats_gpu.ingest._tiff import Fetch, TiffError

ATTEMPTS = 6
MAX_WAIT = 10.0
"""Seconds between two attempts, at most; they double from 0.2 s, with jitter."""
_HEAD = 1 << 16
"""Bytes of the first request: the headers of most cloud-optimised files."""
_GAP = 1 << 16
"""Bytes that it is cheaper to fetch along than to send another request for."""
_LONGEST = 1 << 23
"""Bytes of the longest merged request."""


class Remote:
    """One object behind https://, http:// or s3://."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._get = s3_reader(uri) if uri.startswith("s3:") else _http(uri)
        self.stale = False
        """Whether the object was replaced since its header was read."""
        self._etag: str | None = None
        self._head, self.size, self._etag = self._retried(0, _HEAD)

    def fetch(self, offset: int, length: int) -> bytes:
        """Bytes of the object, fewer at its end; raises DataError naming it."""
        length = min(length, self.size - offset)
        if offset + length <= len(self._head):
            return self._head[offset : offset + max(length, 0)]
        return self._retried(offset, length)[0]

    @property
    def mark(self) -> tuple[int, ...]:
        """Changes when the object is replaced."""
        return (self.size, hash(self._etag))

    def forget(self) -> None:
        """Give the first bytes back, once the header has been parsed."""
        self._head = b""

    @contextmanager
    def opened(self, wanted: Iterable[tuple[int, int]] = ()) -> Iterator[Fetch]:
        """Fetch ranges (offset, length) that will be asked for, neighbours in one request."""
        have: list[tuple[int, bytes]] = []
        for start, stop in _merged(wanted):
            have.append((start, self.fetch(start, stop - start)))

        def fetch(offset: int, length: int) -> bytes:
            for start, data in have:
                if start <= offset < start + len(data):
                    return data[offset - start : offset - start + length]
            return self.fetch(offset, length)

        yield fetch

    def _retried(self, offset: int, length: int) -> tuple[bytes, int, str | None]:
        tries = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(ATTEMPTS),
            wait=tenacity.wait_random_exponential(multiplier=0.2, max=MAX_WAIT),
            sleep=pause,
            retry=tenacity.retry_if_exception_type(HiccupError),
            reraise=True,
        )
        try:
            return tries(self._once, offset, length)
        except HiccupError as exc:
            raise DataError(
                f"can't read {self.uri}: {exc}, {ATTEMPTS} times",
                "try again when the server answers",
            ) from None

    def _once(self, offset: int, length: int) -> tuple[bytes, int, str | None]:
        status, data, headers, code = self._get(offset, length, self._etag)
        if status in (200, 206):
            size, part = _extent(headers, offset, data, whole=status == 200)
            expected = len(data) if status == 200 else min(length, size - offset)
            if len(part) < expected and status == 206:
                raise HiccupError(f"{len(part)} of {expected} bytes came")
            return (data if status == 200 and offset == 0 else part[:length]), size, _etag(headers)
        if status == 412:
            self.stale = True
            raise DataError(f"{self.uri} was replaced while it was read", "run the task again")
        if status == 416:
            raise TiffError(f"it ends before byte {offset}: truncated")
        if status in (408, 429) or status >= 500 or code == "RequestTimeout":
            raise HiccupError(f"the server answers {status}")
        raise self._refused(status, code)

    def _refused(self, status: int, code: str) -> DataError:
        """What no second attempt mends."""
        if code == "NoSuchBucket":
            return DataError(f"can't read {self.uri}: no such bucket", "check its name")
        if status == 404:
            return DataError(
                f"no such file: {self.uri}",
                "restore it or save the tasks again without that dataset",
            )
        if status in (401, 403):
            reason = f"access denied ({code or status})"
            remedy = REMEDY if self.uri.startswith("s3:") else "check the address and its rights"
            return DataError(f"can't read {self.uri}: {reason}", remedy)
        reason = f"the server answers {status} {code}".rstrip()
        return DataError(f"can't read {self.uri}: {reason}", "check the address")


def _extent(headers: dict[str, str], offset: int, data: bytes, *, whole: bool) -> tuple[int, bytes]:
    """Size of the object, and the bytes from `offset` on."""
    if whole:
        return len(data), data[offset:]
    total = headers.get("content-range", "").rpartition("/")[2]
    return int(total) if total.isdigit() else offset + len(data), data


def _etag(headers: dict[str, str]) -> str | None:
    """A strong validator of the object, if the server gives one."""
    etag = headers.get("etag")
    return None if etag is None or etag.startswith("W/") else etag


def _merged(wanted: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges (start, stop) that cover all (offset, length)."""
    out: list[tuple[int, int]] = []
    for offset, length in sorted(wanted):
        stop = offset + length
        if out and offset - out[-1][1] <= _GAP and stop - out[-1][0] <= _LONGEST:
            out[-1] = (out[-1][0], max(out[-1][1], stop))
        else:
            out.append((offset, stop))
    return out


def _http(uri: str) -> Callable[[int, int, str | None], Answer]:
    pool = _http_pool()

    def get(offset: int, length: int, etag: str | None) -> Answer:
        headers = {"Range": f"bytes={offset}-{offset + length - 1}"}
        if etag:
            headers["If-Match"] = etag
        try:
            answer = pool.request("GET", uri, headers=headers)
        except urllib3.exceptions.LocationParseError as exc:
            raise DataError(f"can't read {uri}: {exc}", "check the address") from None
        except urllib3.exceptions.HTTPError as exc:
            raise HiccupError(brief(exc)) from None
        return Answer(answer.status, answer.data, {k.lower(): v for k, v in answer.headers.items()})

    return get


@lru_cache(maxsize=1)
def _http_pool() -> urllib3.PoolManager:
    return urllib3.PoolManager(
        num_pools=16,
        maxsize=CONNECTIONS,
        retries=urllib3.Retry(total=None, connect=0, read=0, redirect=5, status=0, other=0),
        timeout=urllib3.Timeout(connect=20, read=60),
    )


def close_remotes() -> None:
    """Close connections; the next read opens new ones, with the environment of then."""
    _http_pool().clear()
    _http_pool.cache_clear()
    close_s3()
