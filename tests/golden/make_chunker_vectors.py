"""Writes ``specs/vectors/chunker.json``: ``python tests/golden/make_chunker_vectors.py``.

Transcribed from ``specs/format.md``, section 5, byte by byte, and deliberately without a line of buckia: what the two
agree on is the specification. An input is a list of segments: ``{"xof": label, "from": o, "length": n}`` is the n
bytes at offset o of BLAKE3(label)'s extended output, ``{"hex": bytes, "times": n}`` is those bytes n times over.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from blake3 import blake3

TARGET = Path(__file__).resolve().parents[2] / "specs" / "vectors" / "chunker.json"
K = 1024
MASK = 2**64 - 1

table = blake3(b"", derive_key_context="buckia v1 public gear").digest(length=2048)
G = [int.from_bytes(table[8 * i : 8 * i + 8], "big") for i in range(256)]


def expand(segments: list[dict[str, Any]]) -> bytes:
    parts = []
    for segment in segments:
        if "xof" in segment:
            parts.append(blake3(segment["xof"].encode()).digest(length=segment["length"], seek=segment["from"]))
        else:
            parts.append(bytes.fromhex(segment["hex"]) * segment["times"])
    return b"".join(parts)


def window_hash(window: bytes) -> int:
    assert len(window) == 64
    return sum(G[window[63 - t]] << t for t in range(64)) & MASK


def hashes(data: bytes) -> list[int]:
    """H at every position; the first 63 lack bytes before them, and no rule looks at those."""
    result = []
    h = 0
    for byte in data:
        h = (2 * h + G[byte]) & MASK
        result.append(h)
    for i in range(63, len(data), 99_991):
        assert result[i] == window_hash(data[i - 63 : i + 1])
    return result


def top(h: int, bits: int) -> int:
    return h >> (64 - bits)


def cuts(data: bytes) -> list[int]:
    h = hashes(data)
    ends = []
    start = 0
    for i in range(len(data)):
        length = i + 1 - start
        if (
            (65536 <= length < 262144 and top(h[i], 20) == 0)
            or (262144 <= length < 1048576 and top(h[i], 16) == 0)
            or length == 1048576
        ):
            ends.append(i + 1)
            start = i + 1
    if start < len(data):
        ends.append(len(data))
    return ends


def windows() -> tuple[str, str]:
    """64 bytes that end a chunk in either phase, and 64 bytes that do so only in the second."""
    data = expand([xof("windows", 4096 * K)])
    h = hashes(data)
    strict = next(i for i in range(63, len(data)) if top(h[i], 20) == 0)
    loose = next(i for i in range(63, len(data)) if top(h[i], 16) == 0 and top(h[i], 20) != 0)
    return data[strict - 63 : strict + 1].hex(), data[loose - 63 : loose + 1].hex()


def xof(label: str, length: int, start: int = 0) -> dict[str, Any]:
    return {"xof": f"buckia chunker vector {label}", "from": start, "length": length}


def fill(byte: str, times: int) -> dict[str, Any]:
    return {"hex": byte, "times": times}


def planted(window: str, end: int, size: int) -> list[dict[str, Any]]:
    """Zeros (which never end a chunk) of this size with the window ending at this offset."""
    return [fill("00", end - 64), {"hex": window, "times": 1}, fill("00", size - end)]


def inputs() -> dict[str, list[dict[str, Any]]]:
    strict, loose = windows()
    return {
        "empty": [],
        "one byte": [fill("61", 1)],
        "one byte below the minimum": [xof("a", 64 * K - 1)],
        "the minimum": [xof("a", 64 * K)],
        "one byte above the minimum": [xof("a", 64 * K + 1)],
        "random 300 KiB": [xof("b", 300 * K)],
        "random 2 MiB": [xof("c", 2048 * K)],
        "random 2 MiB, one byte before": [fill("00", 1), xof("c", 2048 * K)],
        "random 2 MiB, 1000 bytes in the middle": [
            xof("c", 999_999),
            xof("d", 1000),
            xof("c", 2048 * K - 999_999, 999_999),
        ],
        "zeros below the maximum": [fill("00", 1024 * K - 1)],
        "zeros of the maximum": [fill("00", 1024 * K)],
        "zeros above the maximum": [fill("00", 1024 * K + 1)],
        "0xff": [fill("ff", 700 * K)],
        "text": [fill(b"All work and no play makes Jack a dull boy.\n".hex(), 12_000)],
        "random in zeros": [fill("00", 150 * K), xof("e", 500 * K), fill("00", 700 * K)],
        "strict window ends one byte before the minimum": planted(strict, 64 * K - 1, 80 * K),
        "strict window ends at the minimum": planted(strict, 64 * K, 80 * K),
        "strict window ends one byte after the minimum": planted(strict, 64 * K + 1, 80 * K),
        "loose window ends at the minimum": planted(loose, 64 * K, 80 * K),
        "loose window ends two bytes before the average": planted(loose, 256 * K - 2, 260 * K),
        "loose window ends one byte before the average": planted(loose, 256 * K - 1, 260 * K),
        "strict window ends one byte before the average": planted(strict, 256 * K - 1, 260 * K),
        "loose window ends at the average": planted(loose, 256 * K, 260 * K),
        "loose window ends one byte before the maximum": planted(loose, 1024 * K - 1, 1025 * K),
        "loose window ends at the maximum": planted(loose, 1024 * K, 1025 * K),
        "loose window ends one byte after the maximum": planted(loose, 1024 * K + 1, 1100 * K),
    }


def pages() -> list[dict[str, Any]]:
    """Heads of files and the page size that they are cut by; null is the default profile."""
    magic = b"SQLite format 3\0"
    sizes = {512: 512, 1024: 1024, 4096: 4096, 32768: 32768, 1: 65536}
    sizes |= {0: None, 2: None, 256: None, 513: None, 4097: None, 65535: None, 49152: None}
    heads = [{"head": (magic + field.to_bytes(2, "big")).hex(), "page": page} for field, page in sizes.items()]
    heads += [{"head": bad.hex(), "page": None} for bad in (b"", magic, magic + b"\x10", b"SQLite format 2\0\x10\0")]
    return heads


def main() -> None:
    vectors = [
        {"name": name, "input": segments, "size": len(data := expand(segments)), "ends": cuts(data)}
        for name, segments in inputs().items()
    ]
    document = {
        "about": "Made by tests/golden/make_chunker_vectors.py from specs/format.md, section 5.",
        "table": blake3(table).hexdigest(),
        "default": vectors,
        "pages": pages(),
    }
    TARGET.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
