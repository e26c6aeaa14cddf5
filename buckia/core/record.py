"""Records, the folder object, and the keys of all objects. See ``specs/format.md``, sections 1, 3, 6 and 7."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from buckia.core import canonical
from buckia.core.canonical import Value, ascending, fields, within
from buckia.core.ids import DEVICE_ID_BYTES, ID_BYTES, Buffer, DeviceId, ObjectId
from buckia.core.pack import PACK_BYTES_MAX, PACK_BYTES_MIN, ROW_BYTES
from buckia.errors import FormatError, IntegrityError, UnsupportedFormatError

RECORD_BYTES_MAX = 8 << 20
SEQ_MAX = 9_999_999_999
CHAIN_MAX = 1 << 22
COUNT_MAX = (1 << 53) - 1
TIME_NS_MAX = (1 << 63) - 1
DEVICES_MAX = 4096
FEATURES_MAX = 64
WORD_BYTES_MAX = 64
DEVICE_NAME_BYTES_MAX = 64
RECORD_PACKS_MAX = 1 << 16
INLINE_ROWS_BYTES_MAX = 1 << 20
FOLDER_NAME_BYTES_MAX = 1024
FOLDER_BYTES_MAX = 2 * FOLDER_NAME_BYTES_MAX

FEATURES: frozenset[str] = frozenset()
"""The features that this version knows."""

_HEADER = b"BKJR\x01\x00\x00\x00"
_FOLDER = ("buckia", 1, 1, 0)
_NONE = type(None)

_HEX = "[0-9a-f]"
_TIP = re.compile(rf"tips/({_HEX}{{32}})\.([0-9]{{10}})-({_HEX}{{64}})")
_RECORD = re.compile(rf"journal/({_HEX}{{32}})/([0-9]{{10}})-({_HEX}{{64}})")
_PACK = re.compile(rf"packs/({_HEX}{{2}})/(\1{_HEX}{{62}})")
_SEGMENT = re.compile(rf"segments/({_HEX}{{64}})")


@dataclass(frozen=True, slots=True)
class PackRef:
    """A pack that a commit added: its size in bytes and, where it is small, its encoded footer rows."""

    id: ObjectId
    size: int
    rows: bytes | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A state of the folder: its two roots, current files and their bytes, and the packs that this commit added."""

    state_root: bytes
    content_root: bytes
    files: int
    bytes: int
    packs: tuple[PackRef, ...]


@dataclass(frozen=True, slots=True)
class Condemn:
    """Packs that a collector intends to delete, sorted."""

    packs: tuple[ObjectId, ...]


@dataclass(frozen=True, slots=True)
class Ack:
    """The device exists and has seen what its vector names."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """A body that this version does not understand: another kind, or a feature that may change its meaning."""

    kind: str


Body = Snapshot | Condemn | Ack | Unknown
Named = tuple[DeviceId, int, ObjectId]
"""What names a record: its device, its seq, its hash."""


@dataclass(frozen=True, slots=True)
class Record:
    """One link of a device's chain. ``vector`` is sorted by device and leaves out the record's own."""

    device: DeviceId
    seq: int
    prev: ObjectId | None
    features: tuple[str, ...]
    vector: tuple[Named, ...]
    time_ns: int
    name: str
    body: Body

    @property
    def kind(self) -> str:
        """``snapshot``, ``condemn``, ``ack``, or what another version calls it."""
        return self.body.kind if isinstance(self.body, Unknown) else _KINDS[type(self.body)]

    @property
    def knowledge(self) -> dict[DeviceId, int]:
        """Per device the seq of the newest record whose effects this one includes, itself among them."""
        return {**{device: seq for device, seq, _ in self.vector}, self.device: self.seq}

    @property
    def named(self) -> tuple[Named, ...]:
        """The records that this one names, its predecessor among them."""
        before = () if self.prev is None else ((self.device, self.seq - 1, self.prev),)
        return (*self.vector, *before)


_KINDS: dict[type, str] = {Snapshot: "snapshot", Condemn: "condemn", Ack: "ack"}


def encode_record(record: Record) -> bytes:
    """The record's object. Raises ``FormatError`` for one that ``decode_record`` would refuse or not understand."""
    value = (
        record.device,
        record.seq,
        record.prev,
        record.kind,
        record.features,
        record.vector,
        record.time_ns,
        record.name,
        _body_value(record.body),
        None,
    )
    data = _HEADER + canonical.encode(value)
    if decode_record(data) != record:
        raise FormatError("A record that does not decode to itself.")
    return data


def decode_record(data: Buffer) -> Record:
    """The record in an object. Raises ``FormatError``; another version or suite is ``UnsupportedFormatError``.

    A record of an unknown kind or feature has the body ``Unknown``, so that its place in the history is known.
    """
    if len(data) > RECORD_BYTES_MAX:
        raise FormatError(f"A record of {len(data)} bytes is larger than {RECORD_BYTES_MAX}.")
    check_magic(data, _HEADER, "record")
    payload = memoryview(data)[len(_HEADER) :]
    value = canonical.decode(payload, size_max=RECORD_BYTES_MAX)
    prev_types = (bytes, _NONE)
    types = (bytes, int, prev_types, str, list, list, int, str, list, object)
    device, seq, prev, kind, features, vector, time_ns, name, body, signature = fields(value, types, "record")
    _device(device)
    within(seq, 1, SEQ_MAX, "seq")
    within(time_ns, -TIME_NS_MAX - 1, TIME_NS_MAX, "time")
    if (prev is None) != (seq == 1):
        raise FormatError("A record names its predecessor iff it is not the first.")
    if prev is not None:
        _id(prev)
    _text(name, DEVICE_NAME_BYTES_MAX, "device name")
    _text(kind, WORD_BYTES_MAX, "kind")
    known_features = _features(features)
    decoded: Body
    if kind not in _BODIES or not FEATURES.issuperset(known_features):
        decoded = Unknown(kind)
    else:
        decoded = _BODIES[kind](body)
        if signature is not None:
            raise FormatError("A signed record without a feature that defines signatures.")
    return Record(device, seq, prev, known_features, _vector(vector, device), time_ns, name, decoded)


def vocabulary() -> bytes:
    """The kinds and features that this version knows, as one value: with another one records mean another thing."""
    return canonical.encode((tuple(sorted(_BODIES)), tuple(sorted(FEATURES))))


def encode_folder(name: str) -> bytes:
    """The folder object of the folder with this name (``""`` at the bucket's top)."""
    _text(name, FOLDER_NAME_BYTES_MAX, "folder name")
    return canonical.encode((*_FOLDER, name))


def check_folder(data: Buffer, name: str) -> None:
    """Raise unless this is the folder object of ``name``.

    ``UnsupportedFormatError`` for another version, chunker or suite, ``IntegrityError`` for another folder's object.
    """
    value = canonical.decode(data, size_max=FOLDER_BYTES_MAX)
    if not isinstance(value, list) or value[:1] != [_FOLDER[0]]:
        raise FormatError("The folder object is not one of buckia's.")
    if value[1:4] != list(_FOLDER[1:]):
        raise UnsupportedFormatError(
            "The folder was made by another version of buckia.", hint="Install the newest version of buckia."
        )
    if value[4:] != [name]:
        raise IntegrityError(f"The folder object of '{name}' is that of another folder.")


def folder_key() -> str:
    """The key of the folder object; this and the keys below are relative to the repository's root."""
    return "folder"


def tip_key(device: DeviceId, seq: int, record: ObjectId) -> str:
    """The key of the tip that names a record."""
    return f"tips/{device.hex()}.{seq:010}-{record.hex()}"


def record_key(device: DeviceId, seq: int, record: ObjectId) -> str:
    """The key of a record."""
    return f"journal/{device.hex()}/{seq:010}-{record.hex()}"


def pack_key(pack: ObjectId) -> str:
    """The key of a pack."""
    return f"packs/{pack[:1].hex()}/{pack.hex()}"


def segment_key(segment: ObjectId) -> str:
    """The key of a segment."""
    return f"segments/{segment.hex()}"


def parse_tip_key(key: str) -> Named | None:
    """Device, seq and record of a tip's key; ``None`` for any other key."""
    return _parse_numbered(_TIP, key)


def parse_record_key(key: str) -> Named | None:
    """Device, seq and hash of a record's key; ``None`` for any other key."""
    return _parse_numbered(_RECORD, key)


def parse_pack_key(key: str) -> ObjectId | None:
    """The id in a pack's key; ``None`` for any other key."""
    match = _PACK.fullmatch(key)
    return ObjectId(bytes.fromhex(match[2])) if match else None


def parse_segment_key(key: str) -> ObjectId | None:
    """The hash in a segment's key; ``None`` for any other key."""
    match = _SEGMENT.fullmatch(key)
    return ObjectId(bytes.fromhex(match[1])) if match else None


def check_magic(data: Buffer, header: bytes, what: str) -> None:
    """Raise unless ``data`` begins with the 8 bytes of ``header``: magic, version, suite, zeros."""
    start = bytes(data[:8])
    if len(start) < 8 or start[:4] != header[:4]:
        raise FormatError(f"Not a {what}.")
    if start[4:6] != header[4:6]:
        raise UnsupportedFormatError(f"A {what} of version {start[4]}, suite {start[5]}.")
    if start != header:
        raise FormatError(f"A {what} with a malformed header.")


def _parse_numbered(pattern: re.Pattern[str], key: str) -> Named | None:
    match = pattern.fullmatch(key)
    if match is None or int(match[2]) == 0:
        return None
    return DeviceId(bytes.fromhex(match[1])), int(match[2]), ObjectId(bytes.fromhex(match[3]))


def _body_value(body: Body) -> Value:
    match body:
        case Snapshot():
            packs = tuple((pack.id, pack.size, pack.rows) for pack in body.packs)
            return (body.state_root, body.content_root, body.files, body.bytes, packs)
        case Condemn():
            return (body.packs,)
        case Ack():
            return ()
        case Unknown():
            raise FormatError(f"A record of kind '{body.kind}' cannot be written by this version.")


def _decode_snapshot(body: object) -> Snapshot:
    state, content, files, size, packs = fields(body, (bytes, bytes, int, int, list), "snapshot")
    _id(state)
    _id(content)
    within(files, 0, COUNT_MAX, "number of files")
    within(size, 0, COUNT_MAX, "number of bytes")
    within(len(packs), 0, RECORD_PACKS_MAX, "number of packs")
    refs = tuple(map(_pack_ref, packs))
    if len({ref.id for ref in refs}) != len(refs):
        raise FormatError("A snapshot names a pack twice.")
    inline = sum(len(ref.rows) for ref in refs if ref.rows is not None)
    within(inline, 0, INLINE_ROWS_BYTES_MAX, "number of inline bytes")
    return Snapshot(state, content, files, size, refs)


def _pack_ref(value: object) -> PackRef:
    pack, size, rows = fields(value, (bytes, int, (bytes, _NONE)), "pack reference")
    _id(pack)
    within(size, PACK_BYTES_MIN, PACK_BYTES_MAX, "pack size")
    if rows is not None and (len(rows) % ROW_BYTES or not rows):
        raise FormatError("Inline rows that are not whole rows.")
    return PackRef(pack, size, rows)


def _decode_condemn(body: object) -> Condemn:
    (packs,) = fields(body, (list,), "condemn record")
    within(len(packs), 0, RECORD_PACKS_MAX, "number of packs")
    for pack in packs:
        _id(pack)
    ascending(packs, "condemned packs")
    return Condemn(tuple(packs))


def _decode_ack(body: object) -> Ack:
    fields(body, (), "ack record")
    return Ack()


_BODIES: dict[str, Callable[[object], Body]] = {
    "snapshot": _decode_snapshot,
    "condemn": _decode_condemn,
    "ack": _decode_ack,
}


def _features(values: Sequence[object]) -> tuple[str, ...]:
    within(len(values), 0, FEATURES_MAX, "number of features")
    for value in values:
        _text(value, WORD_BYTES_MAX, "feature")
    ascending(values, "features")
    return tuple(map(str, values))


def _vector(values: Sequence[object], own: DeviceId) -> tuple[Named, ...]:
    within(len(values), 0, DEVICES_MAX, "number of devices")
    vector = []
    for value in values:
        device, seq, record = fields(value, (bytes, int, bytes), "vector")
        _device(device)
        within(seq, 1, SEQ_MAX, "seq")
        _id(record)
        if device == own:
            raise FormatError("The vector of a record names its own device.")
        vector.append((device, seq, record))
    ascending((device for device, _, _ in vector), "devices of a vector")
    return tuple(vector)


def _text(value: object, bytes_max: int, what: str) -> None:
    if not isinstance(value, str):
        raise FormatError(f"A {what} that is not text.")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise FormatError(f"A {what} that is not valid Unicode.") from None
    within(size, 0, bytes_max, f"{what}'s length in bytes")


def _bin(length: int, value: object) -> None:
    if not isinstance(value, bytes) or len(value) != length:
        raise FormatError(f"An id that is not {length} bytes long.")


_id = partial(_bin, ID_BYTES)
_device = partial(_bin, DEVICE_ID_BYTES)
