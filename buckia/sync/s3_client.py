"""How botocore is set up, and what of its own habits is turned off."""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from typing import Any, Literal
from urllib.parse import urlsplit

from buckia.errors import UsageError
from buckia.sync.s3_errors import ForeignAnswer
from buckia.sync.s3_multipart import PART_BYTES_MAX, PART_BYTES_MIN
from buckia.sync.s3_presets import PRESETS, Checksum, Preset, find_preset
from buckia.sync.settings import check_choice, check_count, check_flags, check_seconds, check_text

_PAGE = re.compile(rb"\s*(<\?xml[^>]*>\s*)?<(!doctype\s+)?html", re.IGNORECASE)
_ARCHIVES = ("GLACIER", "DEEP_ARCHIVE")
_WITH_BODY = (
    *("DeleteObjects", "PutBucketAcl", "PutBucketCors", "PutBucketLifecycleConfiguration", "PutBucketPolicy"),
    "PutBucketAccelerateConfiguration",
)


@dataclass(frozen=True, slots=True)
class S3Options:
    """How to speak to a server; what is ``auto`` or ``None`` comes from the preset. Raises `UsageError` for values that
    make no sense.
    """

    preset: str = "auto"
    """A name of `buckia.sync.s3_presets.PRESETS`; ``auto``: by the endpoint's host."""
    addressing: Literal["auto", "path", "virtual"] = "auto"
    checksum: Literal["auto", "sha256", "signature", "md5"] = "auto"
    connect_timeout: float = 10.0
    """Seconds, like the next one."""
    read_timeout: float = 60.0
    max_workers: int = 16
    """Connections that are kept open, and parts of one file that are sent at a time."""
    profile: str | None = None
    """A profile of the shared AWS configuration files."""
    storage_class: str | None = None
    """Of every object that is written."""
    transfer_acceleration: bool = False
    """Through the endpoint for acceleration; AWS only."""
    multipart_threshold: int = 64 << 20
    """`S3Sync.upload_file` sends larger files in parts; 5 MiB to 5 GiB."""
    cdn_url: str | None = None
    """Where objects that never change can be read as well."""

    def __post_init__(self) -> None:
        check_choice(self, "preset", ("auto", *PRESETS))
        check_choice(self, "addressing", ("auto", "path", "virtual"))
        check_choice(self, "checksum", ("auto", "sha256", "signature", "md5"))
        check_seconds(self, "connect_timeout", "read_timeout")
        check_text(self, "profile", "storage_class", "cdn_url")
        check_flags(self, "transfer_acceleration")
        sizes = "a number of bytes from 5 MiB to 5 GiB"
        check_count(self, "multipart_threshold", PART_BYTES_MIN, PART_BYTES_MAX, sizes)
        if self.storage_class in _ARCHIVES:
            raise UsageError(
                f"Objects of the storage class {self.storage_class} cannot be read at once, so no folder works there.",
                hint="GLACIER_IR and INTELLIGENT_TIERING can.",
            )


@dataclass(frozen=True, slots=True)
class Connection:
    """Whereto and as whom; what is ``None`` or missing is looked for by botocore where it always does."""

    preset: Preset
    endpoint: str | None
    region: str | None
    credentials: Mapping[str, str] = field(repr=False)
    options: S3Options

    @property
    def checksum(self) -> Checksum:
        """What a put carries for the server to check."""
        return self.preset.checksum if self.options.checksum == "auto" else self.options.checksum

    @property
    def addressing(self) -> Literal["path", "virtual"]:
        """Where the bucket's name stands; a name that no host can have stands in the path in any case."""
        wanted = self.options.addressing
        if wanted == "auto":
            return "virtual" if self.preset.aws else "path"
        return wanted

    def open(self, body: Callable[[memoryview], Any]) -> Any:
        """A client that sends ``body(data)`` where it is given ``data`` to put; nothing is sent yet. Raises
        `UsageError` if a profile names another endpoint.
        """
        import botocore.config
        import botocore.session

        options = self.options
        config = botocore.config.Config(
            retries={"total_max_attempts": 1, "mode": "standard"},
            signature_version="s3v4",
            max_pool_connections=max(1, options.max_workers),
            connect_timeout=options.connect_timeout,
            read_timeout=options.read_timeout,
            tcp_keepalive=True,
            s3={
                "addressing_style": self.addressing,
                "use_accelerate_endpoint": options.transfer_acceleration,
                # A digest among the headers is signed with them; signing the body as well would hash it twice.
                "payload_signing_enabled": self.checksum == "signature",
            },
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            # Keys are checked already; and botocore's check refuses a memoryview.
            parameter_validation=False,
            user_agent_extra="buckia",
        )
        client = botocore.session.Session(profile=options.profile).create_client(
            "s3",
            region_name=self.region,
            endpoint_url=self.endpoint,
            aws_access_key_id=self.credentials.get("access_key_id"),
            aws_secret_access_key=self.credentials.get("secret_access_key"),
            aws_session_token=self.credentials.get("session_token"),
            config=config,
        )
        if self.endpoint is None and not find_preset(urlsplit(client.meta.endpoint_url).hostname or "")[0].aws:
            raise UsageError(
                f"The AWS profile names another endpoint, {client.meta.endpoint_url}.",
                hint="Name it here as well: `endpoint`.",
            )
        _prepare(client, body, plain=self.checksum != "sha256")
        return client


def _prepare(client: Any, body: Callable[[memoryview], Any], *, plain: bool) -> None:
    """Changes what botocore does of itself; ``plain``: no newer checksum headers."""
    from botocore.handlers import add_expect_header

    events = client.meta.events
    # Servers that do not answer to "Expect: 100-continue" make every put of a file wait for a second.
    events.unregister("before-call.s3", add_expect_header)
    events.register("before-call.s3", _stay_in_region)
    events.register("response-received.s3", _refuse_pages)
    events.register("before-send.s3.PutObject", partial(_send, body))
    for operation in _WITH_BODY:
        events.register(f"before-sign.s3.{operation}", partial(_add_content_md5, plain=plain))


def _send(body: Callable[[memoryview], Any], request: Any, **_: object) -> None:
    """What was signed is the bytes; what is sent may be a file of them that keeps to a bandwidth."""
    if isinstance(request.body, memoryview):
        request.body = body(request.body)


def _refuse_pages(response_dict: Mapping[str, Any] | None, **_: object) -> None:
    """A page of a portal would count as an empty answer, or as a failure of the service."""
    body = response_dict and response_dict["status_code"] == 200 and response_dict["body"]
    if isinstance(body, bytes) and _PAGE.match(body):
        raise ForeignAnswer


def _stay_in_region(context: dict[str, Any], **_: object) -> None:
    """A bucket in another region is an error that names it, not a second request that nobody counts."""
    context.setdefault("s3_redirect", {})["redirected"] = True


def _add_content_md5(request: Any, plain: bool, **_: object) -> None:
    """Older servers demand it for batch deletes and settings of buckets; botocore sends newer checksums only."""
    request.headers["Content-MD5"] = digest_text(hashlib.md5(request.body or b"", usedforsecurity=False).digest())
    if plain:
        for header in [*request.headers]:
            if header.lower().startswith(("x-amz-checksum-", "x-amz-sdk-checksum-")):
                del request.headers[header]


def check_parameters(client: Any, operation: str, parameters: Mapping[str, Any]) -> None:
    """What botocore would do before every request, for those that are rare. Raises its ``ParamValidationError``."""
    from botocore.exceptions import ParamValidationError
    from botocore.validate import ParamValidator

    model = client.meta.service_model.operation_model(client.meta.method_to_api_mapping[operation])
    report = ParamValidator().validate(parameters, model.input_shape)
    if report.has_errors():
        raise ParamValidationError(report=report.generate_report())


def installed() -> bool:
    """Whether botocore is there; importing it would take half a second."""
    try:
        return find_spec("botocore") is not None
    except ImportError:
        return False


def endpoint_of_environment() -> str | None:
    """What botocore would take from the environment; it must be known before, as it decides what may be relied on."""
    if os.environ.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "").lower() == "true":
        return None
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None


def digest_text(digest: bytes) -> str:
    """A digest as headers have it."""
    return base64.b64encode(digest).decode()
