"""Real processes on real files, killed at any moment: what ``test_every_effect`` promises holds there too.

``BUCKIA_SIGKILL_SECONDS`` says how long the loop runs (60 in CI, else 5), ``BUCKIA_SIGKILL_SEED`` what the editor does
and when it kills.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from buckia.core.content import chunks
from buckia.core.directory import walk
from buckia.core.manifest import FileContent
from buckia.core.record import Snapshot
from buckia.store.ledger import MemoryLedger
from buckia.store.repository import Repository
from buckia.sync.local import LocalSync
from tests.transfers import make

ROOT = Path(__file__).parents[2]
SECONDS = float(os.environ.get("BUCKIA_SIGKILL_SECONDS", "60" if os.environ.get("CI") else "5"))
SEED = int(os.environ.get("BUCKIA_SIGKILL_SEED", "1"))
OURS = (".buckia-trash",)
TEMPORARY = ".buckia-tmp-"

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")


def start(state: Path, *arguments: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "BUCKIA_STATE_DIR": str(state), "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    command = [sys.executable, "-m", "buckia", *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen[bytes], *, codes: tuple[int, ...] = (0,)) -> dict[str, Any]:
    """Wait for the end; the last line of JSON."""
    output, errors = process.communicate(timeout=120)
    assert process.returncode in codes, f"exit code {process.returncode}: {errors.decode()}"
    found: dict[str, Any] = json.loads(output.decode().splitlines()[-1])
    return found


@dataclass(slots=True)
class Machine:
    """A directory, its state, and somebody who edits the files."""

    directory: Path
    state: Path
    bucket: Path
    chance: random.Random
    written: set[str] = field(default_factory=set)
    """Hashes of all contents that any file ever had."""
    killed: int = 0

    def sync(self) -> subprocess.Popen[bytes]:
        options = ("--delete-orphaned", "--allow-mass-delete", "--json")
        return start(self.state, "sync", str(self.directory), "--to", str(self.bucket), *options)

    def edit(self) -> None:
        """One random change, done in one step, as careful programs do."""
        files = [path for path in self.directory.rglob("*") if path.is_file() and not is_ours(path, self.directory)]
        act = self.chance.random()
        if files and act < 0.15:
            self.chance.choice(files).unlink(missing_ok=True)
        elif files and act < 0.25:
            self._put(self.chance.choice(files), move=True)
        elif files and act < 0.5:
            self._write(self.chance.choice(files))
        else:
            self._write(self.directory / f"d{self.chance.randrange(6)}" / f"file{self.chance.randrange(40)}")

    def _write(self, path: Path) -> None:
        size = self.chance.choice((0, 10, 5_000, 90_000, 700_000))
        data = self.chance.randbytes(size)
        self.written.add(hashlib.sha256(data).hexdigest())
        self._put(path, data)

    def _put(self, path: Path, data: bytes = b"", *, move: bool = False) -> None:
        """The product may remove a directory at the same moment: then the edit does not happen."""
        beside = self.state.parent / f"{self.directory.name}.editor"
        try:
            if move:
                target = path.parent.parent / f"d{self.chance.randrange(6)}" / f"moved{self.chance.randrange(40)}"
                if not target.exists():
                    target.parent.mkdir(exist_ok=True)
                    path.rename(target)
                return
            beside.write_bytes(data)
            path.parent.mkdir(exist_ok=True)
            beside.replace(path)
        except FileNotFoundError:
            return

    def sync_and_kill(self, longest: float) -> None:
        """Start a sync, edit while it runs, and kill it; sometimes it is quicker."""
        process = self.sync()
        end = time.monotonic() + self.chance.uniform(0.1, longest)
        while time.monotonic() < end and process.poll() is None:
            if self.chance.random() < 0.3:
                self.edit()
            time.sleep(0.01)
        process.kill()
        _, errors = process.communicate()
        assert process.returncode in (0, 1, 9, -signal.SIGKILL), errors.decode()
        self.killed += process.returncode == -signal.SIGKILL

    def tree(self) -> dict[str, str]:
        """Hashes of what users see, by path."""
        return {
            str(path.relative_to(self.directory)): digest(path)
            for path in self.directory.rglob("*")
            if path.is_file() and not is_ours(path, self.directory)
        }

    def everything(self) -> set[str]:
        """The same of all files, in the trash too."""
        files = (path for path in self.directory.rglob("*") if path.is_file())
        return {digest(path) for path in files if not path.name.startswith(TEMPORARY)}


def is_ours(path: Path, directory: Path) -> bool:
    return path.relative_to(directory).parts[0] in OURS or path.name.startswith(TEMPORARY)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def contents_of_all_snapshots(bucket: Path) -> set[str]:
    """Hashes of every version of every file."""
    with LocalSync(str(bucket.parent)) as backend, make(backend) as transfer:
        repository = Repository(transfer, MemoryLedger(), bucket.name, random_bytes=os.urandom, now_ns=time.time_ns)
        repository.open()
        repository.refresh()
        found: dict[bytes, str] = {}
        for linked in repository.journal.records():
            if isinstance(linked.record.body, Snapshot):
                for _, entry in walk(repository.nodes, linked.snapshot.state_root):  # type: ignore[arg-type]
                    for version in entry.versions:
                        if isinstance(version.content, FileContent) and version.content.id not in found:
                            found[version.content.id] = _hash(repository, version.content, version.size)
        return set(found.values())


def _hash(repository: Repository, content: FileContent, size: int) -> str:
    hasher = hashlib.sha256()
    for blob, _ in chunks(repository.nodes, content, size):
        (wanted,) = repository.reader.plan([blob])
        hasher.update(dict(repository.reader.fetch(wanted))[blob])
    return hasher.hexdigest()


def kill_for(seconds: float, place: Path) -> int:
    """The whole loop; how many syncs were killed."""
    chance = random.Random(SEED)
    bucket = place / "bucket" / "folder"
    written = {hashlib.sha256(b"").hexdigest()}
    machines = [
        Machine(place / name, place / f"state-{name}", bucket, random.Random(chance.random()), written)
        for name in ("one", "two")
    ]
    for machine in machines:
        machine.directory.mkdir()
        machine.edit()
        began = time.monotonic()
        finish(machine.sync(), codes=(0, 9))
    longest = 2 * (time.monotonic() - began)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        machine = chance.choice(machines)
        for _ in range(chance.randrange(4)):
            machine.edit()
        machine.sync_and_kill(longest)
        for each in machines:
            assert set(each.tree().values()) <= written, "a file is half-written"
    before = machines[0].everything() | machines[1].everything()
    for _ in range(4):
        for machine in machines:
            finish(machine.sync(), codes=(0, 9))
    for machine in machines:
        last = finish(machine.sync(), codes=(0, 9))
        assert (last["uploaded"], last["downloaded"], last["deleted"], last["failed"]) == (0, 0, 0, 0)
    assert machines[0].tree() == machines[1].tree()
    leftovers = [path for machine in machines for path in machine.directory.rglob(f"{TEMPORARY}*")]
    assert not leftovers
    proof = finish(start(place / "state-none", "verify", "--from", str(bucket), "--read-data", "--json"))
    assert proof["clean"]
    after = machines[0].everything() | machines[1].everything() | contents_of_all_snapshots(bucket)
    assert before <= after, f"{len(before - after)} contents are lost"
    return machines[0].killed + machines[1].killed


@pytest.mark.slow
def test_killed_again_and_again(tmp_path: Path) -> None:
    assert kill_for(SECONDS, tmp_path) > SECONDS / 10


@pytest.mark.slow
def test_packs_that_arrived_before_the_kill_are_not_sent_again(tmp_path: Path) -> None:
    source, bucket = tmp_path / "source", tmp_path / "bucket" / "folder"
    source.mkdir()
    size = 96 << 20
    for number in range(6):
        (source / f"file{number}").write_bytes(random.Random(number).randbytes(size // 6))
    for attempt in range(5):
        shutil.rmtree(bucket.parent, ignore_errors=True)
        state = tmp_path / f"state{attempt}"
        process = start(state, "sync", str(source), "--to", str(bucket), "--json")
        while process.poll() is None and len(packs(bucket)) < 2:
            time.sleep(0.001)
        process.kill()
        process.communicate()
        arrived = sum(path.stat().st_size for path in packs(bucket))
        if process.returncode == -signal.SIGKILL and arrived:
            break
    else:
        pytest.fail("the sync was always quicker than the kill")
    before = {path.name for path in packs(bucket)}
    result = finish(start(state, "sync", str(source), "--to", str(bucket), "--json"))
    assert result["uploaded"] == 6
    assert len(before) >= 2
    assert size - arrived <= result["bytes_uploaded"] + (1 << 20)
    assert result["bytes_uploaded"] < size - arrived + (1 << 20), "what had arrived was sent again"
    assert before < {path.name for path in packs(bucket)}
    proof = finish(start(tmp_path / "none", "verify", "--from", str(bucket), "--read-data", "--json"))
    assert proof["clean"]
    assert proof["unreferenced_packs"] == 0


def packs(bucket: Path) -> list[Path]:
    return [path for path in (bucket / "_buckia" / "packs").glob("*/*") if not path.name.startswith(TEMPORARY)]
