"""How inputs in S3 are asked for: with or without a signature, and at whose cost."""

from __future__ import annotations

import os
from dataclasses import dataclass

from odc_stats_gpu.errors import ConfigError

_YES = ("YES", "Y", "TRUE", "T", "1")


@dataclass(frozen=True, slots=True)
class ReadAccess:
    """For scenes, task databases and configurations; what is written is always signed."""

    unsigned: bool | None = None
    """True: without a signature, False: with one. None: with one where there are credentials and
    the bucket takes them, else without."""
    requester_pays: bool = False


_unsigned: bool | None = None
_pays: bool | None = None


def set_read_access(*, unsigned: bool | None = None, requester_pays: bool | None = None) -> None:
    """Let options decide for this process; None leaves it to the environment.

    Raises ConfigError when both are true: S3 can't send a bill to nobody.
    """
    global _unsigned, _pays
    if unsigned and requester_pays:
        raise ConfigError(
            "unsigned reads and requester_pays exclude each other", "who pays has to sign"
        )
    _unsigned, _pays = unsigned, requester_pays


def read_access() -> ReadAccess:
    """What options say, else AWS_NO_SIGN_REQUEST or AWS_UNSIGNED, and AWS_REQUEST_PAYER."""
    unsigned, pays = _unsigned, _pays
    if unsigned is None:
        said = [os.environ.get(name, "") for name in ("AWS_NO_SIGN_REQUEST", "AWS_UNSIGNED")]
        unsigned = any(v.upper() in _YES for v in said) if any(said) else None
    if pays is None:
        pays = os.environ.get("AWS_REQUEST_PAYER", "").lower() == "requester" and not _unsigned
    return ReadAccess(unsigned and not pays, pays)
