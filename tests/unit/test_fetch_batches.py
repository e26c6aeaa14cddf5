"""Staged files are put in place in groups, so that a run that is cut off keeps what it has fetched."""

from __future__ import annotations

from collections.abc import Iterator

from buckia.core.ids import BlobId, DeviceId, Dot
from buckia.core.manifest import FileContent, Kind, Version
from buckia.engine.fetch import PLACE_BYTES, PLACE_FILES, Fetched, Wanted, in_batches


def fetched(size: int) -> Fetched:
    content = FileContent(0, BlobId(bytes(32)))
    version = Version(Dot(DeviceId(bytes(16)), 1), Kind.FILE, size, 0, 0o644, content, None)
    return Fetched(Wanted("", "path", version), None)


def test_a_group_ends_when_it_has_so_many_bytes() -> None:
    sizes = [PLACE_BYTES // 2 - 1, 1, PLACE_BYTES // 2, 5, PLACE_BYTES + 1, 7]
    groups = [[item.wanted.version.size for item in batch] for batch in in_batches(map(fetched, sizes))]
    assert groups == [sizes[:3], sizes[3:5], sizes[5:]]


def test_a_group_ends_when_it_has_so_many_files() -> None:
    groups = [len(batch) for batch in in_batches(map(fetched, [1] * (2 * PLACE_FILES + 1)))]
    assert groups == [PLACE_FILES, PLACE_FILES, 1]
    assert list(in_batches([])) == []


def test_a_large_file_is_handed_on_before_the_next_one_is_fetched() -> None:
    taken: list[int] = []

    def staged() -> Iterator[Fetched]:
        for number in range(3):
            taken.append(number)
            yield fetched(PLACE_BYTES)

    batches = in_batches(staged())
    next(batches)
    assert taken == [0]
