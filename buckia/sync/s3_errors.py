"""What S3 servers and botocore say, as one error of the closed set with a sentence of its own.

By code where there is one, else by HTTP status; an answer to HEAD has only that. 401, 403 and 404 never mean that
trying again helps, whatever code comes with them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from buckia.errors import (
    AccessDenied,
    AuthenticationError,
    BucketError,
    BucketNotFound,
    BuckiaError,
    ObjectNotFound,
    PreconditionFailed,
    QuotaExceeded,
    RangeNotSatisfiable,
    Transient,
    UsageError,
)
from buckia.sync.headers import foreign, retry_after

_BY_CODE: dict[str, type[BuckiaError]] = {
    **dict.fromkeys(("NoSuchKey", "NotFound", "NoSuchVersion", "NoSuchUpload"), ObjectNotFound),
    **dict.fromkeys(
        ("NoSuchBucketPolicy", "NoSuchLifecycleConfiguration", "NoSuchCORSConfiguration"),
        ObjectNotFound,
    ),
    "NoSuchBucket": BucketNotFound,
    "InvalidRange": RangeNotSatisfiable,
    **dict.fromkeys(("PreconditionFailed", "ConditionalRequestConflict"), PreconditionFailed),
    **dict.fromkeys(
        (
            *("InvalidAccessKeyId", "SignatureDoesNotMatch", "AuthorizationHeaderMalformed", "InvalidSecurity"),
            *("ExpiredToken", "InvalidToken", "TokenRefreshRequired", "MissingSecurityHeader", "NotSignedUp"),
            *("RequestTimeTooSkewed", "RequestExpired"),
        ),
        AuthenticationError,
    ),
    **dict.fromkeys(("AccessDenied", "AllAccessDisabled", "AccountProblem"), AccessDenied),
    **dict.fromkeys(
        ("QuotaExceeded", "InsufficientStorage", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded"), QuotaExceeded
    ),
    **dict.fromkeys(
        (
            *("SlowDown", "SlowDownRead", "SlowDownWrite", "Throttling", "ThrottlingException", "TooManyRequests"),
            *("RequestLimitExceeded", "RequestTimeout", "InternalError", "ServiceUnavailable", "OperationAborted"),
            # The body was damaged on its way: what was signed is what is in memory.
            *("BadDigest", "XAmzContentSHA256Mismatch", "IncompleteBody"),
        ),
        Transient,
    ),
    **dict.fromkeys(("NotImplemented", "MethodNotAllowed", "InvalidObjectState", "EntityTooLarge"), BucketError),
}
_BY_STATUS: dict[int, type[BuckiaError]] = {
    401: AuthenticationError,
    403: AccessDenied,
    404: ObjectNotFound,
    408: Transient,
    409: PreconditionFailed,
    412: PreconditionFailed,
    416: RangeNotSatisfiable,
    425: Transient,
    429: Transient,
    501: BucketError,
    507: QuotaExceeded,
}
AWS_VARIABLES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
"""The environment variables of a key's id, its secret and its session."""

_FINAL = (401, 403, 404)
_THROTTLES = re.compile("SlowDown.*|Throttling.*|TooManyRequests|RequestLimitExceeded")
_EXPECTED_REGION = re.compile(r"expecting '([a-z0-9-]+)'")
_RIGHTS = {
    "ListObjectsV2": ("list the bucket", "s3:ListBucket on the bucket"),
    "GetObject": ("read {key}", "s3:GetObject; without s3:ListBucket an object that is not there looks the same"),
    "HeadObject": ("read {key}", "s3:GetObject; without s3:ListBucket an object that is not there looks the same"),
    "DeleteObject": ("delete {key}", "s3:DeleteObject"),
    "DeleteObjects": ("delete {key}", "s3:DeleteObject"),
    "AbortMultipartUpload": ("abort an upload of {key}", "s3:AbortMultipartUpload"),
    "ListMultipartUploads": ("list uploads in parts", "s3:ListBucketMultipartUploads on the bucket"),
    "ListParts": ("list the parts of {key}", "s3:ListMultipartUploadParts"),
    **dict.fromkeys(
        ("PutObject", "CopyObject", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload"),
        ("write {key}", "s3:PutObject"),
    ),
}


@dataclass(frozen=True, slots=True)
class Where:
    """What messages say about the bucket: its location and name, the region that requests are signed for, and the
    environment variables of the key's id, its secret and its session.
    """

    location: str
    bucket: str
    region: str | None = None
    variables: tuple[str, str, str] = AWS_VARIABLES

    def no_credentials(self) -> AuthenticationError:
        """There are none at all."""
        return AuthenticationError(
            f"There are no credentials for {self.location}.",
            hint=f"Set {self.variables[0]} and {self.variables[1]}"
            + (", or name a profile." if self.variables is AWS_VARIABLES else "."),
        )

    def not_s3(self) -> BucketError:
        """What answers there is no server of S3."""
        return foreign(self.location, "S3")


@dataclass(frozen=True, slots=True)
class Answer:
    """An error that a server answered: its elements (``Code``, ``Message`` and more), and what came with them."""

    error: Mapping[str, Any]
    operation: str
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def code(self) -> str:
        """The server's word, else the status as text."""
        return str(self.error.get("Code") or self.status)

    @property
    def message(self) -> str:
        """What the server says about it."""
        return str(self.error.get("Message") or "no reason given")

    @property
    def right_region(self) -> str | None:
        """Where the bucket lies, if the server names another region than the request was signed for."""
        if self.code in ("PermanentRedirect", "TemporaryRedirect", "301", "307", "400"):
            return self.headers.get("x-amz-bucket-region") or self.error.get("Region")
        if self.code in ("AuthorizationHeaderMalformed", "IllegalLocationConstraintException"):
            said = _EXPECTED_REGION.search(self.message)
            return self.error.get("Region") or self.headers.get("x-amz-bucket-region") or (said and said[1]) or None
        return None

    def kind(self) -> type[BuckiaError]:
        """The class of error that it is."""
        by_status = _BY_STATUS.get(self.status) or (Transient if self.status >= 500 else BucketError)
        found = _BY_CODE.get(self.code, by_status)
        if found is AccessDenied and "cap exceeded" in self.message.lower():
            # Backblaze: the account's own limit for storage or requests.
            return QuotaExceeded
        return by_status if found is Transient and self.status in _FINAL else found


class ForeignAnswer(Exception):
    """What came is a web page."""


def classify(answer: Answer, key: str, where: Where) -> BuckiaError:
    """The error of the closed set for what a server answered about ``key``."""
    kind, place = answer.kind(), where.location
    if answer.right_region and answer.right_region != where.region:
        there = f", not in {where.region}" if where.region else ""
        return BucketError(
            f"The bucket {place} is in the region {answer.right_region}{there}.",
            hint=f"Set the region to {answer.right_region}.",
        )
    if kind is AuthenticationError:
        return _not_known(answer, where)
    if kind is AccessDenied:
        return _not_permitted(answer, key, where)
    if kind is BucketNotFound:
        return BucketNotFound(f"There is no bucket {place}.", hint="Check its name, region and endpoint, or create it.")
    if kind is ObjectNotFound and answer.code in ("NoSuchKey", "NotFound", "404") and key:
        return ObjectNotFound(f"{place} holds no {key}.")
    if kind is QuotaExceeded:
        return QuotaExceeded(f"There is no room left in {place} ({answer.code}: {answer.message}).")
    about = f"{place}: {key}" if key else place
    if kind is Transient:
        throttled = answer.status in (429, 503) or _THROTTLES.fullmatch(answer.code) is not None
        wait = retry_after(answer.headers)
        return Transient(f"{about}: {answer.code}: {answer.message}", retry_after=wait, throttled=throttled)
    sentence, hint = _final(answer)
    return kind(f"{about}: {sentence}", hint=hint)


def check_deleted(answer: Mapping[str, Any], where: Where) -> None:
    """Raises what a batch delete says of the first object that it could not delete; one that is not there is fine."""
    for failed in answer.get("Errors", ()):
        if failed.get("Code") not in ("NoSuchKey", "NoSuchVersion"):
            raise classify(Answer(failed, "DeleteObjects"), str(failed.get("Key", "")), where)


def _final(answer: Answer) -> tuple[str, str | None]:
    if answer.code in ("NotImplemented", "MethodNotAllowed", "501", "405"):
        return f"the server does not offer this ({answer.operation}: {answer.code}).", None
    if 300 <= answer.status < 400:
        return f"{answer.code}: it is somewhere else.", "Redirects are not followed: name the right region or endpoint."
    if answer.code == "InvalidObjectState":
        return "the object lies in an archive and cannot be read.", "Restore it with the provider's tools first."
    if answer.code == "AccessControlListNotSupported":
        return (
            "access control lists are switched off for this bucket, as for all new ones of AWS.",
            "Use a policy (`buckia bucket policy`), or set the bucket's object ownership to “bucket owner preferred”.",
        )
    if answer.code == "EntityTooLarge":
        return "the object is larger than the server takes at once.", None
    if answer.code == "MalformedXML":
        return f"the server does not understand this request ({answer.operation}: {answer.message}).", None
    return f"{answer.code}: {answer.message}", None


def _not_known(answer: Answer, where: Where) -> AuthenticationError:
    """Who asks is not known, or not any more."""
    identity, secret, session = where.variables
    sentence, hint = {
        "InvalidAccessKeyId": (
            "does not know this access key id",
            f"Check access_key_id ({identity}): it belongs to one account of one provider.",
        ),
        "SignatureDoesNotMatch": (
            "does not accept the secret access key",
            f"Check secret_access_key ({secret}): it is not the one that belongs to the access key id.",
        ),
        **dict.fromkeys(
            ("ExpiredToken", "TokenRefreshRequired"),
            (
                "does not accept the session token any more, as it has expired",
                f"Get new temporary credentials, and set all three of {identity}, {secret} and {session}.",
            ),
        ),
        "InvalidToken": (
            "does not accept the session token",
            f"Check session_token ({session}); a key that is not temporary has none.",
        ),
        **dict.fromkeys(
            ("RequestTimeTooSkewed", "RequestExpired"),
            ("refuses the time of this machine's clock", "Set this machine's clock; it may differ by 15 minutes."),
        ),
        "NotSignedUp": (
            "says that the account has not signed up for storage",
            "Complete it in the provider's console.",
        ),
    }.get(answer.code, (f"does not accept the credentials ({answer.code})", f"Check {identity} and {secret}."))
    return AuthenticationError(f"{where.location} {sentence}.", hint=hint)


def _not_permitted(answer: Answer, key: str, where: Where) -> AccessDenied:
    """Who asks is known, and may not do it."""
    if answer.code in ("AllAccessDisabled", "AccountProblem"):
        return AccessDenied(
            f"The account of {where.location} is blocked ({answer.code}).", hint="Look at the provider's console."
        )
    if answer.code == "ServiceUnavailable":
        return AccessDenied(
            f"{where.location} does not speak S3.", hint="A zone of Bunny must be created with S3 compatibility."
        )
    what, right = _RIGHTS.get(answer.operation, (f"do this ({answer.operation})", f"s3:{answer.operation}"))
    return AccessDenied(
        f"{where.location}: these credentials may not {what.format(key=key or 'objects')}.",
        hint=f"The right that is needed: {right}.",
    )


def translate(error: Exception, key: str, where: Where) -> BuckiaError | None:
    """The error of the closed set that an exception of botocore or urllib3 means; ``None`` for any other one."""
    from botocore import exceptions as aws
    from botocore.parsers import ResponseParserError
    from urllib3.exceptions import HTTPError

    if isinstance(error, aws.ClientError):
        about = error.response.get("ResponseMetadata", {})
        status, headers = about.get("HTTPStatusCode", 0), about.get("HTTPHeaders", {})
        return classify(Answer(error.response.get("Error", {}), error.operation_name, status, headers), key, where)
    if isinstance(error, (aws.NoCredentialsError, aws.PartialCredentialsError)):
        return where.no_credentials()
    if isinstance(error, (aws.SSOError, aws.TokenRetrievalError, aws.CredentialRetrievalError)):
        return AuthenticationError(
            f"The credentials for {where.location} cannot be had: {error}",
            hint="If they come from a sign-on, it may have expired: `aws sso login`.",
        )
    if isinstance(error, aws.SSLError) and "EOF" not in str(error):
        return BucketError(
            f"{where.location}: {error}",
            hint="AWS_CA_BUNDLE names a file with the certificates of your own authority.",
        )
    if isinstance(error, ForeignAnswer):
        return where.not_s3()
    if isinstance(error, ResponseParserError):
        # Its own text holds all that came.
        return Transient(f"{where.location}: an answer is not the XML that it should be.")
    passing = (aws.HTTPClientError, aws.ConnectionError, aws.IncompleteReadError, aws.ReadTimeoutError)
    if isinstance(error, (*passing, HTTPError)):
        return Transient(f"{where.location}: {error}")
    if isinstance(error, aws.ParamValidationError):
        return UsageError(f"{where.location}: " + "; ".join(str(error.kwargs["report"]).splitlines()))
    if isinstance(error, (aws.ProfileNotFound, aws.InvalidRegionError)):
        return UsageError(f"{where.location}: {error}")
    if isinstance(error, aws.BotoCoreError):
        return BucketError(f"{where.location}: {key}: {error}")
    return None
