"""The command lines of buckia and its peers, with their own defaults; caches and states stay in the work directory."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from tests.bench.measure import Command, tree_bytes
from tests.bench.server import Server


@dataclass(frozen=True, slots=True)
class Home:
    """Where one tool keeps its things in one scenario: a fresh directory, and a server if the store is one."""

    root: Path
    server: Server | None = None

    @property
    def folder(self) -> str:
        """Name of the repository in the server's bucket."""
        return "-".join(self.root.parts[-3:])

    @property
    def repository(self) -> Path:
        """The repository, where the store is a directory."""
        return self.root / "repository"

    def stored(self) -> int:
        """Bytes in the repository."""
        return self.server.stored(self.folder + "/") if self.server else tree_bytes(self.repository)


class Tool(ABC):
    """One program on one repository. A method that returns None: the program has no such thing."""

    name: str
    s3 = False
    """It can write to S3."""
    deduplicates = True
    """It stores equal pieces once (and keeps history)."""

    def __init__(self, home: Home) -> None:
        home.root.mkdir(parents=True, exist_ok=True)
        self.home = home

    @classmethod
    @abstractmethod
    def version_command(cls) -> tuple[str, ...]:
        """What prints the program's version."""

    def prepare(self) -> Command | None:
        """Make the repository; not timed."""
        return None

    @abstractmethod
    def sync(self, source: Path, turn: int) -> Command:
        """Store the present state of ``source``; ``turn`` counts the states."""

    @abstractmethod
    def restore(self, target: Path, turn: int) -> Command | None:
        """Write the state stored as ``turn``, the newest one, to the empty directory ``target``."""

    @abstractmethod
    def verify(self, source: Path) -> Command | None:
        """Read all stored data and check it."""

    def open(self) -> Command | None:
        """The least that opens the repository: start of the program, derivation of the key."""
        return None

    def _env(self, **more: str) -> dict[str, str]:
        return {**(self.home.server.environment if self.home.server else {}), **more}


class Buckia(Tool):
    """The subject."""

    name = "buckia"
    s3 = True
    program: tuple[str, ...] = ()

    @classmethod
    def version_command(cls) -> tuple[str, ...]:
        """What prints the version."""
        return (*buckia_program(), "--version")

    @property
    def location(self) -> str:
        """The repository as the command line takes it."""
        server = self.home.server
        if server is None:
            return str(self.home.repository / "folder")
        return f"s3://{server.bucket}/{self.home.folder}?endpoint={server.endpoint}"

    def sync(self, source: Path, turn: int, device: int = 1) -> Command:
        """Two-way sync that publishes deletions; ``device`` picks one of several local states."""
        return self._run("sync", str(source), "--to", self.location, "--delete-orphaned", "--json", device=device)

    def restore(self, target: Path, turn: int) -> Command:
        """Restore the newest snapshot."""
        return self._run("restore", "--from", self.location, "--snapshot", "latest", "--target", str(target), "--json")

    def verify(self, source: Path) -> Command:
        """Full verification."""
        return self._run("verify", "--from", self.location, "--read-data", "--json")

    def open(self) -> Command:
        """List the snapshots."""
        return self._run("snapshots", "--from", self.location, "--json")

    def _run(self, *arguments: str, device: int = 1) -> Command:
        state = str(self.home.root / f"state-{device}")
        return Command((*buckia_program(), *arguments), env=self._env(BUCKIA_STATE_DIR=state))


def buckia_program() -> tuple[str, ...]:
    """The command given with ``--buckia``, else the script beside this interpreter, else the package."""
    if Buckia.program:
        return Buckia.program
    script = Path(sys.executable).with_name("buckia")
    return (str(script),) if script.exists() else (sys.executable, "-m", "buckia")


class Restic(Tool):
    """restic: repository format 2, compression ``auto``, cache on: its defaults from 0.14 on."""

    name = "restic"
    s3 = True

    @classmethod
    def version_command(cls) -> tuple[str, ...]:
        """What prints the version."""
        return ("restic", "version")

    def prepare(self) -> Command:
        """Make the repository."""
        return self._run("init")

    def sync(self, source: Path, turn: int) -> Command:
        """A backup of the directory, seen from inside, so that a restore does not repeat its path."""
        return self._run("backup", ".", cwd=source)

    def restore(self, target: Path, turn: int) -> Command:
        """Restore the newest snapshot."""
        return self._run("restore", "latest", "--target", str(target))

    def verify(self, source: Path) -> Command:
        """Full verification."""
        return self._run("check", "--read-data")

    def open(self) -> Command:
        """List the snapshots."""
        return self._run("snapshots")

    def _run(self, *arguments: str, cwd: Path | None = None) -> Command:
        server = self.home.server
        where = f"s3:{server.endpoint}/{server.bucket}/{self.home.folder}" if server else str(self.home.repository)
        env = self._env(RESTIC_PASSWORD="bench", RESTIC_CACHE_DIR=str(self.home.root / "cache"))
        return Command(("restic", "-q", "-r", where, *arguments), cwd, env)


class Borg(Tool):
    """BorgBackup 1.x: without encryption, compression lz4 (its default)."""

    name = "borg"

    @classmethod
    def version_command(cls) -> tuple[str, ...]:
        """What prints the version."""
        return ("borg", "--version")

    def prepare(self) -> Command:
        """Make the repository."""
        return self._run("init", "-e", "none", str(self.home.repository))

    def sync(self, source: Path, turn: int) -> Command:
        """Create an archive."""
        return self._run("create", f"{self.home.repository}::turn-{turn}", ".", cwd=source)

    def restore(self, target: Path, turn: int) -> Command:
        """Extract the newest archive."""
        return self._run("extract", f"{self.home.repository}::turn-{turn}", cwd=target)

    def verify(self, source: Path) -> Command:
        """Full verification."""
        return self._run("check", "--verify-data", str(self.home.repository))

    def open(self) -> Command:
        """List the archives."""
        return self._run("list", str(self.home.repository))

    def _run(self, *arguments: str, cwd: Path | None = None) -> Command:
        env = {
            "BORG_BASE_DIR": str(self.home.root / "base"),
            "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
            "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
        }
        return Command(("borg", *arguments), cwd, env)


class Rclone(Tool):
    """rclone: plain copies, no history, no deduplication."""

    name = "rclone"
    s3 = True
    deduplicates = False

    @classmethod
    def version_command(cls) -> tuple[str, ...]:
        """What prints the version."""
        return ("rclone", "version")

    def sync(self, source: Path, turn: int) -> Command:
        """Make the copy equal to the directory."""
        return self._run("sync", str(source), self._where())

    def restore(self, target: Path, turn: int) -> Command:
        """Copy everything back."""
        return self._run("copy", self._where(), str(target))

    def verify(self, source: Path) -> Command:
        """Compare every byte of the copy with the directory (it knows no other way)."""
        return self._run("check", "--download", str(source), self._where())

    def _where(self) -> str:
        server = self.home.server
        return f"bench:{server.bucket}/{self.home.folder}" if server else str(self.home.repository)

    def _run(self, *arguments: str) -> Command:
        root = self.home.root
        env = self._env(RCLONE_CONFIG=str(root / "rclone.conf"), RCLONE_CACHE_DIR=str(root / "cache"))
        if server := self.home.server:
            env |= {
                "RCLONE_CONFIG_BENCH_TYPE": "s3",
                "RCLONE_CONFIG_BENCH_PROVIDER": "Other",
                "RCLONE_CONFIG_BENCH_ENV_AUTH": "true",
                "RCLONE_CONFIG_BENCH_ENDPOINT": server.endpoint,
            }
        return Command(("rclone", "-q", *arguments), env=env)


class Rsync(Tool):
    """rsync -a: plain copies, no history, no deduplication, no store but a directory."""

    name = "rsync"
    deduplicates = False

    @classmethod
    def version_command(cls) -> tuple[str, ...]:
        """What prints the version."""
        return ("rsync", "--version")

    def sync(self, source: Path, turn: int) -> Command:
        """Make the copy equal to the directory."""
        return Command(("rsync", "-a", "--delete", f"{source}/", f"{self.home.repository}/"))

    def restore(self, target: Path, turn: int) -> Command:
        """Copy everything back."""
        return Command(("rsync", "-a", f"{self.home.repository}/", f"{target}/"))

    def verify(self, source: Path) -> None:
        """There is nothing that a copy could be checked against but its source."""
        return


TOOLS: tuple[type[Tool], ...] = (Buckia, Restic, Borg, Rclone, Rsync)


def versions() -> dict[str, str]:
    """First line of each tool's version; empty for one that is not installed."""
    return {tool.name: _version(tool.version_command()) for tool in TOOLS}


def _version(command: tuple[str, ...]) -> str:
    if shutil.which(command[0]) is None:
        return ""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout.strip().splitlines() or [""])[0] if done.returncode == 0 else ""


def set_buckia(command: str) -> None:
    """Measure this command line (split as a shell would) instead of the installed buckia."""
    Buckia.program = tuple(shlex.split(command))
