"""``buckia bucket``: a check of what a bucket does, and the verbs of its provider; ``buckia url``."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from buckia.cli.common import interactive, session
from buckia.cli.options import Settings, Target, common_options, current_settings, transfer_options
from buckia.cli.output import count, note, out, out_json, plain, size, table
from buckia.errors import RefusedError, UsageError

if TYPE_CHECKING:
    from buckia.client import BuckiaClient
    from buckia.events import BucketCheck

_HELP = {"help_option_names": ["-h", "--help"]}
_EXPIRES = re.compile(r"([1-9][0-9]{0,8})([smhd]?)")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}

R = TypeVar("R")


def _bucket_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """``--from LOCATION`` or ``--bucket NAME``: which bucket; and limits of the transfer."""
    where = "Any folder of the bucket, s3://BUCKET/FOLDER for example."
    function = click.option("--bucket", metavar="NAME", help="The bucket entry of the configuration.")(
        transfer_options(function)
    )
    return click.option("--from", "location", metavar="LOCATION", help=where)(function)


_dry_run = click.option("-n", "--dry-run", is_flag=True, help="Print what would be sent, as JSON, and send nothing.")
_yes = click.option("-y", "--yes", is_flag=True, help="Do not ask.")


def _use(settings: Settings, location: str | None, bucket: str | None, act: Callable[[BuckiaClient], R]) -> R:
    with session(settings, Target(location, bucket)) as client:
        result = act(client)
    return result


def _document(name: str, kind: type) -> Any:
    """JSON of a file, or of stdin for ``-``; an array or an object as is asked for."""
    try:
        text = sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
        value = json.loads(text)
    except (OSError, ValueError) as error:
        raise UsageError(f"'{name}' holds no JSON that can be read: {error}.") from None
    if not isinstance(value, kind):
        raise UsageError(f"'{name}' must hold a JSON {'array' if kind is list else 'object'}.")
    return value


def _show_json(value: object) -> None:
    """What a provider says, for people and programs alike: JSON, in many lines unless --json is given."""
    if current_settings().json:
        out_json(value)
    else:
        out_lines = json.dumps(plain(value), indent=2, ensure_ascii=False, default=str).splitlines()
        for line in out_lines:
            out(line)


def _done(settings: Settings, text: str, **values: Any) -> int:
    if settings.json:
        out_json({"done": True, **values})
    elif not settings.quiet:
        out(text)
    return 0


def _confirm(question: str, yes: bool) -> None:
    """Raise RefusedError unless somebody agrees."""
    if yes or (interactive() and click.confirm(question, default=False, err=True)):
        return
    raise RefusedError(f"Not done: {question}", hint="--yes does it without asking.")


@click.group("bucket", context_settings=_HELP)
def bucket_command() -> None:
    """Check a bucket, and use what its provider offers beside storage.

    None of it is needed to sync. Keys count from the bucket's top. What a provider does not have it says.
    """


@bucket_command.command("check")
@click.option("--full", is_flag=True, help="Try every promise of an adapter: some 3,500 requests.")
@click.option("--pages/--no-pages", default=True, help="Write, list and delete 1,050 small objects as well.")
@_bucket_options
@common_options
def bucket_check_command(location: str | None, bucket: str | None, full: bool, pages: bool) -> int:
    """Try what the bucket does, show it, and remember it for later syncs.

    Small objects are written below _buckia-probe/ and removed again. The exit code is 4 if no folder should be kept
    here.
    """
    settings = current_settings()
    found = _use(settings, location, bucket, lambda client: client.bucket.check(pages=pages, full=full))
    if settings.json:
        out_json(found)
    else:
        show_check(found)
    return 0 if found.usable else 4


def show_check(found: BucketCheck) -> None:
    """Print what a bucket does, a line each."""
    words = {True: "yes", False: "NO", None: "not tried"}
    rows = (
        ("a read shows the write before it", words[found.read_after_write]),
        ("a listing shows the write before it", words[found.list_after_write]),
        ("nothing shows an object after its deletion", words[found.gone_after_delete]),
        ("parts of objects can be read", words[found.range_get]),
        ("writes can depend on that there is none yet", words[found.conditional_put]),
        ("listings tell a digest of the bytes", found.digest_in_listing or "no"),
        ("listings of more than 1,000 objects are complete", words[found.pages]),
    )
    out(found.location)
    for line in table(("", ""), rows)[1:]:
        out(f"  {line}")
    for promise in found.broken:
        out(f"  BROKEN: {promise}")
    out("It can hold folders." if found.usable else "Do not keep folders here: what is written may not be found again.")


# ---- policy, ACL, acceleration


@bucket_command.group("policy", context_settings=_HELP)
def policy_group() -> None:
    """Who may do what with the bucket, as the provider's policy document."""


@policy_group.command("get")
@_bucket_options
@common_options
def policy_get_command(location: str | None, bucket: str | None) -> int:
    """Print the policy; null if there is none."""
    _show_json(_use(current_settings(), location, bucket, lambda client: client.bucket.admin.get_policy()))
    return 0


@policy_group.command("set")
@click.argument("file")
@_yes
@_dry_run
@_bucket_options
@common_options
def policy_set_command(file: str, location: str | None, bucket: str | None, dry_run: bool, yes: bool) -> int:
    """Replace the policy by that of a JSON file, or of stdin for -."""
    policy = _document(file, dict)
    _confirm("Replace the bucket's policy, which says who may read and change it?", yes or dry_run)
    return _set(location, bucket, policy, dry_run, lambda admin: admin.set_policy(policy))


@policy_group.command("delete")
@_yes
@_bucket_options
@common_options
def policy_delete_command(location: str | None, bucket: str | None, yes: bool) -> int:
    """Remove the policy."""
    _confirm("Remove the bucket's policy?", yes)
    settings = current_settings()
    _use(settings, location, bucket, lambda client: client.bucket.admin.delete_policy())
    return _done(settings, "The policy is removed.")


def _set(location: str | None, bucket: str | None, value: object, dry_run: bool, act: Callable[[Any], None]) -> int:
    settings = current_settings()
    if dry_run:
        _show_json(value)
        return 0
    _use(settings, location, bucket, lambda client: act(client.bucket.admin))
    return _done(settings, "Done.")


@bucket_command.group("acl", context_settings=_HELP)
def acl_group() -> None:
    """The bucket's access control list."""


@acl_group.command("get")
@_bucket_options
@common_options
def acl_get_command(location: str | None, bucket: str | None) -> int:
    """Print owner and grants."""
    _show_json(_use(current_settings(), location, bucket, lambda client: client.bucket.admin.get_acl()))
    return 0


@acl_group.command("set")
@click.argument("name")
@_yes
@_dry_run
@_bucket_options
@common_options
def acl_set_command(name: str, location: str | None, bucket: str | None, dry_run: bool, yes: bool) -> int:
    """Set one of the ready-made lists: private, public-read and so on. All but private are asked about first."""
    _confirm(f"Open the bucket to others ({name})?", yes or dry_run or name == "private")
    return _set(location, bucket, {"acl": name}, dry_run, lambda admin: admin.set_acl(name))


@bucket_command.command("acceleration")
@click.argument("state", required=False, type=click.Choice(["on", "off"]))
@_bucket_options
@common_options
def acceleration_command(state: str | None, location: str | None, bucket: str | None) -> int:
    """Say whether transfer acceleration is on, or turn it on or off. It costs extra."""
    settings = current_settings()
    if state is None:
        on = _use(settings, location, bucket, lambda client: client.bucket.admin.get_acceleration())
        if settings.json:
            out_json({"acceleration": on})
        else:
            out("on" if on else "off")
        return 0
    _use(settings, location, bucket, lambda client: client.bucket.admin.set_acceleration(state == "on"))
    return _done(settings, f"Transfer acceleration is {state}.", acceleration=state == "on")


# ---- rules


@bucket_command.group("cors", context_settings=_HELP)
def cors_group() -> None:
    """Rules for browsers on other origins."""


@cors_group.command("get")
@_bucket_options
@common_options
def cors_get_command(location: str | None, bucket: str | None) -> int:
    """Print the rules."""
    _show_json(_use(current_settings(), location, bucket, lambda client: client.bucket.admin.get_cors()))
    return 0


@cors_group.command("set")
@click.argument("file")
@_dry_run
@_bucket_options
@common_options
def cors_set_command(file: str, location: str | None, bucket: str | None, dry_run: bool) -> int:
    """Replace the rules by the JSON array of a file, or of stdin for -; [] removes them."""
    rules = _document(file, list)
    return _set(location, bucket, rules, dry_run, lambda admin: admin.set_cors(rules))


@bucket_command.group("lifecycle", context_settings=_HELP)
def lifecycle_group() -> None:
    """Rules by which the provider removes or moves objects by itself."""


@lifecycle_group.command("get")
@_bucket_options
@common_options
def lifecycle_get_command(location: str | None, bucket: str | None) -> int:
    """Print the rules."""
    _show_json(_use(current_settings(), location, bucket, lambda client: client.bucket.admin.get_lifecycle()))
    return 0


@lifecycle_group.command("set")
@click.argument("file")
@click.option("--force", is_flag=True, help="Also rules that would remove what folders need.")
@_dry_run
@_bucket_options
@common_options
def lifecycle_set_command(file: str, location: str | None, bucket: str | None, force: bool, dry_run: bool) -> int:
    """Replace the rules by the JSON array of a file, or of stdin for -; [] removes them.

    A rule that could remove packs or records of a folder is refused: everything in a folder's repository is needed.
    """
    rules = _document(file, list)
    return _set(location, bucket, rules, dry_run, lambda admin: admin.set_lifecycle(rules, force=force))


# ---- objects


@bucket_command.command("metadata")
@click.argument("key")
@click.argument("values", nargs=-1, metavar="[NAME=VALUE]...")
@_bucket_options
@common_options
def metadata_command(key: str, values: Sequence[str], location: str | None, bucket: str | None) -> int:
    """Print an object's custom metadata, or replace it."""
    settings = current_settings()
    wanted: dict[str, str] = {}
    for value in values:
        name, found, text = value.partition("=")
        if not found or not name:
            raise UsageError(f"'{value}' is not NAME=VALUE.")
        wanted[name] = text
    if not values:
        _show_json(_use(settings, location, bucket, lambda client: client.bucket.admin.get_metadata(key)))
        return 0
    _use(settings, location, bucket, lambda client: client.bucket.admin.set_metadata(key, wanted))
    return _done(settings, f"The metadata of {key} is replaced.")


@bucket_command.command("hidden")
@click.argument("prefix", default="")
@click.option("--delete", is_flag=True, help="Delete them for good.")
@_yes
@_bucket_options
@common_options
def hidden_command(prefix: str, location: str | None, bucket: str | None, delete: bool, yes: bool) -> int:
    """List the versions of objects that listings do not show, below PREFIX; they cost storage."""
    return _listed(
        (location, bucket),
        _Verb("hidden version", lambda admin: admin.list_hidden(prefix), lambda admin: admin.delete_hidden(prefix)),
        delete=delete,
        yes=yes,
    )


@bucket_command.command("uploads")
@click.argument("prefix", default="")
@click.option("--abort", is_flag=True, help="End them, and free what they hold.")
@_yes
@_bucket_options
@common_options
def uploads_command(prefix: str, location: str | None, bucket: str | None, abort: bool, yes: bool) -> int:
    """List uploads in parts that were begun and not ended, below PREFIX; they cost storage."""
    return _listed(
        (location, bucket),
        _Verb("open upload", lambda admin: admin.list_uploads(prefix), lambda admin: admin.abort_uploads(prefix)),
        delete=abort,
        yes=yes,
    )


class _Verb:
    """Something that can be listed and removed."""

    def __init__(
        self, noun: str, show: Callable[[Any], Sequence[Mapping[str, Any]]], end: Callable[[Any], int]
    ) -> None:
        self.noun = noun
        self.show = show
        self.end = end


def _listed(where: tuple[str | None, str | None], verb: _Verb, *, delete: bool, yes: bool) -> int:
    settings = current_settings()
    found = _use(settings, *where, lambda client: [*verb.show(client.bucket.admin)])
    if not delete:
        if settings.json:
            out_json(found)
            return 0
        rows = [(str(row["key"]), size(row["size"]) if "size" in row else "", _time(row.get("time"))) for row in found]
        for line in table(("KEY", "SIZE", "TIME"), rows, right=(1,)) if rows else ():
            out(line)
        note(f"{count(len(found), verb.noun)}.")
        return 0
    if found:
        _confirm(f"Remove {count(len(found), verb.noun)} for good?", yes)
    ended = _use(settings, *where, lambda client: verb.end(client.bucket.admin)) if found else 0
    return _done(settings, f"{count(ended, verb.noun)} removed.", removed=ended)


def _time(seconds: object) -> str:
    if not isinstance(seconds, int | float):
        return ""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


@bucket_command.command("upload")
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@click.argument("key")
@_bucket_options
@common_options
def upload_command(file: str, key: str, location: str | None, bucket: str | None) -> int:
    """Write a file as one plain object, outside of every folder; large ones in parts."""
    settings = current_settings()
    parts = key.split("/")
    if any(part.startswith("_buckia") for part in parts):
        raise UsageError(f"'{key}' lies where only buckia itself writes.", hint="Choose a key without '_buckia'.")
    info = _use(settings, location, bucket, lambda client: client.bucket.upload(file, key))
    return _done(settings, f"Wrote {key}, {size(info.size)}.", key=key, size=info.size, etag=info.etag)


# ---- CDN


@bucket_command.command("zone")
@_bucket_options
@common_options
def zone_command(location: str | None, bucket: str | None) -> int:
    """Print the storage zone, and the pull zone in front of it."""

    def look(client: BuckiaClient) -> dict[str, Any]:
        admin = client.bucket.admin
        return {"storage_zone": admin.storage_zone(), "pull_zone": admin.pull_zone()}

    _show_json(_use(current_settings(), location, bucket, look))
    return 0


@bucket_command.command("purge")
@click.argument("keys", nargs=-1, metavar="[KEY]...")
@click.option("--prefix", is_flag=True, help="All objects whose keys begin so.")
@_yes
@_bucket_options
@common_options
def purge_command(keys: Sequence[str], location: str | None, bucket: str | None, prefix: bool, yes: bool) -> int:
    """Make the CDN forget objects; without keys all of its zone, which is asked first."""
    settings = current_settings()
    if not keys:
        _confirm("Make the CDN forget everything in its zone?", yes)
    made = _use(settings, location, bucket, lambda client: client.purge_cache(keys, prefix=prefix))
    return _done(settings, f"Purged, with {count(made, 'request')}.", requests=made)


@click.command("url")
@click.argument("key")
@click.option("--expires", metavar="TIME", help="Sign it, for 90s, 15m, 12h or 7d: whoever has it can read the object.")
@_bucket_options
@common_options
def url_command(key: str, location: str | None, bucket: str | None, expires: str | None) -> int:
    """Print the address of an object.

    KEY counts from the bucket's top. Without --expires it is the public address, which answers only if the bucket is
    public. Files of a folder lie in packs, together with others, and have no address of their own.
    """
    settings = current_settings()
    seconds = None if expires is None else _seconds(expires)
    address = _use(settings, location, bucket, lambda client: client.bucket.url(key, expires=seconds))
    if address is None:
        raise UsageError(
            "The bucket has no public address.", hint="Ask for a signed one with --expires, if it has those."
        )
    if settings.json:
        out_json({"key": key, "url": address, "expires": seconds})
    else:
        out(address)
    return 0


def _seconds(text: str) -> int:
    match = _EXPIRES.fullmatch(text)
    if match is None:
        raise UsageError(f"'{text}' is no time.", hint="Write 90s, 15m, 12h or 7d.")
    return int(match[1]) * _SECONDS[match[2]]
