"""The files that the benchmark works on: the same bytes on every machine and in every run, from one seed.

Everything comes out of BLAKE3 in its extendable-output mode, so NumPy or the version of ``random`` play no part.
Only the pages of the SQLite file depend on the SQLite library that writes them; its rows do not.
"""

from __future__ import annotations

import math
import os
import sqlite3
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3

MB = 1_000_000
CLIP_MB = (40, 45, 52, 60, 70, 80, 90, 105, 120, 138, 150, 250)
"""Sizes of the clips at scale 1: 1.2 GB together."""
SMALL_FILES = 20_000
DATABASE_ROWS = 464_000
"""Rows of about 400 bytes and one index: 200 MB."""
TINY_FILES = 100_000
SPARSE_BYTES = 8 << 30
DELTA_BYTES = 200 * MB
INSERTED_BYTES = 1_000
FILES_PER_DIRECTORY = 50
PAST_NS = 1_700_000_000 * 10**9
"""Files are stamped with times in the past: no tool has to doubt a file for being as new as its own run."""
DAY_NS = 86_400 * 10**9
DATABASE_NAME = "App.sqlite"
_BLOCK = 8 << 20
_PHRASES = (
    "la",
    "ve",
    "ro",
    "min",
    "ta",
    "sol",
    "ker",
    "un",
    "di",
    "pho",
    "gra",
    "ste",
    "mon",
    "al",
    "ci",
    "bur",
    "ne",
    "or",
    "qui",
    "tex",
)
WORDS = tuple(a + b + c for a in _PHRASES for b in _PHRASES for c in ("", "n", "ren", "s", "ing"))[:2000]


@dataclass(frozen=True, slots=True)
class Corpus:
    """What was written: the root, its files and bytes, and how many of the bytes can be compressed."""

    root: Path
    files: int
    bytes: int
    compressible: int


@dataclass(frozen=True, slots=True)
class Edits:
    """What ``edit`` did to a corpus. Paths are relative to its root."""

    inserted: tuple[str, ...]
    appended: str
    appended_bytes: int
    edited: tuple[str, ...]
    deleted: tuple[str, ...]
    renamed: tuple[str, str]
    touched: str
    rows_updated: int
    rows_inserted: int


def stream(label: str, length: int, offset: int = 0) -> bytes:
    """``length`` pseudo-random bytes of the stream with this label, from ``offset`` on."""
    return blake3(b"buckia bench 1 " + label.encode()).digest(length=length, seek=offset)


def scaled(count: int, scale: float, least: int = 1) -> int:
    """``count`` at this scale, but not less than ``least``."""
    return max(least, round(count * scale))


def build(root: Path, scale: float) -> Corpus:
    """Write the main corpus into the new directory ``root``: clips, small files, one database."""
    root.mkdir(parents=True)
    files = total = 0
    for number, megabytes in enumerate(CLIP_MB):
        path = root / "clips" / f"2024-{number // 3 + 1:02}" / f"clip-{number:02}.mp4"
        total += write_clip(path, scaled(megabytes * MB, scale))
        files += 1
    count, small, text = write_small(root, scaled(SMALL_FILES, scale, 200))
    write_database(root / DATABASE_NAME, scaled(DATABASE_ROWS, scale, 100))
    database = (root / DATABASE_NAME).stat().st_size
    return Corpus(root, files + count + 1, total + small + database, text + database)


def write_clip(path: Path, size: int) -> int:
    """Write ``size`` incompressible bytes; the stream is named by the file's name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for offset in range(0, size, _BLOCK):
            file.write(stream(path.name, min(_BLOCK, size - offset), offset))
    stamp(path)
    return size


def write_small(root: Path, count: int) -> tuple[int, int, int]:
    """Write ``count`` small files of 0.5 to 64 KB; returns how many, their bytes, and how many can be compressed."""
    total = text = 0
    for number, size in enumerate(_sizes(count)):
        path, data = small_file(number, size)
        place = root / path
        if number % FILES_PER_DIRECTORY < 3:
            place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
        stamp(place, number)
        total += len(data)
        text += 0 if place.suffix == ".jpg" else len(data)
    return count, total, text


def small_file(number: int, size: int) -> tuple[str, bytes]:
    """Relative path and content of the small file ``number``: of ten, four JSON, three text, three thumbnails."""
    group, kind = number // FILES_PER_DIRECTORY, number % 10
    label = f"small {number}"
    if kind in (1, 4, 7):
        return f"photos/{2019 + group % 6}/{group:04}/thumbs/{number:06}.jpg", stream(label, size)
    if kind in (2, 5, 8):
        return f"notes/{group // 20:02}/{group:04}/note-{number:06}.txt", prose(label, size)
    return f"projects/p{group // 20:02}/{group:04}/data/{number:06}.json", _json(label, size)


def prose(label: str, size: int) -> bytes:
    """About ``size`` bytes of words."""
    count = size // 6 + 1
    numbers = struct.unpack(f"<{count}H", stream(label, 2 * count))
    return " ".join([WORDS[number % len(WORDS)] for number in numbers]).encode()[:size]


def _json(label: str, size: int) -> bytes:
    records = []
    length = 2
    for number, (a, b, c, value) in enumerate(struct.iter_unpack("<HHHI", stream(label, 10 * (size // 80 + 2)))):
        record = (
            f'{{"id": {number}, "name": "{WORDS[a % len(WORDS)]}-{value:08x}", "score": {value % 1000 / 10}, '
            f'"tags": ["{WORDS[b % len(WORDS)]}", "{WORDS[c % len(WORDS)]}"]}}'
        )
        records.append(record)
        length += len(record) + 2
        if length >= size:
            break
    return ("[" + ",\n".join(records) + "]").encode()


def _sizes(count: int) -> Iterator[int]:
    """Log-normal sizes, median 9.9 KB, between 512 and 65,536 bytes (mean about 13.5 KB)."""
    for a, b in struct.iter_unpack("<II", stream("sizes", 8 * count)):
        normal = math.sqrt(-2 * math.log((a + 1) / 2**32)) * math.cos(math.tau * b / 2**32)
        yield min(65_536, max(512, int(9_900 * math.exp(0.88 * normal))))


def write_database(path: Path, rows: int) -> None:
    """Write a closed SQLite file: one table with rows of about 400 bytes, one index, no WAL."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA page_size = 4096")
    connection.execute("PRAGMA journal_mode = OFF")
    connection.execute("PRAGMA synchronous = OFF")
    columns = "id INTEGER PRIMARY KEY, title TEXT, body TEXT, score INTEGER, updated INTEGER"
    connection.execute(f"CREATE TABLE item ({columns})")
    connection.execute("BEGIN")
    connection.executemany("INSERT INTO item VALUES (?, ?, ?, ?, ?)", _rows(1, rows, "rows"))
    connection.execute("CREATE INDEX item_updated ON item (updated, id)")
    connection.execute("COMMIT")
    connection.close()
    stamp(path)


def _rows(first: int, count: int, label: str) -> Iterator[tuple[int, str, str, int, int]]:
    pool = prose("row pool", min(16 * MB, 400 * count + 1000)).decode()
    room = len(pool) - 400
    for number, (place, size, score) in enumerate(struct.iter_unpack("<IHI", stream(label, 10 * count))):
        start = place % room
        title, body = f"{score:08x} {pool[start : start + 20]}", pool[start : start + 300 + size % 90]
        yield first + number, title, body, score, place


def edit(corpus: Corpus, scale: float) -> Edits:
    """Change a fresh corpus as a user's week would; everything else keeps its bytes and times."""
    root = corpus.root
    clips = sorted((root / "clips").rglob("*.mp4"))
    chosen = (clips[2], clips[6], clips[11])
    for clip in chosen:
        insert(clip)
    extra = scaled(MB, scale)
    with clips[8].open("ab") as file:
        file.write(stream("append", extra))
    stamp(clips[8], DAY_NS)
    edited, deleted = _edit_small(root)
    renamed, touched = _move_and_touch(root)
    updated, inserted = _edit_database(root / DATABASE_NAME)
    return Edits(
        inserted=tuple(str(clip.relative_to(root)) for clip in chosen),
        appended=str(clips[8].relative_to(root)),
        appended_bytes=extra,
        edited=edited,
        deleted=deleted,
        renamed=renamed,
        touched=touched,
        rows_updated=updated,
        rows_inserted=inserted,
    )


def insert(path: Path) -> None:
    """Insert 1,000 new bytes at the first third of a file."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 3)
        start, rest = file.tell(), file.read()
        file.seek(start)
        file.write(stream("insert " + path.name, INSERTED_BYTES))
        file.write(rest)
    stamp(path, DAY_NS)


def _edit_small(root: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Edit every hundredth small file in its middle and delete every hundredth, others than those."""
    parts = ("notes", "photos", "projects")
    paths = sorted(path for part in parts for path in (root / part).rglob("*") if path.is_file())
    edited, deleted = paths[10::100], paths[60::100]
    for path in edited:
        data = path.read_bytes()
        middle = len(data) // 2
        new = stream("edit " + path.name, 8).hex().encode()
        path.write_bytes(data[:middle] + b" edited " + new + data[middle + 20 :])
        stamp(path, DAY_NS)
    for path in deleted:
        path.unlink()
    return tuple(str(path.relative_to(root)) for path in edited), tuple(str(path.relative_to(root)) for path in deleted)


def rename_directory(root: Path) -> tuple[str, str]:
    """Rename one project; returns its old and its new relative path."""
    old, new = "projects/p00", "projects/renamed"
    (root / old).rename(root / new)
    return old, new


def _move_and_touch(root: Path) -> tuple[tuple[str, str], str]:
    renamed = rename_directory(root)
    touched = "notes/00"
    for path in (root / touched).rglob("*"):
        if path.is_file():
            stamp(path, 2 * DAY_NS)
    return renamed, touched


def _edit_database(path: Path) -> tuple[int, int]:
    """Update 2 % of the rows, spread evenly over the table (the hard case), insert 1 %, and close it."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA synchronous = OFF")
    (rows,) = connection.execute("SELECT count(*) FROM item").fetchone()
    connection.execute("BEGIN")
    updated = connection.execute("UPDATE item SET score = score / 2, title = title || '!' WHERE id % 50 = 7").rowcount
    inserted = rows // 100
    connection.executemany("INSERT INTO item VALUES (?, ?, ?, ?, ?)", _rows(rows + 1, inserted, "new rows"))
    connection.execute("COMMIT")
    connection.close()
    stamp(path, DAY_NS)
    return updated, inserted


def write_tiny(root: Path, count: int) -> None:
    """Write ``count`` files of about 100 bytes, 100 in a directory."""
    for number in range(count):
        path = root / f"{number // 10_000:02}" / f"{number // 100 % 100:02}" / f"{number:06}.txt"
        if number % 100 == 0:
            path.parent.mkdir(parents=True)
        path.write_bytes(b"tiny file %d " % number + stream(f"tiny {number}", 40).hex().encode())
        stamp(path)


def write_sparse(path: Path, size: int) -> None:
    """Make a file that is one hole of ``size`` bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.truncate(size)
    stamp(path)


def stamp(path: Path, after_ns: int = 0) -> None:
    """Set a file's times to a fixed moment in the past, ``after_ns`` later than the corpus."""
    os.utime(path, ns=(PAST_NS + after_ns, PAST_NS + after_ns))
