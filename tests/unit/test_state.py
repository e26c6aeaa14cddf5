"""The state keeps what it promises to keep, knows when it was copied, and gives way to nobody while it is held."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from buckia.core.ids import BlobId, DeviceId, Dot, ObjectId, object_id
from buckia.core.manifest import FileContent, Kind
from buckia.core.record import Ack, Record, encode_record
from buckia.errors import BusyError, FormatError, LocalError
from buckia.local.connection import Connection, DamagedError
from buckia.local.rows import Row, decode_rows, encode_rows
from buckia.local.state import State, machine_id, state_directory

A = DeviceId(b"a" * 16)
B = DeviceId(b"b" * 16)
STAT = (0o644, 5, 123, 456, 789)


def ident(number: int) -> ObjectId:
    return ObjectId(number.to_bytes(32))


def row(name: str = "file", **changes: object) -> Row:
    fields: dict[str, object] = {
        "name": name,
        "entry_name": os.fsencode(name),
        "kind": Kind.FILE,
        "dots": (Dot(A, 1),),
        "content": FileContent(0, BlobId(b"c" * 32)),
        "mode": 0o644,
        "size": 5,
        "mtime_ns": 123,
        "stat": STAT,
    }
    return Row(**{**fields, **changes})  # type: ignore[arg-type]


@pytest.fixture(params=["memory", "file"])
def state(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[State]:
    directory = None if request.param == "memory" else str(tmp_path / "state")
    with State.open(directory, machine="m") as opened:
        yield opened


# --- rows ---

CONTENTS = st.one_of(
    st.none(),
    st.binary(min_size=1, max_size=20),
    st.builds(FileContent, st.integers(0, 3), st.binary(min_size=32, max_size=32)),
)
ROWS = st.builds(
    Row,
    name=st.binary(min_size=1, max_size=20).map(os.fsdecode),
    entry_name=st.binary(min_size=1, max_size=20),
    kind=st.sampled_from(list(Kind)),
    dots=st.lists(st.builds(Dot, st.sampled_from([A, B]), st.integers(1, 10**10 - 1)), max_size=3).map(tuple),
    content=CONTENTS,
    mode=st.integers(0, 0o7777),
    size=st.integers(0, 2**53),
    mtime_ns=st.integers(-(2**63), 2**63 - 1),
    stat=st.none() | st.tuples(*[st.integers(-(2**63), 2**64 - 1)] * 5),
    hidden=st.booleans(),
)


@given(st.lists(ROWS, max_size=5))
def test_rows_come_back_as_they_were(rows: list[Row]) -> None:
    assert decode_rows(encode_rows(rows)) == rows


@given(st.binary(max_size=40))
def test_damaged_rows_are_told(data: bytes) -> None:
    try:
        decode_rows(data)
    except FormatError:
        return
    assert data[:1] == b"\x93"


DEVICE = b"a" * 16
SOUND: list[object] = [b"n", None, 0, [0, 1], [0, bytes(32)], 0o644, 5, 123, list(STAT), 0]


def packed(devices: object, field: int = 9, value: object = 0) -> bytes:
    """One row with a changed field."""
    data: bytes = msgpack.packb([1, devices, [[*SOUND[:field], value, *SOUND[field + 1 :]]]])
    return data


def test_rows_are_rows() -> None:
    assert len(decode_rows(packed([DEVICE]))) == 1


@pytest.mark.parametrize("devices", [{0: DEVICE}, {1: DEVICE}, {"a": 1}, ["text"], [1], DEVICE, 7, None])
def test_rows_with_other_devices_are_damaged(devices: object) -> None:
    with pytest.raises(FormatError):
        decode_rows(packed(devices))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *((field, value) for field in (0, 2, 3, 5, 6, 7, 9) for value in ("text", None, 1.5, {})),
        *((1, value) for value in ("text", 1, [])),
        *((2, value) for value in (-1, 3, True)),
        *((3, value) for value in ([0], [-1, 1], [1, 1], ["a", 1], [0, b"a"], [None, None], {0: 1})),
        *((4, value) for value in ("text", 1, {}, [], [0], ["a", b""], [0, "text"], [0, b"", 0])),
        *((8, value) for value in ("text", 1, {}, [], [1] * 4)),
    ],
)
def test_rows_with_a_field_of_the_wrong_type_are_damaged(field: int, value: object) -> None:
    with pytest.raises(FormatError):
        decode_rows(packed([DEVICE], field, value))


# --- directories ---


def test_staged_rows_become_current_in_one_step(state: State) -> None:
    state.stage(b"", [row("a")], b"f" * 32)
    state.stage(b"d", [row("b")], b"g" * 32)
    assert state.directory(b"") == (None, {})
    assert state.fingerprints() == {}
    state.promote()
    assert state.directory(b"d") == (b"g" * 32, {"b": row("b")})
    assert state.fingerprints() == {b"": b"f" * 32, b"d": b"g" * 32}
    assert state.directory(b"other") == (None, {})


def test_staged_rows_can_be_discarded(state: State) -> None:
    state.stage(b"", [row("a")], None)
    state.promote()
    state.stage(b"", [row("b")], None)
    state.drop_directory(b"")
    state.stage(b"x", [], None)
    state.discard_staged()
    state.promote()
    assert list(state.directory(b"")[1]) == ["a"]
    assert list(state.fingerprints()) == [b""]


def test_a_dropped_directory_goes_with_the_next_promotion(state: State) -> None:
    state.stage(b"d", [row()], None)
    state.promote()
    state.drop_directory(b"d")
    assert state.directory(b"d")[1]
    state.promote()
    assert state.fingerprints() == {}


def test_a_fingerprint_is_kept_only_where_every_file_has_a_stat(state: State) -> None:
    directory = row("d", kind=Kind.DIRECTORY, content=None, stat=None)
    hidden = row("h", hidden=True, stat=None)
    state.stage(b"ok", [row(), directory, hidden], b"f" * 32)
    state.stage(b"racy", [row(stat=None)], b"f" * 32)
    state.promote()
    assert state.fingerprints() == {b"ok": b"f" * 32, b"racy": None}


def test_intents_forbid_to_trust_the_fingerprint_and_go_with_their_directory(state: State) -> None:
    state.stage(b"d", [row("a")], b"f" * 32)
    state.promote()
    state.add_intents([(b"d", row("b")), (b"new", row("c")), (b"d", row("b", size=6))])
    assert state.fingerprints() == {b"d": None, b"new": None}
    assert state.intents(b"d") == {"b": row("b", size=6)}
    state.stage(b"d", [row("a"), row("b")], b"g" * 32)
    state.promote()
    assert state.intents(b"d") == {}
    assert state.fingerprints() == {b"d": b"g" * 32, b"new": None}


# --- ledger ---


def test_identity(state: State) -> None:
    assert state.device() is None
    state.set_device(A, "blue heron")
    assert state.device() == (A, "blue heron")
    assert state.own_seq() == 0


def record(seq: int) -> bytes:
    prev = None if seq == 1 else ident(seq - 1)
    return encode_record(Record(A, seq, prev, (), (), 0, "a", Ack()))


def test_a_number_is_never_used_again(state: State) -> None:
    state.set_device(A, "a")
    state.set_outbox(record(1))
    assert state.outbox() == record(1)
    assert state.own_seq() == 1
    state.set_outbox(None)
    assert (state.outbox(), state.own_seq()) == (None, 1)
    state.set_tip(A, 7, ident(7))
    state.set_tip(B, 9, ident(9))
    assert state.own_seq() == 7
    state.set_outbox(record(2))
    state.set_device(A, "renamed")
    assert (state.outbox(), state.own_seq()) == (record(2), 7)
    state.set_device(B, "b")
    assert (state.outbox(), state.own_seq()) == (None, 0)
    assert state.tips() == {A: (7, ident(7)), B: (9, ident(9))}


def test_the_rest_of_the_ledger(state: State) -> None:
    state.set_folder_object(b"folder")
    assert state.folder_object() == b"folder"
    assert state.record(ident(1)) is None
    state.add_record(ident(1), b"one")
    state.add_record(ident(1), b"one")
    assert state.record(ident(1)) == b"one"
    assert list(state.records()) == [(ident(1), b"one")]
    assert state.heads() == []
    state.set_heads([ident(2), ident(1)])
    assert state.heads() == [ident(2), ident(1)]
    state.log_pack(ident(3), 10, b"rows")
    state.log_pack(ident(4), 11, b"rows")
    state.forget_packs([ident(3)])
    assert state.pending_packs() == [(ident(4), 11, b"rows")]
    state.add_condemned([ident(5), ident(5)])
    assert state.condemned() == {ident(5)}
    assert state.get_value("x") is None
    state.set_value("x", b"1")
    state.set_value("x", b"2")
    assert state.get_value("x") == b"2"
    state.set_value("x", None)
    assert state.get_value("x") is None


def test_nodes_of_states_gone_by_are_dropped_when_they_are_many() -> None:
    state = State.open(None, machine="m")
    nodes = [(1, BlobId(bytes([number]) * 32), b"raw") for number in range(9)]
    state.add_nodes(nodes)
    live = {node for _, node, _ in nodes[:5]}
    state.keep_nodes(live)
    assert state.node(1, nodes[8][1]) == b"raw", "not worth the trouble yet"
    live = {node for _, node, _ in nodes[:4]}
    state.keep_nodes(live)
    assert [state.node(1, node) for _, node, _ in nodes] == [b"raw"] * 4 + [None] * 5


def test_segments(state: State) -> None:
    data = b"segment" * 100
    segment = object_id(data)
    assert state.segment(segment) is None
    state.add_segment(segment, data)
    state.add_segment(segment, data)
    assert state.segments() == [segment]
    mapped = state.segment(segment)
    assert mapped is not None
    assert bytes(mapped) == data
    state.drop_segment(segment)
    assert state.segments() == []
    assert bytes(mapped) == data  # still in use


def test_dropped_and_unfinished_segments_leave_no_files(tmp_path: Path) -> None:
    with State.open(str(tmp_path), machine="m") as state:
        state.add_segment(ident(1), b"1")
        state.add_segment(ident(2), b"2")
        state.drop_segment(ident(1))
    (tmp_path / "segments" / "x.new").touch()
    with State.open(str(tmp_path), machine="m") as state:
        assert os.listdir(tmp_path / "segments") == [ident(2).hex()]
        os.unlink(tmp_path / "segments" / ident(2).hex())
        assert state.segment(ident(2)) is None


def test_a_transaction_happens_or_does_not(state: State) -> None:
    def half() -> None:
        with state.transaction():
            state.set_value("x", b"1")
            with state.transaction():
                state.log_pack(ident(1), 1, b"")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        half()
    assert state.get_value("x") is None
    assert state.pending_packs() == []
    with state.transaction():
        state.set_value("x", b"1")
        state.log_pack(ident(1), 1, b"")
    assert state.get_value("x") == b"1"


def test_threads_wait_for_a_transaction(state: State) -> None:
    order: list[str] = []
    started = threading.Event()

    def other() -> None:
        started.set()
        state.set_value("x", b"other")
        order.append("other")

    thread = threading.Thread(target=other)
    with state.transaction():
        thread.start()
        started.wait(5)
        state.set_value("x", b"mine")
        order.append("mine")
    thread.join(5)
    assert order == ["mine", "other"]
    assert state.get_value("x") == b"other"


def test_what_is_durable_is_flushed(tmp_path: Path) -> None:
    levels: list[int] = []

    class Watching(Connection):
        def run(self, sql: str, values: object = ()) -> None:
            if sql == "COMMIT":
                levels.append(self.one("PRAGMA synchronous")[0])
            super().run(sql, values)  # type: ignore[arg-type]

    connection = Watching(str(tmp_path / "db"))
    levels.clear()
    with connection.transaction():
        pass
    with connection.durable():
        pass
    assert levels == [1, 2]
    assert connection.one("PRAGMA synchronous")[0] == 1
    assert connection.one("SELECT count(*) FROM trust WHERE name = 'flushed'")[0] == 0
    with connection.transaction(), connection.durable():
        pass
    assert connection.one("SELECT count(*) FROM trust WHERE name = 'flushed'")[0] == 1
    connection.close()


# --- files ---


def test_everything_survives_the_process(tmp_path: Path) -> None:
    with State.open(str(tmp_path), machine="m") as state:
        state.set_device(A, "a")
        state.stage(b"", [row()], b"f" * 32)
        state.promote()
        state.stage(b"x", [row()], None)
        state.add_intents([(b"y", row())])
    with State.open(str(tmp_path), machine="m") as state:
        assert not state.is_clone
        assert state.device() == (A, "a")
        assert state.directory(b"")[1] == {"file": row()}
        assert state.intents(b"y") == {"file": row()}
        state.promote()
        assert state.directory(b"x")[1] == {"file": row()}


def test_a_copy_knows_that_it_is_one(tmp_path: Path) -> None:
    with State.open(str(tmp_path / "a"), machine="m") as state:
        state.set_device(A, "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    with State.open(str(tmp_path / "b"), machine="m") as copy:
        assert copy.is_clone
        assert copy.device() == (A, "a")
        copy.set_device(B, "b")
        assert not copy.is_clone
    with State.open(str(tmp_path / "b"), machine="m") as copy:
        assert not copy.is_clone
    with State.open(str(tmp_path / "a"), machine="another") as state:
        assert state.is_clone


def put_back(backup: Path, present: Path, *names: str) -> None:
    """Files of a backup come back as tools do it that write over the present files, times included."""
    for name in names:
        inode = (present / name).stat().st_ino
        shutil.copyfile(backup / name, present / name)
        shutil.copystat(backup / name, present / name)
        assert (present / name).stat().st_ino == inode


def use_a_number(state: State, seq: int) -> None:
    """What a commit does here."""
    state.set_outbox(record(seq))
    state.outdate_copies()
    state.set_outbox(None)


def marks(place: Path) -> list[str]:
    return sorted(path.name for path in place.glob("mark-*"))


@pytest.mark.parametrize("how", ["alone", "with its marks", "mirrored"])
@pytest.mark.parametrize("before", [0, 1, 2])
def test_a_backup_that_is_put_back_over_the_state_is_noticed(tmp_path: Path, before: int, how: str) -> None:
    """Whether it is from before the first number, from later, or from a run that was cut off in the middle."""
    place, backup = tmp_path / "state", tmp_path / "backup"
    with State.open(str(place), machine="m") as state:
        state.set_device(A, "a")
        if before:
            use_a_number(state, 1)
        if before == 2:
            state.set_outbox(record(2))
    shutil.copytree(place, backup)
    put_back(backup, place, "state.db")
    with State.open(str(place), machine="m") as state:
        assert not state.is_clone  # no number was used since
        use_a_number(state, 3)
    put_back(backup, place, "state.db")
    if how == "mirrored":
        for name in marks(place):
            (place / name).unlink()
    if how != "alone":
        for name in marks(backup):
            shutil.copy2(backup / name, place / name)
    with State.open(str(place), machine="m") as state:
        assert state.is_clone
        state.set_device(B, "b")
        assert (state.own_seq(), state.outbox()) == (0, None)
    with State.open(str(place), machine="m") as state:
        assert not state.is_clone
    assert len(marks(place)) == 1


@pytest.mark.parametrize("step", range(4))
def test_a_run_that_is_cut_off_around_its_mark_leaves_the_same_device(tmp_path: Path, step: int) -> None:
    with State.open(str(tmp_path), machine="m") as state:
        state.set_device(A, "a")
        use_a_number(state, 1)
        if step == 0:
            state._marks.make(object_id(record(2)).hex())
        if step >= 1:
            state.set_outbox(record(2))
        if step >= 2:
            state.outdate_copies()
        if step == 3:
            state.set_outbox(None)
    with State.open(str(tmp_path), machine="m") as state:
        assert not state.is_clone
        use_a_number(state, 2)
    assert marks(tmp_path) == [f"mark-{object_id(record(2)).hex()}"]


def test_a_state_whose_mark_is_gone_is_no_longer_trusted(tmp_path: Path) -> None:
    with State.open(str(tmp_path), machine="m") as state:
        state.set_device(A, "a")
        use_a_number(state, 1)
    for name in marks(tmp_path):
        (tmp_path / name).unlink()
    with State.open(str(tmp_path), machine="m") as state:
        assert state.is_clone


def test_a_state_of_a_version_without_marks_goes_on(tmp_path: Path) -> None:
    with State.open(str(tmp_path), machine="m") as state:
        state.set_device(A, "a")
        state._set_trust("mark", None)
    for name in marks(tmp_path):
        (tmp_path / name).unlink()
    shutil.copytree(tmp_path, tmp_path / "backup")
    for seq in (1, 2):
        with State.open(str(tmp_path), machine="m") as state:
            assert not state.is_clone
            use_a_number(state, seq)
    put_back(tmp_path / "backup", tmp_path, "state.db")
    with State.open(str(tmp_path), machine="m") as state:
        assert state.is_clone


def test_a_mark_that_cannot_be_made_stops_before_a_number_is_used(tmp_path: Path) -> None:
    with State.open(str(tmp_path), machine="m") as state:
        state.set_device(A, "a")
        (tmp_path / f"mark-{object_id(record(1)).hex()}").mkdir()
        with pytest.raises(LocalError, match="mark-"):
            state.set_outbox(record(1))
        assert (state.own_seq(), state.outbox()) == (0, None)


def test_an_unknown_schema_costs_the_cache_and_keeps_the_trust(tmp_path: Path) -> None:
    with State.open(str(tmp_path), machine="m") as state:
        state.set_device(A, "a")
        state.set_tip(B, 3, ident(3))
        state.set_folder_object(b"folder")
        state.set_outbox(record(1))
        state.add_record(ident(1), b"x")
        state.set_value("applied", b"x")
        state.stage(b"", [row()], None)
        state.promote()
    database = sqlite3.connect(tmp_path / "state.db")
    database.executescript("PRAGMA user_version=99; DROP TABLE nodes; CREATE TABLE future (x); ALTER TABLE data ADD z")
    database.close()
    with State.open(str(tmp_path), machine="m") as state:
        assert state.device() == (A, "a")
        assert state.tips() == {B: (3, ident(3))}
        assert (state.folder_object(), state.outbox(), state.own_seq()) == (b"folder", record(1), 1)
        assert list(state.records()) == []
        assert state.fingerprints() == {}
        assert state.get_value("applied") is None
        state.add_nodes([(1, BlobId(ident(1)), b"x")])


def test_a_file_that_is_no_database_is_put_aside(tmp_path: Path) -> None:
    (tmp_path / "state.db").write_bytes(b"garbage" * 1000)
    with State.open(str(tmp_path), machine="m") as state:
        assert state.was_damaged
        assert state.device() is None
    assert (tmp_path / "state.db.damaged").read_bytes() == b"garbage" * 1000
    with pytest.raises(DamagedError):
        Connection(str(tmp_path / "state.db.damaged"))


def test_one_at_a_time(tmp_path: Path) -> None:
    with State.open(str(tmp_path), machine="m"):
        with pytest.raises(BusyError, match=f"process {os.getpid()}"):
            State.open(str(tmp_path), machine="m")
        code = "import sys; from buckia.local.state import State; State.open(sys.argv[1], machine='m')"
        child = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
        assert "BusyError: Another buckia is running on this folder" in child.stderr
    State.open(str(tmp_path), machine="m").close()


def test_a_state_that_cannot_be_made_is_a_local_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LocalError):
        State.open(str(tmp_path / "file" / "state"), machine="m")


def test_where_the_state_lies() -> None:
    env = {"BUCKIA_STATE_DIR": "/states"}
    places = {
        state_directory("/root", "s3://b", "f", env),
        state_directory("/root", "s3://b", "g", env),
        state_directory("/root", "s3://c", "f", env),
        state_directory("/other", "s3://b", "f", env),
        state_directory("/root\0s3://b", "", "f", env),
    }
    assert len(places) == 5
    assert all(os.path.dirname(place) == "/states" for place in places)
    assert "buckia" in state_directory("/root", "s3://b", "f", {})


def test_the_machine_has_a_steady_name() -> None:
    assert machine_id() == machine_id()
    assert len(machine_id()) == 32
