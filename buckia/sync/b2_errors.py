"""What Backblaze B2 and b2sdk say went wrong, as one error of the closed set of `buckia.sync.base`.

Exceptions are known by the names of their classes, as b2sdk does not export all of them and an adapter must not load it
to say what went wrong.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, TypeVar

from buckia.errors import (
    AccessDenied,
    AuthenticationError,
    BucketError,
    BucketNotFound,
    BuckiaError,
    ObjectNotFound,
    QuotaExceeded,
    RangeNotSatisfiable,
    Transient,
    UsageError,
)
from buckia.sync.headers import foreign

CAPS_HINT = (
    "Raise the cap in the Backblaze account under “Caps & Alerts”, or wait: daily ones are reset at midnight GMT."
)

_KINDS: dict[str, type[BuckiaError]] = {
    "b2sdk.CapExceeded": QuotaExceeded,
    "b2sdk.InvalidAuthToken": AuthenticationError,
    "b2sdk.Unauthorized": AccessDenied,
    "b2sdk.AccessDenied": AccessDenied,
    "b2sdk.NonExistentBucket": BucketNotFound,
    "b2sdk.BucketIdNotFound": BucketNotFound,
    "b2sdk.ResourceNotFound": ObjectNotFound,
    "b2sdk.FileAlreadyHidden": ObjectNotFound,
    "b2sdk.UnsatisfiableRange": RangeNotSatisfiable,
    "b2sdk.UnusableFileName": UsageError,
    "b2sdk.BadFileInfo": UsageError,
    "b2sdk.PotentialS3EndpointPassedAsRealm": UsageError,
    "b2sdk.TooManyRequests": Transient,
    "b2sdk.ServiceError": Transient,
    "b2sdk.RequestTimeout": Transient,
    "b2sdk.B2RequestTimeout": Transient,
    "b2sdk.B2ConnectionError": Transient,
    "b2sdk.ConnectionReset": Transient,
    "b2sdk.BrokenPipe": Transient,
    "b2sdk.UnknownHost": Transient,
    "b2sdk.BadUploadUrl": Transient,
    "b2sdk.UploadTokenUsedConcurrently": Transient,
    # The body was damaged on its way: what was hashed is what is in memory.
    "b2sdk.FileSha1Mismatch": Transient,
    "b2sdk.PartSha1Mismatch": Transient,
    "b2sdk.ChecksumMismatch": Transient,
    "b2sdk.TruncatedOutput": Transient,
    "b2sdk.B2Error": BucketError,
    "requests.TooManyRedirects": BucketError,
    "requests.RequestException": Transient,
    "urllib3.HTTPError": Transient,
}
_OTHER_SERVER = {
    *("b2sdk.ServiceError", "b2sdk.InvalidAuthToken", "b2sdk.UploadTokenUsedConcurrently", "b2sdk.BadUploadUrl"),
    *("b2sdk.B2ConnectionError", "b2sdk.ConnectionReset", "b2sdk.BrokenPipe", "b2sdk.UnknownHost"),
}
_BY_STATUS: dict[int, type[BuckiaError]] = {
    401: AccessDenied,
    403: AccessDenied,
    404: ObjectNotFound,
    408: Transient,
    416: RangeNotSatisfiable,
}
_ANSWER = re.compile(r"(?:Unknown error: )?(\d{3}) (\S+) ?(.*)", re.DOTALL)
"""How b2sdk words an answer that it has no class for."""
_SAID_MAX = 200

_FILE = ("fileName", "contentLength", "fileId", "uploadTimestamp")
_TELLS: dict[str, tuple[str, ...]] = {
    "copy_file": _FILE,
    "download_file_from_url": ("x-bz-file-id",),
    "get_download_authorization": ("authorizationToken",),
    "get_file_info_by_name": ("content-length", "x-bz-file-id", "x-bz-upload-timestamp"),
    "get_upload_part_url": ("uploadUrl", "authorizationToken"),
    "get_upload_url": ("uploadUrl", "authorizationToken"),
    "list_buckets": ("buckets",),
    "list_file_names": ("files", "nextFileName"),
    "list_file_versions": ("files", "nextFileName", "nextFileId"),
    "list_parts": ("parts", "nextPartNumber"),
    "list_unfinished_large_files": ("files", "nextFileId"),
    "start_large_file": ("fileId",),
    "upload_file": _FILE,
    "upload_part": ("contentLength", "contentSha1"),
}
"""Methods of the raw API, and the words without which an answer (or the headers of one) is not from B2."""

Told = TypeVar("Told")


def checked(method: str, answer: Told, location: str) -> Told:
    """An answer that has all that B2 tells in it; raises `BucketError` for one of somebody else."""
    names = _TELLS.get(method, ())
    if names and not (isinstance(answer, Mapping) and all(name in answer for name in names)):
        raise not_b2(location)
    return answer


def not_b2(location: str) -> BucketError:
    """The error for an answer that is not from B2."""
    return foreign(location, "Backblaze B2")


def translate(error: Exception, location: str, key: str) -> BuckiaError | None:
    """The error of the closed set that an exception of b2sdk or of the HTTP libraries below it means; ``None`` for
    what is a bug. Tokens, which some of b2sdk's messages hold, are left out.
    """
    names = _names(error)
    where = f"{location}: {key}" if key else location
    if (cause := behind(error)) is not error:
        return translate(cause, location, key) or BucketError(f"{where}: {_said(error)}")
    if "b2sdk.UnknownError" in names and (match := _ANSWER.fullmatch(str(error))) is not None:
        return _by_answer(int(match[1]), match[2], match[3], where)
    if "b2sdk.BadRequest" in names and "sha1" in str(error).lower():
        return Transient(f"{where}: {_said(error)}")
    if _is_about_certificates(error):
        hint = "REQUESTS_CA_BUNDLE names a file with the certificates of your own authority."
        return BucketError(f"{location}: {_said(error)}", hint=hint)
    kind = next((_KINDS[name] for name in names if name in _KINDS), None)
    if kind is not None:
        return _worded(kind, error, names, location, where)
    if isinstance(error, json.JSONDecodeError) and error.doc.lstrip()[:1] in ("", "<"):
        return not_b2(location)
    if isinstance(error, (json.JSONDecodeError, UnicodeDecodeError)):
        return Transient(f"{where}: an answer is not the JSON that it should be.")
    if isinstance(error, ValueError):
        return UsageError(f"{where}: {_said(error)}")
    return None


def behind(error: Exception) -> Exception:
    """The error that b2sdk took for an unknown failure and packed up, such as an answer that was cut short or a
    cancellation while a body is sent; any other is itself.
    """
    cause = error.__context__
    if "b2sdk.UnknownError" in _names(error) and isinstance(cause, Exception) and repr(cause) in str(error):
        return cause
    return error


def wants_other_server(error: Exception) -> bool:
    """The server that an upload went to has no room or does not know its token any more, so that another upload URL is
    to be asked for: normal routing, and no failure of the service.
    """
    return not _OTHER_SERVER.isdisjoint(_names(error)) and not _is_about_certificates(error)


def _names(error: Any) -> list[str]:
    """The class of an error and those above it, each after the package that it is from."""
    return [f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(error).__mro__]


def _is_about_certificates(error: Exception) -> bool:
    causes = (error, error.__cause__, error.__context__)
    return any("requests.SSLError" in _names(cause) for cause in causes) and "EOF" not in str(error)


def _worded(kind: type[BuckiaError], error: Exception, names: list[str], location: str, where: str) -> BuckiaError:
    if kind is BucketNotFound:
        return BucketNotFound(f"There is no bucket {location}.")
    if kind is ObjectNotFound:
        return ObjectNotFound(f"{where}: there is no such object.")
    if kind is QuotaExceeded:
        return QuotaExceeded(f"{location}: {_said(error)}", hint=CAPS_HINT)
    if "b2sdk.PotentialS3EndpointPassedAsRealm" in names:
        return UsageError(f"{location}: the endpoint speaks S3.", hint="Use the provider s3 for it.")
    if "b2sdk.AccessDenied" in names:
        # b2sdk words it as it thinks; what B2 says is "access_denied".
        return AccessDenied(f"{where}: Backblaze denies access: object lock, or encryption with a customer's key.")
    if "requests.TooManyRedirects" in names:
        status = getattr(getattr(error, "response", None), "status_code", "a redirect")
        hint = "Redirects are not followed: name the host itself."
        return BucketError(f"{where}: {status}: it is somewhere else.", hint=hint)
    if "b2sdk.InvalidAuthToken" in names:
        return AuthenticationError(
            f"{location}: Backblaze does not accept the token that it has just given.",
            hint="The application key may have been deleted: make a new one. Otherwise try again later.",
        )
    if "b2sdk.UploadTokenUsedConcurrently" in names:
        return Transient(f"{where}: two uploads used one upload URL.")
    if kind is Transient:
        throttled = "b2sdk.TooManyRequests" in names
        return Transient(f"{where}: {_said(error)}", retry_after=_retry_after(error), throttled=throttled)
    return kind(f"{where}: {_said(error)}")


def _by_answer(status: int, code: str, said: str, where: str) -> BuckiaError:
    """The meaning of a status and of a code that b2sdk does not know."""
    if code.endswith("cap_exceeded"):
        return QuotaExceeded(f"{where}: {code}: {_short(said) or 'a cap of the account is reached'}", hint=CAPS_HINT)
    kind = _BY_STATUS.get(status, BucketError)
    if code == "None":
        # The answer to HEAD has no body that could say more.
        hint = "The key may lack a capability, or a cap of the account may be reached." if status == 403 else None
        return kind(f"{where}: Backblaze refuses this ({status}) and gives no reason.", hint=hint)
    return kind(f"{where}: {status} {code}: {_short(said)}")


def _retry_after(error: Exception) -> float | None:
    wish = str(getattr(error, "retry_after_seconds", None))
    return float(wish) if wish.isdecimal() else None


def _said(error: Exception) -> str:
    """What b2sdk says; an answer without a body has no code and no message, and so says ``None`` for them."""
    return _short(re.sub(r"( None)+$", " without a reason", str(error))) or type(error).__name__


def _short(text: str) -> str:
    """The first line of a message; a proxy may have sent a page."""
    first = text.strip().partition("\n")[0]
    return first if len(first) <= _SAID_MAX else f"{first[:_SAID_MAX]}..."
