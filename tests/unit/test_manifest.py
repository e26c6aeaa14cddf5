"""Directory nodes: every entry survives encoding, hashes cover what they should, malformed nodes are refused."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest

from buckia.core import canonical
from buckia.core.ids import Dot, content_hash
from buckia.core.manifest import (
    EMPTY,
    EMPTY_CONTENT,
    VERSIONS_MAX,
    Branch,
    Digest,
    Entry,
    FileContent,
    Kind,
    Subtree,
    Version,
    current,
    decode_directory,
    encode_directory,
    is_directory,
    summarise,
)
from buckia.errors import FormatError, UnsupportedFormatError
from tests.trees import A, B, C, chunk, entry, file, folder, symlink

TREE = Subtree(chunk(1), b"c" * 32, 3, 70)
ENTRIES = (
    entry(b"both", file(A, 3), folder(B, 1), subtree=TREE),
    entry(b"digest", replace(file(), digest=Digest(1, b"d" * 32))),
    entry(b"file", file(A, 1, 1), file(A, 2, 2), file(C, 1, 3)),
    entry(b"implicit", subtree=TREE),
    entry(b"large", Version(Dot(B, 9), Kind.FILE, 2**53 - 1, -(2**63), 0o7777, FileContent(8, chunk(2)))),
    entry(b"link", symlink(B, 10**10 - 1, b"../x")),
    entry("ü".encode(), folder(A, 1, 0)),
)


def test_entries_survive():
    node = decode_directory(encode_directory(0, ENTRIES))
    assert (node.level, node.items, node.closed) == (0, ENTRIES, False)
    branches = (Branch(b"a", TREE), Branch(b"b", TREE))
    assert decode_directory(encode_directory(1, branches)).items == branches


def test_the_bytes_are_those_of_the_spec():
    raw = encode_directory(0, (entry(b"f", file(B, 2, 5, 7, 0o600)), entry(b"g", folder(A, 1), subtree=TREE)))
    assert raw == canonical.encode(
        [
            1, 1, 0, [A, B],
            [
                [b"f", [[1, 2, 0, 5, 7, 0o600, [0, chunk(5)], None]], None],
                [b"g", [[0, 1, 2, 0, 0, 0o755, None, None]], [chunk(1), b"c" * 32, 3, 70]],
            ],
        ]
    )  # fmt: skip
    assert canonical.encode([1, 1, 0, [], []]) == EMPTY


def test_the_content_hash_is_that_of_the_spec():
    items = (entry(b"f", file(A, 1, 5), file(B, 1, 5), file(C, 1, 4, 9)), entry(b"g", folder(), subtree=TREE))
    values = sorted(([0, 0o644, [0, chunk(5)]], [0, 0o644, [0, chunk(4)]]), key=canonical.encode)
    expected = content_hash(canonical.encode([0, [[b"f", values, None], [b"g", [[2, 0o755, None]], b"c" * 32]]]))
    assert summarise(0, items) == (expected, 1 + 3, 4 + 70)
    above = content_hash(canonical.encode([1, [[b"f", b"c" * 32]]]))
    assert summarise(1, [Branch(b"f", TREE)]) == (above, 3, 70)


def test_the_content_hash_ignores_dots_times_and_digests():
    one = entry(b"f", file(A, 1, 5, 1))
    two = entry(b"f", replace(file(B, 2, 5, 9), digest=Digest(4, b"d" * 32)), file(C, 3, 5, 7))
    assert summarise(0, [one]) == summarise(0, [two])
    assert summarise(0, [entry(b"f", file(mode=0o600))]) != summarise(0, [one])


def test_current_versions_and_directories():
    assert current(entry(b"f", file(A, 2, mtime_ns=1), file(B, 1, mtime_ns=0))).dot == Dot(A, 2)
    assert current(entry(b"f", file(A, 9), file(B, 1), file(B, 3))).dot == Dot(B, 3)
    assert current(entry(b"f", file(), folder(B))) is None
    assert is_directory(entry(b"f", file(), subtree=TREE))
    assert not is_directory(entry(b"f", file(), symlink(B)))
    assert summarise(0, [entry(b"f", file(value=9), folder(B))])[1:] == (0, 0)


def test_versions_with_equal_values():
    assert file(A, 1, 5, 1).same_value(file(B, 2, 5, 2))
    assert not file(value=5).same_value(file(value=6))
    assert not file().same_value(file(mode=0o600))
    assert not symlink().same_value(folder())


NODE = [1, 1, 0, [A, B], [
    [b"a", [[0, 1, 0, 5, 7, 0o600, [0, chunk(5)], [1, b"d" * 32]], [1, 1, 0, 5, 7, 0o600, [0, chunk(5)], None]], None],
    [b"b", [[0, 1, 1, 1, 0, 0, b"t", None]], None],
    [b"c", [[0, 1, 2, 0, 0, 0o755, None, None]], [chunk(1), b"c" * 32, 3, 70]],
]]  # fmt: skip
INNER = [1, 1, 1, [], [[b"a", chunk(1), b"c" * 32, 3, 70], [b"b", chunk(2), b"c" * 32, 3, 70]]]
VERSION = (4, 0, 1, 0)
LINK = (4, 1, 1, 0)
DIRECTORY = (4, 2, 1, 0)
REFUSED = [
    *[((4, 0, 0), name) for name in (b"", b".", b"..", b"x/y", b"x\0", b"\xff", b"\xed\xa0\x80", b"x" * 256, "a", 1)],
    ((4, 0, 0), b"b"),  # twice
    ((4, 0, 0), b"z"),  # not sorted
    ((4, 0, 1), []),  # nothing at all
    ((4, 0, 1), None),
    ((4, 0, 2), [chunk(1), EMPTY_CONTENT, 0, 0]),
    ((3,), [B, A]),
    ((3,), [A, A]),
    ((3,), [A, B, C]),  # unused
    ((3,), [A]),
    ((3,), [A, b"short"]),
    ((3,), None),
    ((4,), None),
    ((2,), 1),  # entries are not inner items
    ((2,), 8),
    ((2,), -1),
    ((1,), 2),
    ((*VERSION, 0), 1),  # the same dot twice
    ((*VERSION, 0), 2),
    ((*VERSION, 0), -1),
    ((*VERSION, 0), None),
    ((*VERSION, 1), 0),
    ((*VERSION, 1), 10**10),
    ((*VERSION, 2), 3),
    ((*VERSION, 3), -1),
    ((*VERSION, 3), 2**53),
    ((*VERSION, 3), 2**25),  # more than one chunk can hold
    ((*VERSION, 4), 2**63),
    ((*VERSION, 5), 0o10000),
    ((*VERSION, 5), -1),
    ((*VERSION, 6), None),
    ((*VERSION, 6), b"t"),
    ((*VERSION, 6), [9, chunk(1)]),
    ((*VERSION, 6), [-1, chunk(1)]),
    ((*VERSION, 6), [0, chunk(1)[:31]]),
    ((*VERSION, 7), [5, b"d" * 32]),
    ((*VERSION, 7), [1, b"d" * 31]),
    ((*VERSION, 7), [1]),
    ((*LINK, 6), b""),
    ((*LINK, 6), b"t\0"),
    ((*LINK, 6), None),
    ((*LINK, 3), 2),
    ((*LINK, 5), 0o777),
    ((*LINK, 7), [1, b"d" * 32]),
    ((*DIRECTORY, 6), b"t"),
    ((*DIRECTORY, 3), 1),
    ((*DIRECTORY, 4), 1),
    ((4, 2, 2, 0), b"short"),
    ((4, 2, 2, 1), None),
    ((4, 2, 2, 2), -1),
    ((4, 2, 2, 3), 2**53),
    ((4, 2, 2), [chunk(1)]),
]
REFUSED_INNER = [
    ((3,), [A]),
    ((4,), []),
    ((4, 0, 0), b"b"),
    ((4, 0, 0), b""),
    ((4, 0, 1), b"short"),
    ((4, 0, 2), None),
    ((4, 0, 3), -1),
    ((4, 0, 4), 2**53),
    ((4, 0), [b"a", chunk(1)]),
    ((4, 0), None),
]


def changed(node, place, value):
    node = copy.deepcopy(node)
    inside = node
    for step in place[:-1]:
        inside = inside[step]
    inside[place[-1]] = value
    return canonical.encode(node)


def test_the_unchanged_nodes_are_accepted():
    assert len(decode_directory(canonical.encode(NODE)).items) == 3
    assert len(decode_directory(canonical.encode(INNER)).items) == 2


@pytest.mark.parametrize(("place", "value"), REFUSED, ids=str)
def test_malformed_nodes_are_refused(place, value):
    with pytest.raises(FormatError):
        decode_directory(changed(NODE, place, value))


@pytest.mark.parametrize(("place", "value"), REFUSED_INNER, ids=str)
def test_malformed_inner_nodes_are_refused(place, value):
    with pytest.raises(FormatError):
        decode_directory(changed(INNER, place, value))


def test_another_format_version_is_unsupported():
    with pytest.raises(UnsupportedFormatError):
        decode_directory(changed(NODE, (0,), 2))


def test_limits_on_counts():
    versions = [file(A, number) for number in range(1, VERSIONS_MAX + 2)]
    decode_directory(encode_directory(0, [entry(b"a", *versions[:-1])]))
    with pytest.raises(FormatError):
        encode_directory(0, [entry(b"a", *versions)])
    with pytest.raises(FormatError):
        summarise(1, [Branch(b"a", replace(TREE, bytes=2**53 - 1)), Branch(b"b", TREE)])
    with pytest.raises(FormatError, match="larger"):
        decode_directory(b"\0" * (16 * 1024 * 1024 + 1))


@pytest.mark.parametrize(
    "items",
    [
        (Entry(b"a/b", (file(),)),),
        (Entry(b"a", ()),),
        (Entry(b"a", (file(A, 2), file(A, 1))),),
        (entry(b"b", file()), entry(b"a", file())),
        (entry(b"a", replace(file(), mtime_ns=2**64)),),
        (entry(b"a", replace(symlink(), content=b"", size=0)),),
    ],
)
def test_writers_do_not_write_what_readers_refuse(items):
    with pytest.raises(FormatError):
        encode_directory(0, items)
