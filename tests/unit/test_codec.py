"""Blobs are stored in the smaller form, and no payload can claim memory or bytes that its row does not state."""

from __future__ import annotations

import random
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import pytest
import zstandard

from buckia.core.codec import RAW, RAW_LENGTH_MAX, ZSTD, Compressor, decompress
from buckia.errors import FormatError, UnsupportedFormatError

NOISE = random.Random(1).randbytes(300_000)
TEXT = b"".join(b"%d: the quick brown fox\n" % i for i in range(20_000))


def zstd(raw: bytes, **options: bool) -> bytes:
    return zstandard.ZstdCompressor(level=1, **options).compress(raw)


def raw_frame(window_log: int, states: int, body: bytes) -> bytes:
    """A frame with a window of its own, a stated size of four bytes, and one stored block."""
    block = (len(body) << 3 | 1).to_bytes(3, "little") + body
    return b"\x28\xb5\x2f\xfd" + bytes([0x80, (window_log - 10) << 3]) + states.to_bytes(4, "little") + block


@pytest.mark.parametrize("size", [1, 63, 64, 4096, 65536, 65537, 262144])
@pytest.mark.parametrize(("source", "codec"), [(TEXT, ZSTD), (NOISE, RAW), (bytes(300_000), ZSTD)])
def test_what_shrinks_is_compressed_and_nothing_grows(source: bytes, codec: int, size: int) -> None:
    raw = source[:size]
    chosen, payload = Compressor().compress(raw)
    assert chosen == (codec if size >= 64 else RAW) or (size == 64 and source is TEXT)
    assert len(payload) <= len(raw)
    assert decompress(chosen, payload, len(raw)) == raw


def test_a_saving_below_a_sixteenth_is_not_worth_it() -> None:
    raw = NOISE[:4000] + bytes(96)
    assert Compressor().compress(raw) == (RAW, raw)


@pytest.mark.parametrize("at", [0, 1, 2])
def test_one_compressible_sample_is_enough(at: int) -> None:
    third = len(NOISE) // 3
    raw = bytearray(NOISE)
    raw[at * third : (at + 1) * third] = bytes(third)
    assert Compressor().compress(raw)[0] == ZSTD


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer_is_taken(kind: type[bytes]) -> None:
    codec, payload = Compressor().compress(kind(TEXT))
    assert decompress(codec, kind(payload), len(TEXT)) == TEXT
    assert decompress(RAW, kind(TEXT), len(TEXT)) == TEXT


@pytest.mark.parametrize(("payload", "raw_length"), [(b"", 0), (b"abc", 2), (b"abc", 4), (b"abc", RAW_LENGTH_MAX + 1)])
def test_a_stored_payload_has_its_stated_length(payload: bytes, raw_length: int) -> None:
    with pytest.raises(FormatError):
        decompress(RAW, payload, raw_length)


SKIPPABLE = b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd"
PAGE = TEXT[:4096]
MALFORMED = {
    "empty": b"",
    "magic only": b"\x28\xb5\x2f\xfd",
    "truncated": zstd(PAGE)[:-1],
    "trailing byte": zstd(PAGE) + b"x",
    "two frames": zstd(PAGE) + zstd(PAGE),
    "frame and skippable frame": zstd(PAGE) + SKIPPABLE,
    "skippable frame first": SKIPPABLE + zstd(PAGE),
    "no stated size": zstd(PAGE, write_content_size=False),
    "states less": zstd(PAGE[:-1]),
    "states more": zstd(PAGE + b"x"),
    "holds less than stated": raw_frame(20, 4096, PAGE[:-1]),
    "holds more than stated": raw_frame(20, 4096, PAGE + b"x"),
    "window of 32 MiB": raw_frame(25, 4096, PAGE),
    "window of 2 GiB, truncated": raw_frame(31, 4096, PAGE)[:-1],
    "not zstd": PAGE,
    "legacy magic": b"\x27\xb5\x2f\xfd" + bytes(20),
}


@pytest.mark.parametrize("payload", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_frame_is_refused(payload: bytes) -> None:
    with pytest.raises(FormatError):
        decompress(ZSTD, payload, 4096)


def test_a_skippable_frame_is_no_blob() -> None:
    with pytest.raises(FormatError):
        decompress(ZSTD, SKIPPABLE, 4)


def test_a_bomb_costs_no_memory() -> None:
    bomb = zstd(bytes(1 << 28))
    assert len(bomb) < 20_000
    tracemalloc.start()
    for raw_length in (1000, RAW_LENGTH_MAX, 1 << 28):
        with pytest.raises(FormatError):
            decompress(ZSTD, bomb, raw_length)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


def test_checksums_of_other_writers_are_accepted_and_checked() -> None:
    frame = zstd(PAGE, write_checksum=True)
    assert decompress(ZSTD, frame, 4096) == PAGE
    with pytest.raises(FormatError):
        decompress(ZSTD, frame[:-1] + bytes([frame[-1] ^ 1]), 4096)


@pytest.mark.parametrize("codec", [2, 3, 255, -1])
def test_another_codec_is_unsupported(codec: int) -> None:
    with pytest.raises(UnsupportedFormatError):
        decompress(codec, b"abc", 3)


def test_a_failure_leaves_the_decompressor_usable() -> None:
    for _ in range(3):
        with pytest.raises(FormatError):
            decompress(ZSTD, zstd(PAGE)[:-1], 4096)
        assert decompress(ZSTD, zstd(PAGE), 4096) == PAGE


def test_threads_decompress_at_the_same_time() -> None:
    raws = [TEXT[i * 1000 : i * 1000 + 200_000] for i in range(40)]
    frames = [zstd(raw) for raw in raws]
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(lambda pair: decompress(ZSTD, pair[0], len(pair[1])), zip(frames, raws, strict=True)))
    assert read == raws
