"""What one thread can do at most, per stage of a first sync. By itself: ``python -m tests.bench.stages``."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import zstandard
from blake3 import blake3

from buckia.core import chunker
from tests.bench import corpus

_BYTES = 192 << 20
"""More than the caches of a processor hold."""
_PIECE = 256 << 10
"""Hashed and compressed piece by piece, as chunks are."""


@dataclass(frozen=True, slots=True)
class Work:
    """Bytes of a first sync by the stage that they pass."""

    raw: int
    compressible: int
    stored: int

    def seconds(self, speeds: dict[str, float]) -> dict[str, float]:
        """Seconds of one thread per stage at these speeds (GB/s)."""
        passes = {
            "read": self.raw,
            "chunker": self.raw,
            "BLAKE3": self.raw + self.stored,
            "SHA-256": self.raw,
            "zstd-1 text": self.compressible,
            "memcpy": self.stored,
            "write": self.stored,
        }
        return {stage: count / speeds[stage] / 1e9 for stage, count in passes.items()}


def measure_stages(workdir: Path) -> dict[str, float]:
    """GB/s of one thread by stage; the best of several passes over 192 MiB each."""
    path = workdir / "stages.bin"
    data = bytearray(corpus.stream("stages", _BYTES))
    text = corpus.prose("stages", 4 * corpus.MB) * (_BYTES // (4 * corpus.MB))
    pieces, texts = _pieces(data), _pieces(text)
    target = bytearray(_BYTES)
    buffer = bytearray(1 << 20)
    compressor = zstandard.ZstdCompressor(level=1)
    kernel = chunker.kernel()

    def read() -> None:
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass

    def write() -> None:
        with path.open("wb", buffering=0) as file:
            for piece in pieces:
                file.write(piece)
            os.fsync(file.fileno())

    def copy() -> None:
        target[:] = data

    try:
        speeds = {"write": _speed(write), "read": _speed(read)}
    finally:
        path.unlink(missing_ok=True)
    speeds |= {
        "memcpy": _speed(copy),
        "chunker": _speed(lambda: kernel.cuts(data, final=True)),
        "BLAKE3": _speed(lambda: [blake3(piece).digest() for piece in pieces]),
        "SHA-256": _speed(lambda: hashlib.sha256(data).digest()),
        "zstd-1 text": _speed(lambda: [compressor.compress(piece) for piece in texts], len(text)),
        "zstd-1 random": _speed(lambda: [compressor.compress(piece) for piece in pieces]),
    }
    return speeds


def _pieces(data: bytes | bytearray) -> list[memoryview]:
    view = memoryview(data)
    return [view[start : start + _PIECE] for start in range(0, len(view), _PIECE)]


def _speed(action: Callable[[], object], count: int = _BYTES) -> float:
    best = float("inf")
    spent = 0.0
    while spent < 0.4:
        start = time.perf_counter()
        action()
        elapsed = time.perf_counter() - start
        best, spent = min(best, elapsed), spent + elapsed
    return count / best / 1e9


def main() -> int:
    """Print one JSON object: GB/s by stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workdir", type=Path, required=True)
    print(json.dumps(measure_stages(parser.parse_args().workdir)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
