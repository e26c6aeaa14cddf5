"""Backblaze's own simulator of B2, from b2sdk, with what the service does and it does not.

`Simulator` takes the place of b2sdk's raw API. What is mended is named where it is: limits made for small tests, ids
that several buckets share, capabilities that are not looked at, hidden names that can be read, uploads in parts that
can be ended twice. Where it is right it is left alone.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator
from typing import Any

from b2sdk.v3 import BucketSimulator, RawSimulator, b2_url_decode
from b2sdk.v3.exception import (
    BadRequest,
    FileAlreadyHidden,
    FileNotPresent,
    InvalidAuthToken,
    Unauthorized,
    UnsatisfiableRange,
)

PART_BYTES_MIN = 5_000_000
COPY_BYTES_MAX = 5_000_000_000
LIST_COUNT_MAX = 10_000
_MILLISECONDS = 1_700_000_000_000
_FIRST_FILE_NUMBER = 99_999_999
"""Ids count down and are compared as texts, so all have as many digits."""


class Response:
    """A download; ``raw`` is the body. The simulator's own waits between pieces and knows no end of a range."""

    def __init__(self, token: str | None, file: Any, url: str, range_: tuple[int, int] | None = None) -> None:
        data = file.data_bytes
        if range_ is not None:
            if range_[0] >= len(data):
                raise UnsatisfiableRange
            data = data[range_[0] : range_[1] + 1]
        self.headers = file.as_download_headers(token)
        self.raw = io.BytesIO(data)

    def close(self) -> None:
        self.raw.close()


class Bucket(BucketSimulator):
    """A bucket of any number of versions, in which an unfinished upload or a hidden name is what it is at B2."""

    MAX_SIMPLE_COPY_SIZE = COPY_BYTES_MAX
    FIRST_FILE_NUMBER = _FIRST_FILE_NUMBER
    FIRST_FILE_ID = str(FIRST_FILE_NUMBER)
    RESPONSE_CLASS = Response

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.upload_url_counter = itertools.count()
        self.upload_timestamp_counter = itertools.count(_MILLISECONDS)
        # The simulator finds a bucket by the id of a file, so no two files have the same one.
        self.file_id_counter = self.api.file_ids

    def current(self, name: str) -> Any:
        """The newest version of a name, which may be a hide marker."""
        versions = sorted(key for key in [*self.file_name_and_id_to_file] if key[0] == name)
        for key in versions:
            file = self.file_name_and_id_to_file.get(key)
            if file is not None and file.action != "start":
                return file
        return None

    def visible(self, name: str) -> Any:
        """The version that a download gets."""
        file = self.current(name)
        if file is None or not file.is_visible():
            raise FileNotPresent(file_id_or_name=name)
        return file

    def list_file_names(
        self,
        token: str,
        start_file_name: str | None = None,
        max_file_count: int | None = None,
        prefix: str | None = None,
    ) -> dict[str, Any]:
        count = min(max_file_count or 100, LIST_COUNT_MAX)
        found: list[dict[str, Any]] = []
        seen = None
        for key in sorted(self.file_name_and_id_to_file):
            name = key[0]
            file = self.file_name_and_id_to_file.get(key)
            if name < (start_file_name or "") or not name.startswith(prefix or ""):
                continue
            # An unfinished upload hides nothing.
            if name == seen or file is None or file.action == "start":
                continue
            seen = name
            if not file.is_visible():
                continue
            if len(found) == count:
                return {"files": found, "nextFileName": name}
            found.append(file.as_list_files_dict(token))
        return {"files": found, "nextFileName": None}

    def download_file_by_name(self, token: str, file_name: str, **named: Any) -> Any:
        return self._download_file_sim(token, self.visible(file_name), named["url"], range_=named.get("range_"))

    def get_file_info_by_name(self, token: str, file_name: str) -> Any:
        return self.visible(file_name).as_download_headers(token)

    def hide_file(self, token: str, file_name: str) -> dict[str, Any]:
        file = self.current(file_name)
        if file is None:
            raise FileNotPresent(file_id_or_name=file_name)
        if file.action == "hide":
            raise FileAlreadyHidden(file_name)
        hidden: dict[str, Any] = super().hide_file(token, file_name)
        return hidden

    def unfinished(self, file_id: str) -> None:
        """Raises unless an upload in parts goes on under this id."""
        file = self.file_id_to_file.get(file_id)
        if file is None or file.action != "start":
            raise BadRequest(f"No active upload for: {file_id}", "bad_request")

    def finish_large_file(self, token: str, file_id: str, part_sha1_array: list[str]) -> dict[str, Any]:
        self.unfinished(file_id)
        parts = [part for part in self.file_id_to_file[file_id].parts if part is not None]
        if len(parts) != len(part_sha1_array):
            raise BadRequest("The parts are not those that were uploaded.", "bad_request")
        if any(part.content_length < self.api.MIN_PART_SIZE for part in parts[:-1]):
            raise BadRequest("A part is smaller than the smallest.", "bad_request")
        done: dict[str, Any] = super().finish_large_file(token, file_id, part_sha1_array)
        return done

    def cancel_large_file(self, file_id: str) -> dict[str, Any]:
        self.unfinished(file_id)
        done: dict[str, Any] = super().cancel_large_file(file_id)
        return done


class Simulator(RawSimulator):
    """B2's raw API in memory."""

    MIN_PART_SIZE = PART_BYTES_MIN
    BUCKET_SIMULATOR_CLASS = Bucket

    def __init__(self, b2_http: Any = None) -> None:
        super().__init__(b2_http)
        self.file_ids: Iterator[int] = itertools.count(_FIRST_FILE_NUMBER, -1)
        self.bucket_id_counter = itertools.count()
        self.download_tokens: dict[str, tuple[str, str]] = {}
        """Bucket id and prefix that a download token is good for."""

    def _assert_account_auth(
        self,
        api_url: str,
        token: str,
        account_id: str,
        capability: str,
        bucket_id: str | None = None,
        file_name: str | None = None,
    ) -> None:
        """Of the simulator's own one the restriction to buckets fails where it is not told the bucket, and a listing
        without a prefix passes a restriction to one.
        """
        key = self.auth_token_to_key.get(token)
        if key is None:
            raise InvalidAuthToken("", "bad_auth_token")
        if token in self.expired_auth_tokens:
            raise InvalidAuthToken("", "expired_auth_token")
        buckets = [bucket["id"] for bucket in key.buckets_or_none or ()]
        elsewhere = bool(buckets) and bucket_id is not None and bucket_id not in buckets
        name = file_name or ("" if capability == "listFiles" else None)
        misnamed = name is not None and not name.startswith(key.name_prefix_or_none or "")
        if account_id != key.account_id or capability not in key.capabilities or elsewhere or misnamed:
            raise Unauthorized("", "unauthorized")

    def list_buckets(
        self, api_url: str, token: str, account_id: str, bucket_id: Any = None, bucket_name: Any = None
    ) -> Any:
        """A key for certain buckets may ask for those only."""
        key = self.auth_token_to_key.get(token)
        names = [bucket["name"] for bucket in (key.buckets_or_none if key is not None else None) or ()]
        if names and bucket_name not in names:
            raise Unauthorized("", "unauthorized")
        return super().list_buckets(api_url, token, account_id, bucket_id, bucket_name)

    def download_file_from_url(self, token: str, url: str, range_: Any = None, encryption: Any = None) -> Any:
        """The simulator's own one looks at no token."""
        match = self.DOWNLOAD_URL_MATCHER.match(url)
        assert match is not None, url
        self._may_read(token, match["bucket_name"], b2_url_decode(match["file_name"]))
        return super().download_file_from_url(token, url, range_, encryption)

    def get_file_info_by_name(self, api_url: str, token: str, bucket_name: str, file_name: str) -> Any:
        """Neither does this one."""
        self._may_read(token, bucket_name, file_name)
        return super().get_file_info_by_name(api_url, token, bucket_name, file_name)

    def get_download_authorization(self, api_url: str, token: str, bucket_id: str, prefix: str, seconds: int) -> Any:
        """The token is remembered, so that it opens something."""
        answer = super().get_download_authorization(api_url, token, bucket_id, prefix, seconds)
        self.download_tokens[answer["authorizationToken"]] = (bucket_id, prefix)
        return answer

    def _may_read(self, token: str, bucket_name: str, file_name: str) -> None:
        bucket = self._get_bucket_by_name(bucket_name)
        if token in self.download_tokens:
            bucket_id, prefix = self.download_tokens[token]
            if bucket_id != bucket.bucket_id or not file_name.startswith(prefix):
                raise Unauthorized("", "unauthorized")
            return
        self._assert_account_auth(self.API_URL, token, bucket.account_id, "readFiles", bucket.bucket_id, file_name)

    def upload_file(self, upload_url: str, upload_auth_token: str, file_name: str, *rest: Any, **named: Any) -> Any:
        """A key for a prefix may not upload elsewhere."""
        key = self.auth_token_to_key[upload_auth_token.rpartition("/")[2]]
        if not file_name.startswith(key.name_prefix_or_none or ""):
            raise Unauthorized("", "unauthorized")
        return super().upload_file(upload_url, upload_auth_token, file_name, *rest, **named)

    def copy_file(self, api_url: str, token: str, source_file_id: str, *rest: Any, **named: Any) -> Any:
        """The simulator's own one forgets in which bucket the copy is."""
        if source_file_id not in self.file_id_to_bucket_id:
            raise FileNotPresent(file_id_or_name=source_file_id)
        answer = super().copy_file(api_url, token, source_file_id, *rest, **named)
        self.file_id_to_bucket_id[answer["fileId"]] = answer["bucketId"]
        return answer

    def update_bucket(self, api_url: str, token: str, account_id: str, bucket_id: str, **changes: Any) -> Any:
        """The simulator's own one refuses to remove all rules."""
        bucket = self._get_bucket_by_id(bucket_id)
        self._assert_account_auth(api_url, token, account_id, "writeBuckets", bucket_id)
        return bucket._update_bucket(**changes)

    def finish_large_file(self, api_url: str, token: str, file_id: str, part_sha1_array: list[str]) -> Any:
        """Of an id that it does not know it says so."""
        self._known(file_id)
        return super().finish_large_file(api_url, token, file_id, part_sha1_array)

    def cancel_large_file(self, api_url: str, token: str, file_id: str) -> Any:
        """The same."""
        self._known(file_id)
        return super().cancel_large_file(api_url, token, file_id)

    def _known(self, file_id: str) -> None:
        if file_id not in self.file_id_to_bucket_id:
            raise BadRequest(f"No active upload for: {file_id}", "bad_request")
