"""Targets for text that people write or other devices send: configuration, locations, ignore files, names; and for the
rows of the local state.
"""

from __future__ import annotations

import ntpath
import posixpath
from contextlib import suppress
from datetime import date, time
from pathlib import Path

from buckia.config import text as config_text
from buckia.config.file import BuckiaConfig
from buckia.config.text import TextFormat
from buckia.core.manifest import FileContent, check_name
from buckia.errors import FormatError
from buckia.local import paths
from buckia.local.filters import Filters
from buckia.local.paths import IGNORE_FILE, Platform
from buckia.local.rows import Row, decode_rows, encode_rows
from buckia.location import Location, check_endpoint, check_folder_id, check_prefix
from fuzz.target import TEXT_REFUSALS, accepted, behind, law, target

_BASE = Path("/fuzz/base")
_WRITTEN: tuple[TextFormat, ...] = ("yaml", "json")
_PATHS = ("a", "a/b", "a/b.txt", "caf\u00e9/x", ".git/config", "node_modules/a/b", f"a/{IGNORE_FILE}", "x y/\\z")


def _config(data: bytes, text_format: TextFormat) -> None:
    text = data.decode("utf-8", "replace")
    document = config_text.parse(text, name="fuzz", text_format=text_format)
    law(all(line >= 1 for line in document.lines.values()), "lines count from one")
    law(document.where(("nowhere", "at all")).startswith("fuzz"), "everything is somewhere")
    config = BuckiaConfig.from_text(text, text_format=text_format)
    with accepted():
        shown = _shown(config)
        for written in _WRITTEN:
            again = BuckiaConfig.from_text(config.to_text(written, reveal=True), text_format=written)
            law(_shown(again) == shown, f"what is written as {written} can be read back")


def _shown(config: BuckiaConfig) -> dict[str, object]:
    """The entries' settings; of numbers in keys without a type only that they are there: YAML may make them text."""
    return {name: _numberless(bucket.dump(reveal=True)) for name, bucket in config.items()}


def _numberless(value: object) -> object:
    if isinstance(value, dict):
        return {str(key): _numberless(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return list(map(_numberless, value))
    if isinstance(value, bool | None):
        return value
    if isinstance(value, date | time):
        return str(value)
    with suppress(ValueError):
        return type(float(str(value)))
    return value


@target("config-yaml", config_text.parse, refusals=TEXT_REFUSALS)
def fuzz_yaml(data: bytes) -> None:
    _config(data, "yaml")


@target("config-toml", config_text.parse, refusals=TEXT_REFUSALS)
def fuzz_toml(data: bytes) -> None:
    _config(data, "toml")


@target("config-json", config_text.parse, refusals=TEXT_REFUSALS)
def fuzz_json(data: bytes) -> None:
    _config(data, "json")


@target("location", Location.parse, check_folder_id, check_prefix, check_endpoint, refusals=TEXT_REFUSALS)
def fuzz_location(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")  # as the arguments of a command are read
    for check in (check_prefix, check_endpoint):
        with suppress(ValueError):
            law(check(check(text)) == check(text), "what was checked stays as it is")
    location = Location.parse(text, base=_BASE)
    with accepted():
        law(check_folder_id(location.folder) == location.folder, "a location names a folder")
        again = Location.parse(location.display, base=_BASE)
        law(again == location, "what is shown can be typed again")


@target("ignore", Filters.add_ignore_file, Filters.covers, refusals=())
def fuzz_ignore(data: bytes) -> None:
    filters = Filters()
    filters.add_ignore_file("", data)
    filters.add_ignore_file("a", data)
    law(len(filters.warnings) <= 2 * (data.count(b"\n") + len(data)), "a line has one warning")
    for path in _PATHS:
        covered = filters.covers(path, False)
        law(filters.covers(path, False) == covered, "a verdict does not change")
        above = path.rpartition("/")[0]
        law(not covered or not above or path.endswith(IGNORE_FILE) or filters.covers(above, True), "as in git")
        law(filters.covers(path, True) == filters.descends(path) or path.endswith(IGNORE_FILE), "one verdict")
    law(len(filters.key()) == 32 and len(filters.salt("a/b")) == 32, "a scope has an identity")


@target("chosen-path", Filters, refusals=TEXT_REFUSALS)
def fuzz_chosen(data: bytes) -> None:
    """The input: a chosen path; regular expressions are Python's, and their author's to get right."""
    filters = Filters(sync_paths=[data.decode("utf-8", "surrogateescape")])
    with accepted():
        for path in _PATHS:
            covered = filters.covers(path, False)
            above = path.rpartition("/")[0]
            law(not covered or not above or filters.descends(above), "what is covered is reached")


@target("name", paths.name_problem, check_name, refusals=(FormatError,))
def fuzz_name(data: bytes) -> None:
    problem = paths.name_problem(data, Platform.LINUX)
    top = paths.name_problem(data, Platform.LINUX, top=True)
    law(problem is None or top is not None, "the top refuses more")
    for platform in Platform:
        law(problem is None or paths.name_problem(data, platform) is not None, "Linux refuses least")
    text = data.decode("utf-8", "surrogateescape")
    with suppress(FormatError):
        check_name(data)
        law(problem in (None, "the name is reserved for buckia"), "what the format takes can be on a disk")
    for fold in (paths.fold_insensitive, paths.fold_normalising):
        folded = fold(data)
        law(fold(folded.encode("utf-8", "surrogateescape")) == folded, "folding again changes nothing")
    normal = paths.bucket_name(text)
    law(normal is None or paths.bucket_name(normal.decode()) == normal, "normalising again changes nothing")
    check_name(data)
    with accepted():
        law(problem is not None or paths.safe_join("/root", text) == f"/root/{text}", "a name is one component")


@target("link", paths.link_problem, refusals=(FormatError,))
def fuzz_link(data: bytes) -> None:
    target = data.decode("utf-8", "surrogateescape")
    for platform, rules in ((Platform.LINUX, posixpath), (Platform.MACOS, posixpath), (Platform.WINDOWS, ntpath)):
        for depth in (0, 1, 3):
            if paths.link_problem(depth, data, platform) is None:
                joined = rules.join(rules.sep.join(["in"] * depth), target)
                law(not rules.isabs(joined) and not rules.splitdrive(joined)[0], "a link is relative")
                law(rules.normpath(joined).split(rules.sep)[0] != "..", "a link stays in the folder")
    if paths.link_problem(3, data, Platform.LINUX) is not None:
        raise FormatError("No target of a link.")


@target("path", paths.path_problem, refusals=(FormatError,))
def fuzz_path(data: bytes) -> None:
    parts = data.split(b"/")
    problem = paths.path_problem(parts, Platform.LINUX)
    if problem is not None:
        law(paths.path_problem(parts, Platform.WINDOWS) is not None, "Linux refuses least")
        raise FormatError(problem)
    law(len(data) <= paths.PATH_BYTES_MAX and len(parts) <= paths.DEPTH_MAX, "paths are limited")
    law(paths.safe_join("/root", *(part.decode() for part in parts)) == f"/root/{data.decode()}", "a path stays below")


@target("local-rows", decode_rows, structure=behind(0))
def fuzz_local_rows(data: bytes) -> None:
    rows = decode_rows(data)
    with accepted():
        if all(map(_is_plain, rows)):
            law(decode_rows(encode_rows(rows)) == rows, "rows survive")


def _is_plain(row: Row) -> bool:
    """Whether the fields are of their types: the state is this device's own, and decoding does not ask."""
    stat = row.stat or ()
    if type(stat) is not tuple:
        return False
    numbers = (row.mode, row.size, row.mtime_ns, *(dot.seq for dot in row.dots), *stat)
    content = row.content
    binaries = (row.entry_name, *(dot.device for dot in row.dots))
    if isinstance(content, FileContent):
        numbers, binaries = (*numbers, content.depth), (*binaries, content.id)
    elif content is not None:
        binaries = (*binaries, content)
    return all(type(number) is int for number in numbers) and all(type(each) is bytes for each in binaries)
