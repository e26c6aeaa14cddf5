"""What HTTP answers mean at every provider alike."""

from __future__ import annotations

import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

from buckia.errors import BucketError


def foreign(where: str, protocol: str) -> BucketError:
    """The error that an answer means which no server of ``protocol`` gives, however good its status is."""
    return BucketError(
        f"{where}: the server there does not answer as {protocol}.",
        hint="Check the endpoint. A network in which you have to sign in first answers so, too.",
    )


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
