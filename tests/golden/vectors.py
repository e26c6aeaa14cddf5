"""The golden buckets and what else the tests of the format share."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

HERE = Path(__file__).parent
SPECS = HERE.parents[1] / "specs"
VECTORS = SPECS / "vectors"


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"golden_{path.stem}", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


reader = load(SPECS / "reader.py")


def golden_buckets() -> Iterator[tuple[Path, str, dict[str, Any]]]:
    """(directory of the bucket, folder, what is expected of it) of each golden bucket."""
    for path in sorted((VECTORS / "buckets").glob("*.json")):
        expected = json.loads(path.read_text(encoding="utf-8"))
        yield path.with_suffix(""), expected["folder"], expected


NEGATIVES: list[dict[str, Any]] = json.loads((VECTORS / "negative.json").read_text(encoding="utf-8"))["objects"]


def listing(top: Path) -> list[dict[str, Any]]:
    """What is on the disk, as in a golden bucket's expectation."""
    found = []
    for path in sorted(top.rglob("*"), key=lambda path: os.fsencode(path.relative_to(top).as_posix())):
        there = path.lstat()
        row: dict[str, Any] = {"path": path.relative_to(top).as_posix()}
        if stat.S_ISDIR(there.st_mode):
            row |= {"kind": "directory", "mode": stat.S_IMODE(there.st_mode)}
        elif stat.S_ISLNK(there.st_mode):
            row |= {
                "kind": "symlink",
                "size": there.st_size,
                "target": os.readlink(path),
                "mtime_ns": there.st_mtime_ns,
            }
        else:
            row |= {"kind": "file", "size": there.st_size, "mode": stat.S_IMODE(there.st_mode)}
            row |= {"mtime_ns": there.st_mtime_ns, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        found.append(row)
    return found
