"""The benchmark's files are the same everywhere, and its edits do what they say."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from blake3 import blake3

from tests.bench import corpus, measure

SCALE = 0.001


def contents(root: Path) -> dict[str, bytes]:
    """All files by relative path."""
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def rows(path: Path) -> list[tuple[int, str, str, int, int]]:
    """All rows of the database."""
    connection = sqlite3.connect(path)
    try:
        return connection.execute("SELECT * FROM item ORDER BY id").fetchall()
    finally:
        connection.close()


def digest(root: Path) -> str:
    """A hash of the names and bytes of all files but the database, and of its rows."""
    hasher = blake3()
    for name, data in sorted(contents(root).items()):
        if name != corpus.DATABASE_NAME:
            hasher.update(f"{name}\0{len(data)}\0".encode() + data)
    hasher.update(repr(rows(root / corpus.DATABASE_NAME)).encode())
    return hasher.hexdigest()


@pytest.fixture(scope="module")
def edited(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, corpus.Edits, dict[str, bytes]]:
    """A corpus after the edits, what they say they did, and its files before."""
    made = corpus.build(tmp_path_factory.mktemp("bench") / "corpus", SCALE)
    before = contents(made.root)
    return made.root, corpus.edit(made, SCALE), before


def test_the_bytes_are_the_same_everywhere(tmp_path: Path) -> None:
    corpus.build(tmp_path / "corpus", SCALE)
    assert digest(tmp_path / "corpus") == "5b64395b7bf7331bdd171c3f88ae9eb88984abf08713e1d7925d4129c17d7b8f"


def test_two_corpora_are_equal_with_their_times(tmp_path: Path) -> None:
    made = [corpus.build(tmp_path / name, SCALE) for name in ("one", "two")]
    assert measure.tree_digest(made[0].root) == measure.tree_digest(made[1].root)
    assert made[0].bytes == measure.tree_bytes(made[0].root)
    assert made[0].files == len(measure.files(made[0].root))
    for one in made:
        corpus.edit(one, SCALE)
    assert measure.tree_digest(made[0].root) == measure.tree_digest(made[1].root)


def test_edits_of_clips(edited: tuple[Path, corpus.Edits, dict[str, bytes]]) -> None:
    root, edits, before = edited
    assert len(edits.inserted) == 3
    for name in edits.inserted:
        old, new = before[name], (root / name).read_bytes()
        third = len(old) // 3
        assert new[:third] == old[:third]
        assert new[third + corpus.INSERTED_BYTES :] == old[third:]
    old, new = before[edits.appended], (root / edits.appended).read_bytes()
    assert new.startswith(old)
    assert len(new) == len(old) + edits.appended_bytes


def test_edits_of_small_files(edited: tuple[Path, corpus.Edits, dict[str, bytes]]) -> None:
    root, edits, before = edited
    after = contents(root)
    old, new = edits.renamed
    moved = {name.replace(old + "/", new + "/", 1): data for name, data in before.items()}
    deleted = {name.replace(old + "/", new + "/", 1) for name in edits.deleted}
    changed = {name.replace(old + "/", new + "/", 1) for name in edits.edited}
    assert deleted
    assert changed
    assert set(after) == set(moved) - deleted
    others = {*edits.inserted, edits.appended, corpus.DATABASE_NAME}
    assert {name for name in after if after[name] != moved[name]} == changed | others
    assert old not in "".join(after)


def test_touched_files_keep_their_bytes(edited: tuple[Path, corpus.Edits, dict[str, bytes]]) -> None:
    root, edits, before = edited
    touched = [path for path in (root / edits.touched).rglob("*") if path.is_file()]
    assert touched
    assert {path.stat().st_mtime_ns for path in touched} == {corpus.PAST_NS + 2 * corpus.DAY_NS}
    kept = [path for path in touched if str(path.relative_to(root)) not in edits.edited]
    assert all(path.read_bytes() == before[str(path.relative_to(root))] for path in kept)


def test_edits_of_the_database(edited: tuple[Path, corpus.Edits, dict[str, bytes]], tmp_path: Path) -> None:
    root, edits, before = edited
    (tmp_path / "before").write_bytes(before[corpus.DATABASE_NAME])
    old, new = rows(tmp_path / "before"), rows(root / corpus.DATABASE_NAME)
    assert len(new) == len(old) + edits.rows_inserted
    assert sum(a != b for a, b in zip(old, new, strict=False)) == edits.rows_updated
    assert edits.rows_updated == pytest.approx(len(old) / 50, abs=1)
    assert edits.rows_inserted == len(old) // 100
    assert not list(root.glob(corpus.DATABASE_NAME + "-*"))


def test_a_clip_does_not_depend_on_how_it_is_written(tmp_path: Path) -> None:
    corpus.write_clip(tmp_path / "clip.mp4", 10_000_000)
    assert (tmp_path / "clip.mp4").read_bytes() == corpus.stream("clip.mp4", 10_000_000)
