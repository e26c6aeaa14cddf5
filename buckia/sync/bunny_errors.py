"""What Bunny's storage hosts say went wrong, as one error of the closed set of `buckia.sync.base`.

**What a 400 means.** "Unable to process request" is Bunny's word for too many requests; so is a 400 without a word to a
listing or a delete, which have no other reason for it. To a put it means that body and checksum do not fit, or a bad
path. Bad paths are refused before any request, so unless the answer speaks of the path the body was damaged on its way,
and the put may be tried again.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from buckia.errors import (
    AuthenticationError,
    BucketError,
    BucketNotFound,
    BuckiaError,
    ObjectNotFound,
    Transient,
)
from buckia.sync.base import Verb
from buckia.sync.bunny_http import Answer

_BUSY = "unable to process request"


def refusal(answer: Answer, verb: Verb, key: str, location: str, url: str) -> BuckiaError:
    """The error that an answer of the host at ``url`` means, which is not the one that ``verb`` wants."""
    said = answer.said.lower()
    where = f"{location}: {key}"
    if answer.status == 401:
        writing = " To write it must not be the read-only one." if verb in ("put", "delete") else ""
        return AuthenticationError(
            f"{location}: {urlsplit(url).hostname} does not accept the password.",
            hint="storage_api_key is the password of the storage zone, not the key of the account; and the zone "
            f"must be in the region of this host.{writing}",
        )
    if answer.status == 400 and (_BUSY in said or (not said and verb in ("list", "delete"))):
        return Transient(f"{where}: 400: {answer.said or 'too many requests at a time'}", throttled=True)
    if answer.status == 400 and verb == "put" and ("checksum" in said or not ("path" in said or "name" in said)):
        return Transient(f"{where}: 400: {answer.said or 'what arrived is not what was sent'}")
    if answer.status == 404 and verb in ("get", "stat"):
        return ObjectNotFound(f"{location} holds no {key}.")
    if answer.status == 404 and verb == "put":
        return BucketNotFound(f"There is no storage zone {location}.")
    if answer.status == 404 and verb == "list":
        return BucketError(f"{where}: no listing came, but a web page.", hint=f"Is {url} Bunny's?")
    return answer.problem(where)


def no_password(zone: str) -> AuthenticationError:
    """There is no password of the storage zone."""
    return AuthenticationError(
        f"There is no password for the storage zone {zone}.",
        hint="Set BUNNY_STORAGE_API_KEY (storage_api_key); Bunny's panel shows it with the zone, FTP & API access.",
    )


def no_account_key() -> AuthenticationError:
    """There is no key of the account."""
    return AuthenticationError(
        "There is no key of the account at Bunny, which pull zones and purging need.",
        hint="Set BUNNYNET_API_KEY (api_key); Bunny's panel shows it under Account settings, API key.",
    )
