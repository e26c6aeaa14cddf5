"""AWS S3 and everything that speaks its protocol, through botocore.

Every put is one request with a signed digest of the body, which the server checks: no object is stored that differs
from what was sent. The chunked bodies with trailing checksums, which several compatible servers refuse or store, are
not used. botocore's own retries are off; its credential chain, proxies (``HTTPS_PROXY``, ``NO_PROXY``) and
certificates (``AWS_CA_BUNDLE``) work as everywhere.
"""

from __future__ import annotations

import base64
import hashlib
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from importlib.util import find_spec
from typing import Any, Literal
from urllib.parse import quote, urlsplit

from buckia.errors import (
    AccessDenied,
    AuthenticationError,
    BucketError,
    BucketNotFound,
    BuckiaError,
    MissingExtraError,
    ObjectNotFound,
    PreconditionFailed,
    QuotaExceeded,
    RangeNotSatisfiable,
    Transient,
    UsageError,
)
from buckia.sync.base import BaseSync, Capabilities, ObjectInfo, Page, check_key

_BY_CODE: dict[str, type[BuckiaError]] = {
    **dict.fromkeys(("NoSuchKey", "NotFound", "404", "NoSuchVersion"), ObjectNotFound),
    **dict.fromkeys(("NoSuchBucket",), BucketNotFound),
    **dict.fromkeys(("InvalidRange", "416"), RangeNotSatisfiable),
    **dict.fromkeys(("PreconditionFailed", "412", "ConditionalRequestConflict"), PreconditionFailed),
    **dict.fromkeys(
        (
            *("InvalidAccessKeyId", "SignatureDoesNotMatch", "AuthorizationHeaderMalformed", "InvalidSecurity", "401"),
            *("ExpiredToken", "InvalidToken", "TokenRefreshRequired", "MissingSecurityHeader", "NotSignedUp"),
            *("RequestTimeTooSkewed", "RequestExpired"),
        ),
        AuthenticationError,
    ),
    **dict.fromkeys(("AccessDenied", "AllAccessDisabled", "AccountProblem", "403"), AccessDenied),
    **dict.fromkeys(
        ("QuotaExceeded", "InsufficientStorage", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "507"),
        QuotaExceeded,
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
_NO_BATCH_DELETE = frozenset(
    {"MissingContentMD5", "InvalidRequest", "InvalidArgument", "NotImplemented", "MethodNotAllowed", "InvalidDigest"}
)


@dataclass(frozen=True, slots=True)
class S3Options:
    """How to speak to a server. ``addressing`` ``auto`` means ``path`` at an own endpoint; timeouts are seconds."""

    addressing: Literal["auto", "path", "virtual"] = "auto"
    checksum: Literal["sha256", "md5"] = "sha256"
    """What a put carries for the server to check; ``md5`` is for servers that do not know ``x-amz-checksum-sha256``."""
    connect_timeout: float = 10.0
    read_timeout: float = 60.0
    max_workers: int = 16
    """Connections that are kept open."""
    profile: str | None = None
    """A profile of the shared AWS configuration files."""


class S3Sync(BaseSync):
    """A bucket of AWS, or of the compatible server at ``endpoint`` (``https://HOST[:PORT]``; a bare host means https).

    ``credentials`` has ``access_key_id`` and ``secret_access_key``, and ``session_token`` where there is one; without
    it botocore looks where it always does: environment, profiles, instance roles. Nothing is sent before the first
    request.
    """

    def __init__(
        self,
        bucket_name: str,
        *,
        region: str | None = None,
        endpoint: str | None = None,
        credentials: Mapping[str, str] | None = None,
        options: S3Options | None = None,
    ) -> None:
        if not _installed():
            raise MissingExtraError("S3 needs the package boto3.", hint='pip install "buckia[s3]"')
        self._bucket = bucket_name
        self._endpoint = None if endpoint is None else _checked_endpoint(endpoint)
        self._region = region or (None if endpoint is None else "us-east-1")
        self._credentials = dict(credentials or {})
        self._options = options or S3Options()
        self._client: Any = None
        self._client_lock = threading.Lock()
        self._batch_works = True
        where = "" if self._endpoint is None else f"?endpoint={self._endpoint}"
        super().__init__(f"s3://{bucket_name}{where}", Capabilities(conditional_put=True, batch_delete=1000, copy=True))

    def _put(self, key: str, data: memoryview, if_absent: bool) -> ObjectInfo:
        headers = {"IfNoneMatch": "*"} if if_absent else {}
        if self._options.checksum == "md5":
            headers["ContentMD5"] = _base64(hashlib.md5(data, usedforsecurity=False).digest())
        else:
            headers["ChecksumSHA256"] = _base64(hashlib.sha256(data).digest())
        # A memoryview goes to the socket as it is: no copy, no waiting for "100 Continue".
        answer = self._s3().put_object(Bucket=self._bucket, Key=key, Body=data, **headers)
        return ObjectInfo(key, len(data), _etag(answer))

    def _get(self, key: str, offset: int, length: int | None) -> bytes:
        part = {}
        if offset or length is not None:
            end = "" if length is None else offset + length - 1
            part["Range"] = f"bytes={offset}-{end}"
        answer = self._s3().get_object(Bucket=self._bucket, Key=key, **part)
        body = answer["Body"]
        try:
            data: bytes = body.read()
        finally:
            body.close()
        return data

    def _stat(self, key: str) -> ObjectInfo:
        answer = self._s3().head_object(Bucket=self._bucket, Key=key)
        return ObjectInfo(key, answer["ContentLength"], _etag(answer), {}, answer["LastModified"].timestamp())

    def _list(self, prefix: str, token: str | None) -> Page:
        position = {} if token is None else {"ContinuationToken": token}
        page = self._s3().list_objects_v2(Bucket=self._bucket, Prefix=prefix, **position)
        objects = [
            ObjectInfo(item["Key"], item["Size"], _etag(item), {}, item["LastModified"].timestamp())
            for item in page.get("Contents", ())
        ]
        if not page.get("IsTruncated"):
            return Page(objects)
        if not page.get("NextContinuationToken"):
            raise BucketError(f"{self.location} says that a listing goes on, and not where.")
        return Page(objects, [page["NextContinuationToken"]])

    def _delete(self, key: str) -> None:
        self._s3().delete_object(Bucket=self._bucket, Key=key)

    def _delete_many(self, keys: Sequence[str]) -> None:
        if self._batch_works:
            try:
                answer = self._s3().delete_objects(
                    Bucket=self._bucket, Delete={"Objects": [{"Key": key} for key in keys], "Quiet": True}
                )
            except self._s3().exceptions.ClientError as error:
                if error.response.get("Error", {}).get("Code") not in _NO_BATCH_DELETE:
                    raise
                self._batch_works = False
            else:
                for failed in answer.get("Errors", ()):
                    if failed.get("Code") != "NoSuchKey":
                        raise self._classify(failed, 0, {}, failed.get("Key", keys[0]))
                return
        for key in keys:
            self._count("delete")
            self._delete(key)

    def _copy(self, source: str, target: str) -> ObjectInfo:
        self._s3().copy_object(Bucket=self._bucket, Key=target, CopySource={"Bucket": self._bucket, "Key": source})
        self._count("stat")
        return self._stat(target)

    def _close(self) -> None:
        with self._client_lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def get_public_url(self, key: str) -> str:
        """The address of the object; it answers if the bucket is public."""
        check_key(key)
        if self._endpoint is not None:
            return f"{self._endpoint}/{self._bucket}/{quote(key)}"
        region = f".{self._region}" if self._region else ""
        return f"https://{self._bucket}.s3{region}.amazonaws.com/{quote(key)}"

    def _s3(self) -> Any:
        if self._client is None:
            with self._client_lock:
                if self._client is None:
                    self._client = self._connected()
        return self._client

    def _connected(self) -> Any:
        import botocore.config
        import botocore.session

        options = self._options
        addressing = options.addressing
        if addressing == "auto" and self._endpoint is not None:
            addressing = "path"
        config = botocore.config.Config(
            retries={"total_max_attempts": 1, "mode": "standard"},
            max_pool_connections=max(1, options.max_workers),
            connect_timeout=options.connect_timeout,
            read_timeout=options.read_timeout,
            tcp_keepalive=True,
            # What is signed is the digest that a put carries; signing the body would hash it twice.
            s3={"addressing_style": addressing, "payload_signing_enabled": False},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            # Keys are checked already; and botocore's check refuses a memoryview.
            parameter_validation=False,
            user_agent_extra="buckia",
        )
        session = botocore.session.Session(profile=options.profile)
        client = session.create_client(
            "s3",
            region_name=self._region,
            endpoint_url=self._endpoint,
            aws_access_key_id=self._credentials.get("access_key_id"),
            aws_secret_access_key=self._credentials.get("secret_access_key"),
            aws_session_token=self._credentials.get("session_token"),
            config=config,
        )
        client.meta.events.register("before-sign.s3.DeleteObjects", _add_content_md5)
        return client

    def _translate(self, error: Exception, key: str) -> BuckiaError | None:
        from botocore import exceptions as aws
        from botocore.parsers import ResponseParserError

        if isinstance(error, aws.ClientError):
            about = error.response.get("ResponseMetadata", {})
            return self._classify(
                error.response.get("Error", {}), about.get("HTTPStatusCode", 0), about.get("HTTPHeaders", {}), key
            )
        if isinstance(error, (aws.NoCredentialsError, aws.PartialCredentialsError, aws.CredentialRetrievalError)):
            return AuthenticationError(
                f"There are no credentials for {self.location}.",
                hint="Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a profile.",
            )
        if isinstance(error, aws.SSLError) and "EOF" not in str(error):
            return BucketError(
                f"{self.location}: {error}",
                hint="AWS_CA_BUNDLE names a file with the certificates of your own authority.",
            )
        passing = (aws.HTTPClientError, aws.ConnectionError, aws.IncompleteReadError, aws.ReadTimeoutError)
        if isinstance(error, (*passing, aws.ResponseStreamingError, ResponseParserError)):
            return Transient(f"{self.location}: {error}")
        if isinstance(error, (aws.ProfileNotFound, aws.ParamValidationError, aws.InvalidRegionError)):
            return UsageError(f"{self.location}: {error}")
        if isinstance(error, aws.BotoCoreError):
            return BucketError(f"{self.location}: {key}: {error}")
        return super()._translate(error, key)

    def _classify(self, answer: Mapping[str, Any], status: int, headers: Mapping[str, str], key: str) -> BuckiaError:
        code = str(answer.get("Code", status))
        said = answer.get("Message") or "no reason given"
        kind = _BY_CODE.get(code) or _BY_STATUS.get(status) or (Transient if status >= 500 else BucketError)
        if kind is BucketNotFound:
            return BucketNotFound(f"There is no bucket {self.location}.")
        if kind is ObjectNotFound:
            return ObjectNotFound(f"{self.location} holds no {key}.")
        message = f"{self.location}: {key}: {code}: {said}"
        if kind is Transient:
            return Transient(message, retry_after=_retry_after(headers))
        hint = "Set this machine's clock." if code in ("RequestTimeTooSkewed", "RequestExpired") else None
        return kind(message, hint=hint)


def _installed() -> bool:
    """Whether botocore is there; importing it would take half a second."""
    try:
        return find_spec("botocore") is not None
    except ImportError:
        return False


def _checked_endpoint(endpoint: str) -> str:
    address = endpoint if "://" in endpoint else f"https://{endpoint}"
    try:
        parts = urlsplit(address)
        valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise UsageError("An S3 endpoint has the form https://HOST or https://HOST:PORT.")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise UsageError("An S3 endpoint holds no credentials and no parameters.")
    return address.rstrip("/")


def _etag(answer: Mapping[str, Any]) -> str | None:
    etag = answer.get("ETag")
    return None if etag is None else str(etag).strip('"')


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks to wait: a number, or a date."""
    wish = headers.get("retry-after", "").strip()
    if wish.isdecimal():
        return float(wish)
    try:
        now = parsedate_to_datetime(headers["date"]).timestamp() if "date" in headers else time.time()
        return max(0.0, parsedate_to_datetime(wish).timestamp() - now)
    except ValueError:
        return None


def _add_content_md5(request: Any, **_: object) -> None:
    """Older servers demand it for batch deletes; botocore sends newer checksums only."""
    request.headers["Content-MD5"] = _base64(hashlib.md5(request.body, usedforsecurity=False).digest())


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode()
