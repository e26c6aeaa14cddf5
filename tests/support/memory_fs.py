"""A disk in memory: quick, deterministic, and able to die at any call and to lose what was not flushed.

It implements ``buckia.local.fs.FileSystem``. Users' programs are played by ``put``, ``get``, ``move``, ``remove`` and
``tree``, which are no calls of the product: they neither count nor fail.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, Self, TypeVar

from buckia.errors import LocalError
from buckia.local.fs import (
    DIRECTORY,
    FILE,
    SYMLINK,
    DiskEntry,
    DiskFullError,
    ExistsError,
    RawEntry,
    VanishedError,
)

Hook = Callable[[str, str, str], None]
"""Called with (call, phase, path): phase ``before``, ``during`` (half of a write is done) or ``after``. May raise."""

START_NS = 1_700_000_000_000_000_000
F = TypeVar("F", bound=Callable[..., Any])


class SimulatedCrash(BaseException):
    """The process died. Not an Exception, so that nothing in the product takes it for a failure to handle."""


class _Inode:
    __slots__ = ("ctime_ns", "data", "durable", "entries", "kind", "mode", "mtime_ns", "number")

    def __init__(self, number: int, kind: int, mode: int, now_ns: int) -> None:
        self.number = number
        self.kind = kind
        self.mode = mode
        self.data = b""
        self.durable = b""
        self.mtime_ns = self.ctime_ns = now_ns
        self.entries: dict[str, tuple[str, _Inode]] = {}


def _call(name: str) -> Callable[[F], F]:
    def decorate(method: F) -> F:
        @wraps(method)
        def call(self: MemoryFileSystem, path: str, *args: Any, **kwargs: Any) -> Any:
            self._happens(name, "before", path)
            result = method(self, path, *args, **kwargs)
            self._happens(name, "after", path)
            return result

        return call  # type: ignore[return-value]  # the wrapper takes what the method takes

    return decorate


class _Handle:
    def __init__(self, fs: MemoryFileSystem, path: str, inode: _Inode) -> None:
        self._fs = fs
        self._path = path
        self._inode = inode
        self._position = 0

    def readinto(self, buffer: bytearray | memoryview) -> int:
        self._fs._happens("read", "before", self._path)
        data = self._inode.data[self._position : self._position + len(buffer)]
        buffer[: len(data)] = data
        self._position += len(data)
        self._fs._happens("read", "after", self._path)
        return len(data)

    def read_at(self, offset: int, length: int) -> bytes:
        self._fs._happens("read", "before", self._path)
        return self._inode.data[offset : offset + length]

    def stat(self) -> DiskEntry:
        return self._fs._entry("", self._inode)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._fs._happens("write", "before", self._path)
        raw = bytes(data)
        half = len(raw) // 2
        self._append(raw[:half])
        self._fs._happens("write", "during", self._path)
        self._append(raw[half:])
        self._fs._happens("write", "after", self._path)

    def _append(self, raw: bytes) -> None:
        self._fs._take(len(raw), self._path)
        self._inode.data += raw
        self._inode.mtime_ns = self._inode.ctime_ns = self._fs._tick()
        self._fs._dirty[self._inode.number] = self._inode

    def set_mode(self, mode: int) -> None:
        self._fs._set_mode(self._path, self._inode, mode)

    def set_mtime(self, mtime_ns: int) -> None:
        self._fs._set_mtime(self._path, self._inode, mtime_ns)

    def sync(self) -> None:
        self._fs._happens("sync", "before", self._path)
        self._fs._flush(self._inode)
        self._fs._happens("sync", "after", self._path)

    def close(self) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass


class MemoryFileSystem:
    """A file system with one device. ``capacity`` limits the bytes of files; changes move the clock by ``tick_ns``."""

    def __init__(self, *, tick_ns: int = 100_000_000, insensitive: bool = False, capacity: int | None = None) -> None:
        self.clock_ns = START_NS
        self.capacity = capacity
        self.hook: Hook | None = None
        self.dead = False
        self.calls = 0
        self._tick_ns = tick_ns
        self._fold: Callable[[str], str] = str.casefold if insensitive else str
        self._used = 0
        self._numbers = 1
        self._root = _Inode(1, DIRECTORY, 0o755, self.clock_ns)
        self._pending: list[tuple[set[int], Callable[[], None]]] = []
        self._dirty: dict[int, _Inode] = {}

    # --- time, faults, crashes ---

    def now_ns(self) -> int:
        """The clock, also for the product."""
        return self.clock_ns

    def _tick(self) -> int:
        self.clock_ns += self._tick_ns
        return self.clock_ns

    def _happens(self, name: str, phase: str, path: str) -> None:
        if self.dead:
            raise SimulatedCrash
        if phase == "before":
            self.calls += 1
        if self.hook is not None:
            try:
                self.hook(name, phase, path)
            except SimulatedCrash:
                self.dead = True
                raise

    def revive(self) -> None:
        """The process is started again; everything that was written is there."""
        self.dead = False
        self.hook = None

    def lose_power(self, choose: Callable[[int], int]) -> None:
        """Then lose what was not flushed: ``choose(n)``, below n, says how many names survive and what of each file."""
        kept = choose(len(self._pending) + 1)
        for _, undo in reversed(self._pending[kept:]):
            undo()
        self._pending.clear()
        for number in sorted(self._dirty):
            inode = self._dirty[number]
            fate = choose(3)
            if fate == 0:
                inode.data = inode.durable
            elif fate == 1:
                inode.data = inode.data[: len(inode.data) // 2]
            inode.durable = inode.data
        self._dirty.clear()
        self.revive()

    # --- inodes and names ---

    def _split(self, path: str) -> list[str]:
        return [part for part in path.split("/") if part]

    def _find(self, path: str) -> _Inode:
        inode = self._parent(path)[0] if path.strip("/") else self._root
        name = path.rstrip("/").rpartition("/")[2]
        if not name:
            return inode
        found = inode.entries.get(self._fold(name))
        if found is None:
            raise VanishedError(f"Cannot find {path}: it does not exist.")
        return found[1]

    def _parent(self, path: str, links: int = 0) -> tuple[_Inode, str]:
        """The directory of a path's last component. Links on the way are followed, as real systems do."""
        parts = self._split(path)
        inode = self._root
        for position, part in enumerate(parts[:-1]):
            found = inode.entries.get(self._fold(part))
            if found is None or found[1].kind == FILE:
                raise VanishedError(f"Cannot find {path}: a part of it does not exist.")
            inode = found[1]
            if inode.kind == SYMLINK:
                if links > 8:
                    raise LocalError(f"Cannot find {path}: too many links.")
                target = inode.data.decode()
                base = [] if target.startswith("/") else parts[:position]
                for step in self._split(target):
                    base = base[:-1] if step == ".." else [*base, step]
                return self._parent("/".join([*base, *parts[position + 1 :]]), links + 1)
        return inode, parts[-1] if parts else ""

    def _entry(self, name: str, inode: _Inode) -> DiskEntry:
        if inode.kind == DIRECTORY:
            return DiskEntry(name, DIRECTORY, inode.mode, 0, 0, 0, 0)
        return DiskEntry(name, inode.kind, inode.mode, len(inode.data), inode.mtime_ns, inode.ctime_ns, inode.number)

    def _take(self, amount: int, path: str) -> None:
        if self.capacity is not None and self._used + amount > self.capacity:
            raise DiskFullError(f"Cannot write {path}: the disk is full.")
        self._used += amount

    def _flush(self, inode: _Inode) -> None:
        inode.durable = inode.data
        self._dirty.pop(inode.number, None)

    def _set(self, directory: _Inode, name: str, inode: _Inode | None) -> Callable[[], None]:
        """Change a name; what undoes it, unless something else has changed the name since."""
        key = self._fold(name)
        before = directory.entries.get(key)
        after = None if inode is None else (name, inode)
        self._assign(directory, key, after)

        def undo() -> None:
            if directory.entries.get(key) == after:
                self._assign(directory, key, before)

        return undo

    @staticmethod
    def _assign(directory: _Inode, key: str, value: tuple[str, _Inode] | None) -> None:
        if value is None:
            directory.entries.pop(key, None)
        else:
            directory.entries[key] = value

    def _link(self, path: str, inode: _Inode | None) -> None:
        directory, name = self._parent(path)
        self._pending.append(({directory.number}, self._set(directory, name, inode)))
        self._tick()

    def _new(self, path: str, kind: int, mode: int) -> _Inode:
        directory, name = self._parent(path)
        if self._fold(name) in directory.entries:
            raise ExistsError(f"Cannot create {path}: it exists already.")
        self._numbers += 1
        inode = _Inode(self._numbers, kind, mode, self._tick())
        self._link(path, inode)
        return inode

    def _set_mode(self, path: str, inode: _Inode, mode: int) -> None:
        self._happens("set_mode", "before", path)
        inode.mode = mode
        inode.ctime_ns = self._tick()
        self._happens("set_mode", "after", path)

    def _set_mtime(self, path: str, inode: _Inode, mtime_ns: int) -> None:
        self._happens("set_mtime", "before", path)
        inode.mtime_ns = mtime_ns
        inode.ctime_ns = self._tick()
        self._happens("set_mtime", "after", path)

    # --- FileSystem ---

    @_call("scan")
    def scan(self, path: str) -> list[RawEntry]:
        inode = self._find(path)
        if inode.kind != DIRECTORY:
            raise VanishedError(f"Cannot read the directory {path}: it is none.")
        return [tuple(self._entry(name, child)) for name, child in inode.entries.values()]  # type: ignore[misc]

    @_call("stat")
    def stat(self, path: str) -> DiskEntry | None:
        try:
            return self._entry(path.rpartition("/")[2], self._find(path))
        except VanishedError:
            return None

    @_call("device")
    def device(self, path: str) -> int:
        return self._root.number

    @_call("real_path")
    def real_path(self, path: str) -> str:
        return path

    @_call("free_bytes")
    def free_bytes(self, path: str) -> int:
        return 1 << 40 if self.capacity is None else self.capacity - self._used

    @_call("case_insensitive")
    def case_insensitive(self, path: str) -> bool:
        return self._fold is str.casefold

    @_call("open_read")
    def open_read(self, path: str) -> _Handle:
        inode = self._find(path)
        if inode.kind != FILE:
            raise LocalError(f"Cannot open {path}: it is no file.")
        return _Handle(self, path, inode)

    @_call("create")
    def create(self, path: str) -> _Handle:
        return _Handle(self, path, self._new(path, FILE, 0o600))

    def sync_files(self, paths: Iterable[str]) -> None:
        for path in paths:
            self._sync_file(path)

    @_call("sync_file")
    def _sync_file(self, path: str) -> None:
        self._flush(self._find(path))

    @_call("sync_directory")
    def sync_directory(self, path: str) -> None:
        number = self._find(path).number
        self._pending = [item for item in self._pending if number not in item[0]]

    @_call("rename")
    def rename(self, source: str, target: str, *, replace: bool) -> None:
        inode = self._find(source)
        from_directory, from_name = self._parent(source)
        to_directory, to_name = self._parent(target)
        present = to_directory.entries.get(self._fold(to_name))
        if present is not None and (not replace or present[1].kind == DIRECTORY):
            raise ExistsError(f"Cannot rename {source}: {target} exists already.")
        first = self._set(from_directory, from_name, None)
        second = self._set(to_directory, to_name, inode)

        def undo() -> None:
            second()
            first()

        self._pending.append(({from_directory.number, to_directory.number}, undo))
        inode.ctime_ns = self._tick()

    @_call("mkdir")
    def mkdir(self, path: str, mode: int = 0o777) -> None:
        self._new(path, DIRECTORY, mode & 0o755)

    @_call("rmdir")
    def rmdir(self, path: str) -> None:
        inode = self._find(path)
        if inode.entries or inode.kind != DIRECTORY:
            raise ExistsError(f"Cannot remove the directory {path}: it is not empty.")
        self._link(path, None)

    @_call("unlink")
    def unlink(self, path: str) -> None:
        inode = self._find(path)
        if inode.kind == DIRECTORY:
            raise LocalError(f"Cannot remove {path}: it is a directory.")
        self._used -= len(inode.data)
        self._link(path, None)

    @_call("readlink")
    def readlink(self, path: str) -> bytes:
        return self._find(path).data

    def symlink(self, target: bytes, path: str) -> None:
        self._happens("symlink", "before", path)
        inode = self._new(path, SYMLINK, 0o777)
        inode.data = inode.durable = target
        self._happens("symlink", "after", path)

    def set_mode(self, path: str, mode: int) -> None:
        self._set_mode(path, self._find(path), mode)

    def set_mtime(self, path: str, mtime_ns: int) -> None:
        self._set_mtime(path, self._find(path), mtime_ns)

    # --- what users and their programs do: durable at once, never failing, not counted ---

    def put(self, path: str, data: bytes | str, *, mode: int | None = None, mtime_ns: int | None = None) -> None:
        """Write a file in place, make a link to a ``str``, or a directory if ``path`` ends in ``/``."""
        parts = self._split(path)
        made = "/"
        for part in parts if path.endswith("/") else parts[:-1]:
            made = f"{made.rstrip('/')}/{part}"
            self._settle(made, DIRECTORY)
        if path.endswith("/"):
            if mode is not None:
                self._find(path).mode = mode
            return
        inode = self._settle(path, SYMLINK if isinstance(data, str) else FILE)
        raw = data.encode() if isinstance(data, str) else data
        self._used += len(raw) - len(inode.data)
        inode.data = inode.durable = raw
        inode.mode = mode if mode is not None else inode.mode
        inode.ctime_ns = self._tick()
        inode.mtime_ns = inode.ctime_ns if mtime_ns is None else mtime_ns

    def _settle(self, path: str, kind: int) -> _Inode:
        directory, name = self._parent(path)
        found = directory.entries.get(self._fold(name))
        if found is not None and found[1].kind == kind:
            return found[1]
        self._numbers += 1
        inode = _Inode(self._numbers, kind, {FILE: 0o644, DIRECTORY: 0o755}.get(kind, 0o777), self._tick())
        directory.entries[self._fold(name)] = (name, inode)
        return inode

    def get(self, path: str) -> bytes:
        """The bytes of a file, or the target of a link."""
        return self._find(path).data

    def exists(self, path: str) -> bool:
        """Whether something is there."""
        try:
            return self._find(path) is not None
        except VanishedError:
            return False

    def move(self, source: str, target: str) -> None:
        """Rename, over whatever is there."""
        inode = self._find(source)
        self.remove(source)
        directory, name = self._parent(target)
        directory.entries[self._fold(name)] = (name, inode)
        inode.ctime_ns = self._tick()

    def remove(self, path: str) -> None:
        """Remove a file or a whole tree."""
        directory, name = self._parent(path)
        directory.entries.pop(self._fold(name), None)
        self._tick()

    def tree(self, path: str) -> dict[str, bytes | str | None]:
        """Everything below ``path``: bytes of files, ``str`` of links, None for directories."""
        result: dict[str, bytes | str | None] = {}
        stack = [("", self._find(path))]
        while stack:
            prefix, inode = stack.pop()
            for name, child in inode.entries.values():
                where = f"{prefix}{name}"
                if child.kind == DIRECTORY:
                    result[where] = None
                    stack.append((f"{where}/", child))
                else:
                    result[where] = child.data if child.kind == FILE else child.data.decode()
        return dict(sorted(result.items()))
