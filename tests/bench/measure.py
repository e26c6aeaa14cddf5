"""Timing of commands, equal conditions before them, and what directories hold."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from blake3 import blake3

LAUNCHER = Path(__file__).with_name("launcher.py")
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Command:
    """What to run: arguments, working directory (None: the current one), variables beside the environment."""

    argv: tuple[str, ...]
    cwd: Path | None = None
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Sample:
    """One run of one command. Seconds and bytes; ``error`` says why its numbers are worth nothing."""

    wall: float = 0.0
    cpu: float = 0.0
    """User and system seconds of the process and its children."""
    peak: int = 0
    """Largest resident set of any one of its processes."""
    error: str = ""
    report: dict[str, object] = field(default_factory=dict)
    """The last line of stdout, if that was a JSON object."""
    stored: int | None = None
    """Bytes in the repository after the run."""
    served: int | None = None
    """Requests that the server counted."""
    extra: dict[str, float] = field(default_factory=dict)


def run(command: Command, scratch: Path) -> Sample:
    """Run a command and measure it; its output goes to files in ``scratch``."""
    scratch.mkdir(parents=True, exist_ok=True)
    numbers, out, err = scratch / "numbers", scratch / "stdout", scratch / "stderr"
    numbers.unlink(missing_ok=True)
    with out.open("wb") as stdout, err.open("wb") as stderr:
        code = subprocess.run(
            [sys.executable, "-I", "-S", str(LAUNCHER), str(numbers), *command.argv],
            cwd=command.cwd,
            env={
                name: value for name, value in (os.environ | dict(command.env)).items() if value
            },  # an empty one is unset
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            check=False,
        ).returncode
    sample = Sample(**json.loads(numbers.read_text())) if numbers.exists() else Sample()
    sample.report = _last_object(out)
    if code:
        sample.error = f"exit code {code}: {_last_line(err) or _last_line(out)}"[:200]
    return sample


def _last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else ""


def _last_object(path: Path) -> dict[str, object]:
    line = _last_line(path)
    if not line.startswith("{"):
        return {}
    try:
        value = json.loads(line)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def settle(*roots: Path) -> None:
    """The same start for everyone: what is dirty is on the disk, what will be read is in the page cache."""
    os.sync()
    buffer = bytearray(_BLOCK)
    for root in roots:
        for path in files(root):
            with open(path, "rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass


def files(root: Path) -> list[str]:
    """Paths of all regular files under a directory, sorted."""
    return sorted(os.path.join(top, name) for top, _, names in os.walk(root) for name in names)


def tree_bytes(root: Path) -> int:
    """Sum of the sizes of all files under a directory."""
    return sum(os.lstat(path).st_size for path in files(root))


def tree_digest(root: Path, timeless: str | None = None) -> str:
    """A hash of the names, contents and modification times (whole seconds) of all files under a directory.

    The times of files below ``timeless`` (relative) do not count.
    """
    hasher = blake3()
    for path in files(root):
        with open(path, "rb") as file:
            content = blake3()
            while block := file.read(_BLOCK):
                content.update(block)
        relative = os.path.relpath(path, root)
        counts = timeless is None or not relative.startswith(timeless + os.sep)
        seconds = int(os.stat(path).st_mtime) if counts else 0
        hasher.update(f"{relative}\0{seconds}\0{content.hexdigest()}\n".encode())
    return hasher.hexdigest()


def free_bytes(path: Path) -> int:
    """Room for new files at a path; on a memory file system also no more than the free memory."""
    room = os.statvfs(path)
    free = room.f_bavail * room.f_frsize
    if file_system(path) not in ("tmpfs", "ramfs"):
        return free
    with open("/proc/meminfo", encoding="ascii") as file:
        available = next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable"))
    return min(free, available)


def file_system(path: Path) -> str:
    """Type of the file system that holds a path, as ``/proc/mounts`` names it."""
    real = os.path.realpath(path)
    best, kind = "", "unknown"
    with open("/proc/mounts", encoding="utf-8", errors="replace") as file:
        for line in file:
            _, mount, fstype = line.split()[:3]
            if len(mount) >= len(best) and (real == mount or real.startswith(mount.rstrip("/") + "/")):
                best, kind = mount, fstype
    return kind
