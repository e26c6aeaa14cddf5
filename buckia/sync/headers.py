"""Headers of HTTP answers that mean the same at every provider."""

from __future__ import annotations

import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a host asks to wait: a number, or a date."""
    wish = headers.get("retry-after", "").strip()
    if wish.isdecimal():
        return float(wish)
    try:
        now = parsedate_to_datetime(headers["date"]).timestamp() if "date" in headers else time.time()
        return max(0.0, parsedate_to_datetime(wish).timestamp() - now)
    except ValueError:
        return None
