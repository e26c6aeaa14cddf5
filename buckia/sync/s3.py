"""AWS S3 and everything that speaks its protocol, through botocore.

Every put is one request with a digest of the body for the server to check, and counts as done when the answer tells of
the same bytes: by the SHA-256 that it repeats, else by an ETag that is their MD5. The chunked bodies with trailing
checksums, which several compatible servers refuse or store, are not used. botocore's own retries and redirects are off;
its credential chain, proxies (``HTTPS_PROXY``, ``NO_PROXY``) and certificates (``AWS_CA_BUNDLE``) work as everywhere.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import threading
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote, urlsplit

from buckia.errors import BucketError, BuckiaError, MissingExtraError, ObjectNotFound, Transient, UsageError
from buckia.sync.base import Attempt, BaseSync, ObjectInfo, Page, Verb, check_key
from buckia.sync.files import LocalFile
from buckia.sync.s3_admin import S3Admin
from buckia.sync.s3_client import (
    Connection,
    S3Options,
    check_parameters,
    digest_text,
    endpoint_of_environment,
    installed,
)
from buckia.sync.s3_errors import AWS_VARIABLES, Where, check_deleted, translate
from buckia.sync.s3_multipart import PartedUpload, part_bytes
from buckia.sync.s3_presets import PRESETS, Preset, find_preset
from buckia.sync.settings import checked_url

__all__ = ["SIGNED_SECONDS_MAX", "S3Options", "S3Sync"]

SIGNED_SECONDS_MAX = 7 * 86_400
"""How long a signed URL may be valid."""

_MD5 = re.compile("[0-9a-fA-F]{32}")
_OF_A_LISTING = frozenset({"IsTruncated", "Name", "KeyCount", "MaxKeys", "Contents"})
_NO_BATCH_DELETE = frozenset(
    ("MissingContentMD5 InvalidDigest InvalidRequest InvalidArgument NotImplemented MethodNotAllowed 501 405").split()
)


class S3Sync(BaseSync):
    """A bucket of AWS, or of the compatible server at ``endpoint`` (``https://HOST[:PORT]``; a bare host means https;
    by default ``AWS_ENDPOINT_URL_S3`` or ``AWS_ENDPOINT_URL``).

    ``credentials`` has ``access_key_id`` and ``secret_access_key``, and ``session_token`` where there is one; without
    it botocore looks where it always does: environment, profiles, instance roles. Nothing is sent before the first
    request.
    """

    paces_bodies = True
    _scheme: ClassVar[str] = "s3"
    _title: ClassVar[str] = "S3"
    _variables: ClassVar[tuple[str, str, str]] = AWS_VARIABLES
    _looks_for_credentials: ClassVar[bool] = True

    def __init__(
        self,
        bucket_name: str,
        *,
        region: str | None = None,
        endpoint: str | None = None,
        credentials: Mapping[str, str] | None = None,
        options: S3Options | None = None,
    ) -> None:
        if not installed():
            extra = f'pip install "buckia[{self._scheme}]"'
            raise MissingExtraError(f"{self._title} needs the package boto3.", hint=extra)
        self._bucket = bucket_name
        self._options = options or S3Options()
        endpoint = endpoint or endpoint_of_environment()
        endpoint = checked_url(endpoint, "An S3 endpoint") if endpoint else None
        self._preset, found = self._find_preset(endpoint)
        # botocore knows the region of AWS by other means, too: a profile, or its own variable.
        region = region or (found if endpoint else os.environ.get("AWS_REGION") or None)
        self._connection = Connection(self._preset, endpoint, region, dict(credentials or {}), self._options)
        self._checksum = self._connection.checksum
        self._client: Any = None
        self._client_lock = threading.Lock()
        self._batch_works = True
        where = "" if endpoint is None else f"?endpoint={endpoint}"
        super().__init__(f"{self._scheme}://{bucket_name}{where}", self._preset.capabilities)
        self._where = Where(self.location, bucket_name, region, self._variables)
        self._written = {"StorageClass": self._options.storage_class} if self._options.storage_class else {}
        self._check_settings()
        batch = self._preset.capabilities.batch_delete
        self.admin = S3Admin(self._where, self.call, lacks=self._preset.lacks, batch=batch)
        if self._options.cdn_url is not None:
            from buckia.sync.cdn import CdnReader

            self._cdn_url = checked_url(self._options.cdn_url, "The address of a CDN")
            timeouts = (self._options.connect_timeout, self._options.read_timeout)
            self.cdn = CdnReader(self._cdn_url, max_workers=self._options.max_workers, timeouts=timeouts)

    def _find_preset(self, endpoint: str | None) -> tuple[Preset, str]:
        host = (urlsplit(endpoint).hostname or "") if endpoint else "s3.amazonaws.com"
        preset, region = find_preset(host)
        rest = host.removeprefix(f"{self._bucket}.")
        if rest != host and preset.name not in ("minio", "generic") and find_preset(rest)[0] is preset:
            raise UsageError(f"The endpoint {host} begins with the name of the bucket.", hint=f"Leave it out: {rest}")
        wanted = PRESETS.get(self._options.preset, preset)
        return wanted, region if wanted is preset else wanted.region

    def _check_settings(self) -> None:
        if self._written and "storage_class" in self._preset.lacks:
            raise UsageError(f"{self.location} has no storage classes.")
        if not self._options.transfer_acceleration:
            return
        if not self._preset.aws or self._connection.endpoint is not None:
            raise UsageError(f"{self.location} has no transfer acceleration.", hint="Only AWS offers it.")
        if "." in self._bucket or self._options.addressing == "path":
            raise UsageError(
                "Transfer acceleration needs the bucket's name in the host's name, and no dots in it.",
                hint="Turn transfer_acceleration or path_style off.",
            )

    # Keys and bytes.

    def _put(self, key: str, data: memoryview, if_absent: bool) -> ObjectInfo:
        headers = dict(self._written)
        if if_absent:
            headers["IfNoneMatch"] = "*"
        if self._checksum == "md5":
            headers["ContentMD5"] = digest_text(hashlib.md5(data, usedforsecurity=False).digest())
        elif self._checksum == "sha256":
            headers["ChecksumSHA256"] = digest_text(hashlib.sha256(data).digest())
        # A memoryview goes to the socket as it is: no copy.
        answer = self._s3().put_object(Bucket=self._bucket, Key=key, Body=data, **headers)
        self._prove(key, data, headers, answer)
        return ObjectInfo(key, len(data), _etag(answer))

    def _prove(self, key: str, data: memoryview, sent: Mapping[str, str], answer: Mapping[str, Any]) -> None:
        """Raises `Transient` unless the answer to a put tells of these bytes; the cheapest proof comes first."""
        etag, repeated = _etag(answer), answer.get("ChecksumSHA256")
        if not etag:
            raise Transient(f"{self.location}: {key}: the answer has no ETag, so nobody says that it is stored.")
        if repeated and "ChecksumSHA256" in sent:
            right = repeated == sent["ChecksumSHA256"]
        elif not _MD5.fullmatch(etag) or str(answer.get("ServerSideEncryption", "")).startswith("aws:kms"):
            return  # such an ETag is no MD5: the digest that the server was sent has to do
        else:
            # Other kinds of ETags may look alike, so an unequal one is no failure yet: the bytes themselves decide.
            right = etag.lower() == _md5(data, sent) or self._holds(key, data)
        if not right:
            raise Transient(f"{self.location}: {key}: what is stored there is not what was sent.")

    def _holds(self, key: str, data: memoryview) -> bool:
        try:
            return self.get(key) == data
        except ObjectNotFound:
            return False

    def _get(self, key: str, offset: int, length: int | None) -> bytes:
        part = {}
        if offset or length is not None:
            end = "" if length is None else offset + length - 1
            part["Range"] = f"bytes={offset}-{end}"
        answer = self._s3().get_object(Bucket=self._bucket, Key=key, **part)
        with closing(answer["Body"]) as body:
            # Only the stream below it hands out bytes as soon as they are there.
            data = self._received(body._raw_stream.read1)
        if len(data) < answer.get("ContentLength", 0):
            raise Transient(f"{self.location}: {key}: {len(data)} bytes arrived instead of {answer['ContentLength']}.")
        if not _etag(answer):
            raise self._where.not_s3()
        return data

    def _stat(self, key: str) -> ObjectInfo:
        answer = self._s3().head_object(Bucket=self._bucket, Key=key)
        if not _etag(answer) or not {"ContentLength", "LastModified"} <= answer.keys():
            raise self._where.not_s3()
        return ObjectInfo(key, answer["ContentLength"], _etag(answer), {}, answer["LastModified"].timestamp())

    def _list(self, prefix: str, token: str | None) -> Page:
        position = {} if token is None else {"ContinuationToken": token}
        page = self._s3().list_objects_v2(Bucket=self._bucket, Prefix=prefix, **position)
        if _OF_A_LISTING.isdisjoint(page):
            raise self._where.not_s3()  # and no empty bucket
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
            from botocore.exceptions import ClientError

            batch = {"Objects": [{"Key": key} for key in keys], "Quiet": True}
            try:
                answer = self._s3().delete_objects(Bucket=self._bucket, Delete=batch)
            except ClientError as error:
                if error.response.get("Error", {}).get("Code") not in _NO_BATCH_DELETE:
                    raise
                self._batch_works = False
            else:
                check_deleted(answer, self._where)
                return
        for key in keys:
            self._count("delete")
            self._delete(key)

    def _copy(self, source: str, target: str) -> ObjectInfo:
        origin = {"Bucket": self._bucket, "Key": source}
        self._s3().copy_object(Bucket=self._bucket, Key=target, CopySource=origin, **self._written)
        self._count("stat")
        return self._stat(target)

    def _close(self) -> None:
        with self._client_lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _translate(self, error: Exception, key: str) -> BuckiaError | None:
        return translate(error, key, self._where) or super()._translate(error, key)

    # Files and addresses.

    def upload_file(
        self, local_path: str | os.PathLike[str], key: str, *, attempt: Attempt = lambda verb, call: call()
    ) -> ObjectInfo:
        """Writes a local file as one object: in parts, side by side, if it is larger than ``multipart_threshold``.

        Goes on with an upload that an interrupted run left; one that fails is aborted. Raises `LocalError` if the file
        is changed while it is read.
        """
        check_key(key)
        file = LocalFile(Path(local_path))
        if file.size <= min(self._options.multipart_threshold, self.capabilities.object_bytes_max):
            return super().upload_file(local_path, key, attempt=attempt)
        if file.size > self._preset.file_bytes_max:
            raise BucketError(f"{file.path} is larger than an object of {self.location} may be.")
        workers = min(self._options.max_workers, self.capabilities.concurrency.get("put", self._options.max_workers))
        upload = PartedUpload(
            self.call, attempt, key, file, part_bytes(file.size), workers, self._written, self._uploading
        )
        return upload.run()

    def _uploading(self, count: int) -> None:
        if self.pacer is not None and self.pacer.limits_bytes:
            self.pacer.uploading(count)

    def get_public_url(self, key: str) -> str:
        """The address of the object: at the CDN if there is one, else at the bucket, where it answers if that is
        public.
        """
        check_key(key)
        if self._options.cdn_url is not None:
            return f"{self._cdn_url}/{quote(key)}"
        endpoint, region = self._connection.endpoint, self._connection.region
        if endpoint is None:
            host = f"s3.{region}.amazonaws.com" if region else "s3.amazonaws.com"
            endpoint = f"https://{host}.cn" if (region or "").startswith("cn-") else f"https://{host}"
        if "." in self._bucket or self._connection.addressing == "path":
            return f"{endpoint}/{self._bucket}/{quote(key)}"
        scheme, _, rest = endpoint.partition("://")
        return f"{scheme}://{self._bucket}.{rest}/{quote(key)}"

    def signed_url(self, key: str, expires: int) -> str:
        """An address at which anybody can read the object for ``expires`` seconds, 1 to 604,800; with temporary
        credentials not longer than these are valid.
        """
        check_key(key)
        if not 1 <= expires <= SIGNED_SECONDS_MAX:
            raise UsageError("A signed URL is valid for 1 second to 7 days.")
        about = {"Bucket": self._bucket, "Key": key}
        try:
            return str(self._s3().generate_presigned_url("get_object", Params=about, ExpiresIn=expires))
        except Exception as error:
            translated = self._translate(error, key)
            if translated is None:
                raise
            raise translated from error

    # The client.

    def call(self, verb: Verb, operation: str, key: str = "", **parameters: Any) -> Any:
        """One request of the bucket's API by the name of botocore's method, for verbs that `BaseSync` does not have.

        Counted as ``verb``, with its errors translated. Raises `UsageError` for settings of the bucket that the API
        does not know.
        """
        if key:
            parameters["Key"] = key
        body = parameters.get("Body")
        with self._request(verb, key):
            client = self._s3()
            if operation.startswith("put_bucket_"):
                check_parameters(client, operation, {"Bucket": self._bucket, **parameters})
            answer = getattr(client, operation)(Bucket=self._bucket, **parameters)
        if body is not None:
            self._count_bytes(uploaded=len(body))
        return answer

    def _s3(self) -> Any:
        if self._client is None:
            with self._client_lock:
                if self._client is None:
                    if not self._looks_for_credentials and not self._connection.credentials.get("access_key_id"):
                        raise self._where.no_credentials()
                    self._client = self._connection.open(self._body)
        return self._client


def _etag(answer: Mapping[str, Any]) -> str | None:
    etag = answer.get("ETag")
    return None if etag is None else str(etag).strip('"')


def _md5(data: memoryview, sent: Mapping[str, str]) -> str:
    if "ContentMD5" in sent:
        return base64.b64decode(sent["ContentMD5"]).hex()
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
