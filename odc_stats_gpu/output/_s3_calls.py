"""Requests to S3: patience that can be called off, and plain words for what no patience mends."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

import tenacity

from odc_stats_gpu.errors import Cancelled, StoreError
from odc_stats_gpu.model import read_access

ATTEMPTS = 8
MAX_WAIT = 10.0
"""Seconds between two attempts, at most; they double from 0.5 s, with full jitter."""
PATIENCE = 120.0
"""Seconds after which no new attempt begins."""
ABSENT = ("404", "NoSuchKey", "NotFound")
NOT_YET = "CredentialsNotFetched"
"""No denial for good: whoever hands the credentials out may still be starting."""
DENIED = ("401", "403", "AccessDenied", "Forbidden", "InvalidAccessKeyId", "SignatureDoesNotMatch",
          "ExpiredToken", "InvalidToken", "AllAccessDisabled", "AccountProblem", "NoCredentials",
          NOT_YET, "RequestTimeTooSkewed")  # fmt: skip
HOPELESS = ("NoSuchBucket", "InvalidBucketName", "AccessControlListNotSupported")
"""Besides denial: what no retry mends."""
_PASSING = ("SlowDown", "Throttling", "ThrottlingException", "RequestTimeout", "InternalError",
            "ServiceUnavailable", "RequestLimitExceeded", "BandwidthLimitExceeded",
            "TooManyRequests", "BadDigest", "XAmzContentSHA256Mismatch")  # fmt: skip
_RIGHTS = {
    "look at": "s3:GetObject on it, and s3:ListBucket on the bucket: without that one S3 answers "
    "403 for an absent object, too",
    "list": "s3:ListBucket on the bucket",
    "delete": "s3:DeleteObject on it",
    "write": "s3:PutObject on it",
}
T = TypeVar("T")


class S3Calls:
    """A client of the default credential chain, made on first use. Thread-safe.

    botocore's own retries are off: its pauses can't be interrupted. `reading` is for inputs: they
    may be public, and read without a signature.
    """

    def __init__(self, *, reading: bool = False) -> None:
        access = read_access()
        self._may_unsign = reading and access.unsigned is None and not access.requester_pays
        self._unsigned = bool(reading and access.unsigned)
        self._clients: dict[bool, Any] = {}
        self._lock = threading.Lock()
        self.payer = {"RequestPayer": "requester"} if access.requester_pays else {}

    def __call__(
        self,
        work: Callable[[Any], T],
        stop: threading.Event | None = None,
        *,
        attempts: int = ATTEMPTS,
    ) -> T:
        """Result of `work(client)`, repeated while the failure is one that passes.

        Raises what the last attempt raised, and Cancelled when `stop` was set.
        """
        stop = stop or threading.Event()
        tries = tenacity.Retrying(
            stop=tenacity.stop_any(
                tenacity.stop_after_attempt(attempts), tenacity.stop_after_delay(PATIENCE)
            ),
            wait=tenacity.wait_random_exponential(multiplier=0.5, max=MAX_WAIT),
            sleep=tenacity.sleep_using_event(stop),
            retry=tenacity.retry_if_exception(_passes),
            reraise=True,
        )
        answer: T = tries(self._attempt, work, stop)
        return answer

    def _attempt(self, work: Callable[[Any], T], stop: threading.Event) -> T:
        if stop.is_set():
            raise Cancelled("told to stop")
        try:
            return work(self._client(unsigned=self._unsigned))
        except s3_errors() as exc:
            if not self._may_unsign or code_of(exc) not in DENIED:
                raise
            try:
                answer = work(self._client(unsigned=True))
            except s3_errors():
                raise exc from None
            self._unsigned = True
            return answer

    def _client(self, *, unsigned: bool) -> Any:
        with self._lock:
            if unsigned not in self._clients:
                self._clients[unsigned] = _connect(unsigned=unsigned)
            return self._clients[unsigned]


def _connect(*, unsigned: bool) -> Any:
    import boto3
    import botocore
    from botocore.config import Config

    config = Config(
        retries={"total_max_attempts": 1},
        connect_timeout=10,
        read_timeout=60,
        max_pool_connections=32,
        signature_version=botocore.UNSIGNED if unsigned else None,
    )
    return boto3.session.Session().client("s3", config=config)


def s3_errors() -> tuple[type[Exception], ...]:
    """Everything boto3 raises for a request that didn't succeed."""
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError
    from urllib3.exceptions import HTTPError

    return (BotoCoreError, ClientError, ResponseParserError, HTTPError)


def code_of(exc: BaseException) -> str:
    """Error code of the service, or the name of the local failure; empty for a lost connection."""
    from botocore import exceptions as botocore

    if isinstance(exc, botocore.ClientError):
        return str(exc.response.get("Error", {}).get("Code", ""))
    if isinstance(exc, (botocore.CredentialRetrievalError, botocore.TokenRetrievalError)):
        return NOT_YET
    if isinstance(exc, (botocore.NoCredentialsError, botocore.PartialCredentialsError,
                        botocore.ProfileNotFound, botocore.UnauthorizedSSOTokenError)):  # fmt: skip
        return "NoCredentials"
    if isinstance(exc, botocore.ParamValidationError):
        return "InvalidBucketName"
    return ""


def _passes(exc: BaseException) -> bool:
    """Whether the same request may succeed in a while: throttling, 5xx, a broken connection."""
    from botocore import exceptions as botocore

    if isinstance(exc, botocore.ClientError):
        status = exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500)
        code = code_of(exc)
        return code in _PASSING or status in (408, 429) or (status >= 500 and status != 501)
    lost = (botocore.HTTPClientError, botocore.ConnectionError,
            botocore.ResponseStreamingError, botocore.IncompleteReadError)  # fmt: skip
    if isinstance(exc, botocore.BotoCoreError):
        return isinstance(exc, lost)
    return isinstance(exc, s3_errors())


def refusal(verb: str, uri: str, exc: Exception, acl: str | None = None) -> StoreError:
    """What to say when an object couldn't be looked at, read, listed, written or deleted."""
    code = code_of(exc)
    what = f"can't {verb} {uri}: "
    if code == "NoSuchBucket":
        return StoreError(f"{what}no bucket {uri.split('/')[2]!r}", "check its name")
    if code in ABSENT:
        return StoreError(f"{what}no such object", "check the location")
    if code in ("NoCredentials", NOT_YET):
        return StoreError(f"{what}{exc}",
                          "configure AWS credentials (environment, profile or role)")  # fmt: skip
    if code == "AccessControlListNotSupported":
        return StoreError(what + code, f"the bucket takes no ACL: leave out s3_acl ({acl})")
    if code in ("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"):
        return StoreError(what + code, "renew or correct the AWS credentials")
    if code == "RequestTimeTooSkewed":
        return StoreError(what + code, "set this machine's clock")
    if code in DENIED:
        right = _RIGHTS.get(verb, _RIGHTS["look at"])
        if acl and verb == "write":
            right += f", and s3:PutObjectAcl for the ACL {acl!r}"
        return StoreError(f"{what}access denied ({code})", f"allow {right}")
    if code == "InvalidBucketName":
        return StoreError(f"{what}{exc}", "check the location")
    if _passes(exc):
        reason = f"{code}, {ATTEMPTS} times" if code else " ".join(str(exc).split())
        return StoreError(what + reason, "try again when the service answers")
    return StoreError(f"{what}{' '.join(str(exc).split())}", "check location, region and endpoint")
