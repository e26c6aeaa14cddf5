"""Identities: blobs by keyed BLAKE3 of their bytes, objects by BLAKE3 of theirs, devices by random bytes.

See ``specs/format.md``, sections 1 and 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import NewType

from blake3 import blake3

BlobId = NewType("BlobId", bytes)
"""32 bytes: keyed hash of a blob's raw bytes."""

ObjectId = NewType("ObjectId", bytes)
"""32 bytes: hash of an object (pack, record or segment)."""

DeviceId = NewType("DeviceId", bytes)
"""16 random bytes; one per local state."""

ID_BYTES = 32
DEVICE_ID_BYTES = 16

Buffer = bytes | bytearray | memoryview


class BlobType(IntEnum):
    """What a blob is; part of what its id is computed from."""

    CHUNK = 0
    DIRECTORY = 1
    CHUNK_LIST = 2


@dataclass(frozen=True, slots=True)
class Dot:
    """Who wrote a version: the record ``seq`` of ``device``. Ordered by (device, seq)."""

    device: DeviceId
    seq: int

    def __lt__(self, other: Dot) -> bool:
        return (self.device, self.seq) < (other.device, other.seq)


def derive_key(context: str, material: bytes = b"", length: int = ID_BYTES) -> bytes:
    """BLAKE3 in derive-key mode (BLAKE3 paper, section 2.5)."""
    return blake3(material, derive_key_context=context).digest(length=length)


PUBLIC_ID_KEYS: tuple[bytes, ...] = tuple(derive_key("buckia v1 public id", bytes([kind])) for kind in BlobType)
"""The keys of blob ids in folders without encryption, by blob type."""

_CONTENT_KEY = derive_key("buckia v1 content")


def blob_id(kind: BlobType | int, raw: Buffer, keys: tuple[bytes, ...] = PUBLIC_ID_KEYS) -> BlobId:
    """The id of a blob with these raw bytes."""
    return BlobId(blake3(raw, key=keys[kind]).digest())


def object_id(data: Buffer) -> ObjectId:
    """The id of a pack, record or segment: the hash of the object."""
    return ObjectId(blake3(data).digest())


def content_hash(encoded: bytes) -> bytes:
    """The content hash of a node, from the canonical bytes of what it covers."""
    return blake3(encoded, key=_CONTENT_KEY).digest()
