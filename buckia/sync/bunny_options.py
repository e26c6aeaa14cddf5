"""How to speak to Bunny."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from buckia.sync.settings import check_choice, check_count, check_flags, check_seconds, check_text


@dataclass(frozen=True, slots=True)
class BunnyOptions:
    """Timeouts are seconds. Raises `UsageError` for values that make no sense."""

    verify_puts: bool = True
    """Each put is proven by a DESCRIBE; see `buckia.sync.bunny`."""
    transport: Literal["direct", "bunnycdnpython"] = "direct"
    """Who moves objects' bytes: we, or the package of that name, each of whose calls is checked afterwards."""
    content_type: str | None = None
    """What the CDN is to say that objects are; without it it goes by the ends of their names."""
    cdn_url: str | None = None
    """Where the pull zone is reached (``https://NAME.b-cdn.net``); objects that never change are read there."""
    pull_zone: str | None = None
    """Name or number of the pull zone."""
    api_url: str = "https://api.bunny.net"
    """The Core API."""
    object_bytes_max: int = 5 << 30
    """Largest object that is sent; Bunny states no limit."""
    connect_timeout: float = 10.0
    read_timeout: float = 60.0
    max_workers: int = 16
    """Connections that are kept open."""

    def __post_init__(self) -> None:
        check_flags(self, "verify_puts")
        check_choice(self, "transport", ("direct", "bunnycdnpython"))
        check_text(self, "content_type", "cdn_url", "pull_zone", "api_url")
        check_count(self, "object_bytes_max", 1, 1 << 62, "a number of bytes")
        check_seconds(self, "connect_timeout", "read_timeout")
