"""The one exception family: every error a user can cause carries its own remedy."""

from __future__ import annotations


class OdcStatsError(Exception):
    """Base of all errors that are the input's fault, not the program's.

    `message` names the offending value in one line; `remedy` says what to do about it.
    """

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message, remedy)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        """One line: the message, then the remedy when there is one."""
        return f"{self.message} ({self.remedy})" if self.remedy else self.message


class ConfigError(OdcStatsError):
    """A wrong option, configuration key or selector. The command exits with 2."""


class DataError(OdcStatsError):
    """A dataset, file or task database that can't be used. The task fails by name; exit 1."""


class StoreError(OdcStatsError):
    """An output or input store that refuses (permissions, full disk, 5xx): never "absent"."""


class Cancelled(OdcStatsError):  # noqa: N818 - an outcome, not a fault
    """The work was told to stop (time limit, signal, lost lease) and published nothing."""
