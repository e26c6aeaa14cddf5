"""Devices for tests that sync for real: a directory, its own state, and a bucket folder, all in one process."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from buckia import BuckiaClient
from buckia.core import canonical
from buckia.core.ids import BlobId, BlobType, DeviceId, blob_id, content_hash, object_id
from buckia.core.pack import PackBuilder
from buckia.core.record import (
    PackRef,
    Record,
    Snapshot,
    encode_record,
    pack_key,
    parse_tip_key,
    record_key,
    tip_key,
)
from buckia.events import SyncResult
from buckia.sync import factory
from buckia.sync.base import BaseSync
from buckia.sync.factory import BackendConfig
from buckia.sync.local import LocalSync

Tree = dict[str, bytes]

TICK_SECONDS = 0.06
"""What was changed longer ago than this is told apart by its stat alone."""
OLD_NS = 1_700_000_000_123_456_789


@dataclass
class Device:
    """One directory on one machine, tied to one folder of a bucket."""

    root: Path
    location: str
    state: Path
    name: str = "amber fox"

    def __post_init__(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)

    def client(self) -> BuckiaClient:
        return BuckiaClient.for_location(self.location, state_dir=self.state, device_name=self.name)

    def sync(self, **options: Any) -> SyncResult:
        with self.client() as client:
            return client.sync(self.root, **options)

    def write(self, path: str, content: bytes | str, *, mtime_ns: int | None = None) -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        if mtime_ns is not None:
            os.utime(file, ns=(mtime_ns, mtime_ns))
        return file

    def fill(self, tree: Mapping[str, bytes | str]) -> None:
        for path, content in tree.items():
            self.write(path, content)

    def read(self, path: str) -> bytes:
        return (self.root / path).read_bytes()

    def tree(self) -> Tree:
        """All files by path, but for what is our own."""
        return tree_of(self.root)

    def trash(self) -> Tree:
        """What was removed here, by the path that it had."""
        found = tree_of(self.root / ".buckia-trash")
        return {path.partition("/")[2]: content for path, content in found.items()}

    def versions(self, path: str) -> set[bytes]:
        """Every content that a restore of any snapshot brings back at a path, conflict copies included."""
        stem, dot, suffix = path.rpartition(".")
        begin = stem if dot else suffix
        found: set[bytes] = set()
        with self.client() as client:
            for number, snapshot in enumerate(client.snapshots()):
                target = self.state / "restored" / str(number)
                client.restore(snapshot.id, target=target)
                found |= {data for name, data in tree_of(target).items() if name.startswith(begin)}
        return found

    def in_bucket(self) -> Tree:
        """All files of the newest state in the bucket."""
        with self.client() as client:
            return {info.path: b"".join(client.cat(info.path)) for info in client.list_files() if info.kind == "file"}


@dataclass
class World:
    """A place for a bucket and devices, below a directory of the test."""

    base: Path
    folder: str = "folder"
    devices: dict[str, Device] = field(default_factory=dict)

    @property
    def bucket(self) -> Path:
        return self.base / "bucket"

    @property
    def location(self) -> str:
        return str(self.bucket / self.folder)

    @property
    def repository(self) -> Path:
        return self.bucket / self.folder / "_buckia"

    def device(self, name: str) -> Device:
        if name not in self.devices:
            self.devices[name] = Device(self.base / name, self.location, self.base / "state" / name, name)
        return self.devices[name]

    def pair(self) -> tuple[Device, Device]:
        """Two devices of one folder."""
        return self.device("a"), self.device("b")

    def objects(self) -> dict[str, Path]:
        """All objects of the folder, by their key in its repository."""
        if not self.repository.exists():
            return {}
        found = (path for path in self.repository.rglob("*") if path.is_file())
        return {path.relative_to(self.repository).as_posix(): path for path in sorted(found)}

    def bytes(self) -> Tree:
        return {key: path.read_bytes() for key, path in self.objects().items()}

    def of_kind(self, kind: str) -> list[Path]:
        """The objects below one directory of the repository: ``packs``, ``journal``, ``tips``, ``segments``."""
        return [path for key, path in self.objects().items() if key.startswith(f"{kind}/")]


def tree_of(root: Path) -> Tree:
    """All files below a directory by path, but for what is our own."""
    found: Tree = {}
    for directory, names, files in os.walk(root):
        names[:] = [name for name in names if not name.startswith(".buckia")]
        for name in files:
            path = Path(directory, name)
            if not name.startswith(".buckia") or name.startswith(".buckiaignore"):
                content = os.readlink(path).encode() if path.is_symlink() else path.read_bytes()
                found[path.relative_to(root).as_posix()] = content
    return found


def leftovers(root: Path) -> list[str]:
    """Temporary files of ours anywhere below a directory."""
    return [str(path) for path in root.rglob(".buckia-tmp*")]


def noise(size: int, seed: int = 0) -> bytes:
    """Incompressible bytes, the same every time."""
    return hashlib.shake_128(seed.to_bytes(8)).digest(size)


def wait_a_tick() -> None:
    """Let the file system's clock go on, so that a stat taken now tells what was changed before."""
    time.sleep(TICK_SECONDS)


@contextmanager
def provider(name: str, make: Callable[[BackendConfig], BaseSync]) -> Iterator[str]:
    """A provider that exists inside the block only."""
    factory.register(name, make)
    try:
        yield name
    finally:
        del factory._registered[name]


def local_bucket(directory: Path) -> LocalSync:
    """A local bucket that need not outlive the power supply."""
    directory.mkdir(parents=True, exist_ok=True)
    return LocalSync(directory, durable=False)


# ---- forged folders: what a hostile or broken writer could put into a bucket

FORGER = DeviceId(b"\xf0" * 16)
Row = list[Any]


def forged_file(name: bytes, blob: BlobId, size: int) -> Row:
    """An entry as it stands in a node, without any of an encoder's checks."""
    return [name, [[0, 1, 0, size, OLD_NS, 0o644, [0, blob], None]], None]


def forged_link(name: bytes, target: bytes) -> Row:
    return [name, [[0, 1, 1, len(target), OLD_NS, 0, target, None]], None]


def forged_directory(name: bytes, node: BlobId, hash_: bytes, files: int, size: int) -> Row:
    return [name, [], [node, hash_, files, size]]


class Forger:
    """Writes a snapshot with any rows into the repository of a folder that exists."""

    def __init__(self, repository: Path) -> None:
        self.repository = repository
        self.builder = PackBuilder(b"\x05" * 32)

    def chunk(self, raw: bytes) -> BlobId:
        return self.blob(BlobType.CHUNK, raw)

    def blob(self, kind: BlobType, raw: bytes) -> BlobId:
        name = blob_id(kind, raw)
        self.builder.add(kind, 0, name, len(raw), raw)
        return name

    def node(self, rows: Iterable[Row]) -> tuple[BlobId, bytes]:
        """A directory node of level 0, and its content hash."""
        items = list(rows)
        devices = [FORGER] if any(row[1] for row in items) else []
        raw = canonical.encode([1, 1, 0, devices, items])
        shown = [
            (row[0], [(version[2], version[5], version[6]) for version in row[1]], row[2] and row[2][1])
            for row in items
        ]
        return self.blob(BlobType.DIRECTORY, raw), content_hash(canonical.encode([0, shown]))

    def publish(self, rows: Iterable[Row], *, files: int = 1, size: int = 0) -> None:
        """Make these rows the folder's newest state."""
        node, shown = self.node(rows)
        sealed = self.builder.finish()
        self._put(pack_key(sealed.id), bytes(sealed.data))
        body = Snapshot(node, shown, files, size, (PackRef(sealed.id, len(sealed.data), sealed.rows),))
        vector = tuple(sorted(_tips(self.repository)))
        data = encode_record(Record(FORGER, 1, None, (), vector, OLD_NS, "forger", body))
        name = object_id(data)
        self._put(record_key(FORGER, 1, name), data)
        self._put(tip_key(FORGER, 1, name), bytes(name))

    def _put(self, key: str, data: bytes) -> None:
        path = self.repository / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def _tips(repository: Path) -> Iterator[tuple[Any, int, Any]]:
    for path in (repository / "tips").iterdir():
        parsed = parse_tip_key(f"tips/{path.name}")
        assert parsed is not None
        yield parsed


# ---- command lines in processes of their own

CHECKOUT = Path(__file__).parents[2]


def process(
    *arguments: str, cwd: Path, before: str = "", encoding: str = "utf-8", **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a command line in a new process, after the statements ``before``."""
    script = f"import sys\n{before}\nfrom buckia.cli import main\nmain(sys.argv[1:])"
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT), **environment},
        capture_output=True,
        encoding=encoding,
        check=False,
        timeout=120,
    )


def as_user(uid: int, work: Callable[[], int]) -> tuple[int, str, str]:
    """Do some work in a forked process as another user: (exit code, stdout, stderr).

    Modules that it needs must have been imported: the interpreter may lie where that user cannot look.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if child == 0:
            code = 99
            try:
                os.dup2(out.fileno(), 1)
                os.dup2(err.fileno(), 2)
                sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115  # the process ends before it could be closed
                sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
                os.setgroups([])
                os.setgid(uid)
                os.setuid(uid)
                code = work()
                sys.stdout.flush()
                sys.stderr.flush()
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        texts = []
        for stream in (out, err):
            stream.seek(0)
            texts.append(stream.read().decode())
    return os.waitstatus_to_exitcode(status), texts[0], texts[1]


@contextmanager
def small_disk(directory: Path, size: int) -> Iterator[Path]:
    """A file system of ``size`` bytes at a directory; skips the test where none may be mounted."""
    directory.mkdir(parents=True, exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(directory)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("no file system may be mounted here")
    try:
        yield directory
    finally:
        subprocess.run(["umount", "-l", str(directory)], check=True)
