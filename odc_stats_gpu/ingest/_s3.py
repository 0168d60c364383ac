"""Ranges of objects in S3: signed where there are credentials, else as anybody reads them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import urllib3

from odc_stats_gpu.errors import DataError
from odc_stats_gpu.ingest._patience import Answer, HiccupError, brief
from odc_stats_gpu.model import read_access

if TYPE_CHECKING:
    from rasterio.session import AWSSession

CONNECTIONS = 64
_lock = threading.Lock()
_open: set[str] = set()
"""Buckets that refuse our signature and answer without one."""
REMEDY = (
    "allow s3:GetObject on it; without s3:ListBucket S3 answers 403 for an absent object, too. "
    "A public bucket: --aws-unsigned; one whose readers pay: --requester-pays"
)


def s3_reader(uri: str) -> Callable[[int, int, str | None], Answer]:
    """A function that fetches (offset, length, ETag or None) of `s3://bucket/key`.

    It raises HiccupError, and DataError where there are no credentials.
    """
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    where = {"Bucket": bucket, "Key": key}

    def get(offset: int, length: int, etag: str | None) -> Answer:
        how = where | {"Range": f"bytes={offset}-{offset + length - 1}"}
        if etag:
            how["IfMatch"] = etag
        unsigned = _is_unsigned(bucket)
        answer = _ask(uri, how, unsigned=unsigned)
        if answer.status in (401, 403) and not unsigned and _may_be_open():
            again = _ask(uri, how, unsigned=True)
            if again.status in (200, 206):
                _open.add(bucket)
                return again
        return answer

    return get


def gdal_session(uri: str) -> tuple[AWSSession, dict[str, Any]]:
    """Credentials for GDAL's /vsis3 as boto3 finds them, refreshed, and options beside them."""
    from rasterio.session import AWSSession

    unsigned = _is_unsigned(uri.removeprefix("s3://").partition("/")[0])
    endpoint = urlsplit(_client(unsigned=unsigned).meta.endpoint_url)
    options: dict[str, Any] = {"AWS_NO_SIGN_REQUEST": "YES" if unsigned else "NO"}
    if not (endpoint.hostname or "").endswith((".amazonaws.com", ".amazonaws.com.cn")):
        style = (_client(unsigned=unsigned).meta.config.s3 or {}).get("addressing_style")
        options |= {
            "AWS_S3_ENDPOINT": endpoint.netloc + endpoint.path.rstrip("/"),
            "AWS_HTTPS": "NO" if endpoint.scheme == "http" else "YES",
            "AWS_VIRTUAL_HOSTING": style == "virtual",
        }
    if unsigned:
        return AWSSession(aws_unsigned=True), options
    return AWSSession(session=_session(), requester_pays=read_access().requester_pays), options


def _may_be_open() -> bool:
    access = read_access()
    return access.unsigned is None and not access.requester_pays


def _is_unsigned(bucket: str) -> bool:
    if not _may_be_open():
        return bool(read_access().unsigned)
    return bucket in _open or not _can_sign()


def _ask(uri: str, how: dict[str, str], *, unsigned: bool) -> Answer:
    from botocore import exceptions as botocore

    if read_access().requester_pays:
        how = {**how, "RequestPayer": "requester"}
    try:
        found = _client(unsigned=unsigned).get_object(**how)
        data = found["Body"].read()
    except botocore.ClientError as exc:
        error = exc.response
        status = int(error.get("ResponseMetadata", {}).get("HTTPStatusCode", 500))
        return Answer(status, b"", {}, str(error.get("Error", {}).get("Code", "")))
    except (botocore.NoCredentialsError, botocore.PartialCredentialsError) as exc:
        raise DataError(
            f"can't read {uri}: {exc}", "set credentials, or --aws-unsigned for a public bucket"
        ) from None
    except botocore.ParamValidationError as exc:
        raise DataError(f"can't read {uri}: {brief(exc)}", "check the address") from None
    except (botocore.BotoCoreError, urllib3.exceptions.HTTPError, OSError) as exc:
        raise HiccupError(brief(exc)) from None
    meta = found["ResponseMetadata"]
    return Answer(int(meta["HTTPStatusCode"]), data, dict(meta["HTTPHeaders"]))


@lru_cache(maxsize=1)
def _session() -> Any:
    """Where credentials come from and are refreshed; boto3 costs 0.3 s: only who reads S3 pays."""
    import boto3

    return boto3.session.Session()


def _can_sign() -> bool:
    with _lock:
        return _found_credentials()


@lru_cache(maxsize=1)
def _found_credentials() -> bool:
    """Asked once: without any, the whole chain is searched each time."""
    return _session().get_credentials() is not None


def _client(*, unsigned: bool) -> Any:
    with _lock:
        return _connect(unsigned=unsigned)


@lru_cache(maxsize=2)
def _connect(*, unsigned: bool) -> Any:
    """Botocore's own retries are off, ours count."""
    from botocore import UNSIGNED
    from botocore.config import Config

    config = Config(
        max_pool_connections=CONNECTIONS,
        connect_timeout=20,
        read_timeout=60,
        retries={"total_max_attempts": 1},
        signature_version=UNSIGNED if unsigned else None,
    )
    return _session().client("s3", config=config)


def close_s3() -> None:
    """Forget clients and credentials; the next read finds new ones."""
    with _lock:
        _connect.cache_clear()
        _found_credentials.cache_clear()
        _session.cache_clear()
        _open.clear()
