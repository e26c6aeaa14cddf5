"""Every error that buckia raises, as one tree.

::

    BuckiaError                     exit code 1
      UsageError                    2    a wrong argument or configuration
        ConfigError
        MissingExtraError
      AuthenticationError           3
      BucketError                   4    the network or the provider
        ObjectNotFound              6
        BucketNotFound              6
        RangeNotSatisfiable
        PreconditionFailed
        AccessDenied                3
        QuotaExceeded
        Transient                        the only one that is retried
      LocalError                    5    permissions, disk full
      NotFoundError                 6    no such folder, snapshot or path
      FormatError                   7    bytes that no writer of this format makes
        UnsupportedFormatError           a newer or unknown format
      IntegrityError                8    bytes that are not what their name says
        RollbackError                    the bucket shows an older state than was seen before
        ForkError                        two histories under one device
      ConflictsPending              9
      RefusedError                 10    needs a confirmation
        BusyError                        another buckia works on this folder
      CancelledError              130    Ctrl-C (143: SIGTERM)

A message is one sentence that says what is wrong and where; ``hint`` says what to do.
"""

from __future__ import annotations

_hidden: set[str] = set()


def hide(*secrets: str) -> None:
    """Never show these in a traceback that this process prints."""
    _hidden.update(secrets)


def masked(text: str) -> str:
    """The text without the secrets that were named to `hide`, although a library or a server may have put them in."""
    for secret in sorted(_hidden.copy(), key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


class BuckiaError(Exception):
    """Base class of all errors. ``exit_code`` is what the command returns."""

    exit_code = 1
    result: object = None
    """Where several folders were to be synced: what came of them all the same, a `SyncResult` or a `Plan`."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(BuckiaError):
    """An argument that makes no sense."""

    exit_code = 2


class ConfigError(UsageError):
    """A configuration file that is missing, malformed or contradicts itself."""


class MissingExtraError(UsageError):
    """An optional dependency is needed and not installed."""


class AuthenticationError(BuckiaError):
    """The provider does not accept the credentials, or there are none."""

    exit_code = 3


class BucketError(BuckiaError):
    """The bucket or the way to it failed, and trying again would not help."""

    exit_code = 4


class ObjectNotFound(BucketError):
    """There is no object with this key."""

    exit_code = 6


class BucketNotFound(BucketError):
    """There is no such bucket (or local directory)."""

    exit_code = 6


class RangeNotSatisfiable(BucketError):
    """The object is shorter than the range that was asked for."""


class PreconditionFailed(BucketError):
    """A conditional write found another state."""


class AccessDenied(BucketError):
    """The credentials are valid and do not permit this."""

    exit_code = 3


class QuotaExceeded(BucketError):
    """The provider or the disk of a local bucket has no room left."""


class Transient(BucketError):
    """A failure that may pass: ``retry_after`` is the provider's wish in seconds, if it named one; ``throttled`` says
    that it wants fewer requests.
    """

    def __init__(
        self, message: str, *, retry_after: float | None = None, throttled: bool = False, hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after
        self.throttled = throttled


class LocalError(BuckiaError):
    """The local file system refused: permissions, no space, read-only."""

    exit_code = 5


class NotFoundError(BuckiaError):
    """No such folder, snapshot or path."""

    exit_code = 6


class FormatError(BuckiaError):
    """Bytes that no writer of this format makes."""

    exit_code = 7


class UnsupportedFormatError(FormatError):
    """A format version, kind or feature that this version does not know."""


class IntegrityError(BuckiaError):
    """Bytes that are not what their name promises, or an object that must exist and does not."""

    exit_code = 8


class RollbackError(IntegrityError):
    """The bucket no longer holds a record that this device has seen in it."""


class ForkError(IntegrityError):
    """One device has two different records with one number."""


class ConflictsPending(BuckiaError):
    """Conflicts wait for a decision."""

    exit_code = 9


class RefusedError(BuckiaError):
    """Nothing was changed, as the act needs a confirmation."""

    exit_code = 10


class BusyError(RefusedError):
    """Another buckia works on this folder."""


class CancelledError(BuckiaError):
    """The user or the system asked to stop. ``exit_code`` is 130 (Ctrl-C) or 128 + signal."""

    exit_code = 130

    def __init__(self, message: str = "Stopped.", *, signal: int = 2) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal
